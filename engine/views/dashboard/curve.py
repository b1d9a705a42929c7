"""Curves and intervals in a line of characters."""

from __future__ import annotations

from collections.abc import Sequence

from engine.status import Point

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """One character for each of the last `width` values, from the least to the greatest of them."""
    shown = values[-width:] if width > 0 else ()
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    if low == high:
        return _BLOCKS[3] * len(shown)
    return "".join(_BLOCKS[round((value - low) / (high - low) * (len(_BLOCKS) - 1))] for value in shown)


def interval_bar(point: Point, low: float, high: float, width: int) -> str:
    """The score, and the interval around it where there is one, on a scale from `low` to `high`."""
    if width < 8:
        return ""

    def column(value: float) -> int:
        return round((value - low) / (high - low) * (width - 1)) if high > low else 0

    line = [" "] * width
    if point.low is not None and point.high is not None:
        first, last = column(point.low), column(point.high)
        line[first : last + 1] = "─" * (last + 1 - first)
        line[first], line[last] = "├", "┤"
    line[column(point.macro_f1)] = "●"
    return "".join(line).rstrip()
