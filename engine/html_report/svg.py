"""A matplotlib figure as a part of a page: in the page's colours, light or dark, in its font, and without a style of its own.

What the figure says in `style` attributes becomes classes, so that the page's policy can refuse every style but the one it names by hash.
Only shapes and text get through; links, scripts and images of an SVG are no part of a plot.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1b1f24", "#57606a", "#d8dee4", "#ffffff"
SERIES = ("#0b62c4", "#b35900", "#1a7f37", "#c0202f", "#7d3fc4", "#0f766e", "#b0307c", "#7a6a00", "#6e7781")
"""In the order in which plots take them. On either ground each has a contrast of 3:1 at least."""
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {color: f"c{number}" for number, color in enumerate(SERIES, 1)}
"""What the page calls each colour."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "svg.hashsalt": "reflux",
    "text.parse_math": False,  # a label may hold any character, dollars too
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 10,
}

_KEPT = frozenset({"svg", "g", "path", "use", "text", "tspan", "defs", "clipPath", "rect", "circle"})
_ATTRIBUTES = frozenset({"viewBox", "id", "d", "x", "y", "width", "height", "transform", "clip-path", "href", "cx", "cy", "r"})
_FONT = re.compile(r"font-family:[^;]*;?\s*")
_HEX = re.compile(r"#[0-9a-f]{6}\b")
_LOCAL = re.compile(r"#(?=[A-Za-z])")


class Sheet:
    """The styles of all plots of a page, by class; and what keeps the names in one plot from those in another."""

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}
        self._numbers = itertools.count(1)

    @property
    def css(self) -> str:
        return "\n".join(f".{name}{{{style}}}" for style, name in self._classes.items())

    def draw(self, figure: Figure, title: str) -> Markup:
        """The figure as inline SVG with `title` for who cannot see it. The figure is spent."""
        file = io.StringIO()
        with mpl.rc_context(STYLE), warnings.catch_warnings():
            # The browser has the letters of more languages than matplotlib's own font, by which it only measures.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            warnings.filterwarnings("ignore", message="Matplotlib currently does not support .* natively")
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        root = ElementTree.fromstring(file.getvalue())  # noqa: S314 - matplotlib wrote it
        prefix = f"p{next(self._numbers)}-"
        return Markup('<svg viewBox="{}" role="img" aria-label="{}">{}</svg>').format(
            root.get("viewBox", ""), title, Markup("").join(self._element(child, prefix) for child in root)
        )

    def _element(self, element: ElementTree.Element, prefix: str) -> Markup:
        tag = _local(element.tag)
        if tag not in _KEPT:
            return Markup("")
        inside = Markup("").join(self._element(child, prefix) for child in element)
        if tag == "defs" and not inside:
            return inside
        attributes = {_local(name): value for name, value in element.attrib.items()}
        found = {name: _named(name, value, prefix) for name, value in attributes.items() if name in _ATTRIBUTES}
        if tag == "g":
            found.pop("id", None)  # nobody refers to a group, and a page of plots has thousands
        if style := attributes.get("style"):
            found["class"] = self._class_of(style)
        written = "".join(f' {name}="{escape(value)}"' for name, value in found.items())
        return Markup(f"<{tag}{written}>{escape((element.text or '').strip())}{inside}</{tag}>")  # noqa: S704 - all parts are escaped, or made here

    def _class_of(self, style: str) -> str:
        colored = _HEX.sub(lambda hex: f"var(--{VARIABLES[hex[0]]})", _FONT.sub("", style))
        return self._classes.setdefault(colored, f"s{len(self._classes)}")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _named(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return prefix + value
    return _LOCAL.sub(f"#{prefix}", value) if name in ("href", "clip-path") else " ".join(value.split())
