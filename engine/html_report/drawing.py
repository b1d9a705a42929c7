"""What all plots of the pages have in common. Each says in words what it shows, for who cannot see it.

All are as wide as a phone, so that their text can be read there; on wider screens they stand side by side.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from engine.html_report.findings import shown
from engine.html_report.svg import STYLE

WIDTH = 5.0
"""In inches of 72 units, which are a little less than a phone's pixels."""
HEIGHT = 2.9
_LABEL_CHARS = 22


@dataclass(frozen=True, slots=True)
class Plot:
    title: str
    caption: str
    """How it is read."""
    svg: Markup


@contextmanager
def canvas(height: float = HEIGHT) -> Generator[tuple[Figure, Axes]]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.add_subplot()


def legend(figure: Figure, axes: Axes, columns: int = 3) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=1.4, columnspacing=1.2, borderpad=0)


def whole_numbers(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))


def tick(value: float, _place: int) -> str:
    return short(value)


def short(value: float) -> str:
    """12,300 is 12.3k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def short_label(text: str) -> str:
    """What fits beside an axis: of a long label both ends, as labels of one family often begin alike."""
    whole = shown(text)
    return whole if len(whole) <= _LABEL_CHARS else f"{whole[: _LABEL_CHARS // 2]}…{whole[1 - _LABEL_CHARS // 2 :]}"
