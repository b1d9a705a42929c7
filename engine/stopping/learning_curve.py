"""Where the student's score is going: a curve that levels off, fitted to the scores so far, with the range that their noise allows. Pure.

score = top - drop * rows ** -speed, the form that learning curves mostly have. Each score is drawn again and again within its own
interval, the curve is fitted to each draw, and the range is that of nine draws in ten. So it says what follows if things go on as they
did; not what another method, or a teacher that runs out of ideas, would do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.status import ScoreForecast

Floats: TypeAlias = NDArray[np.float64]

FEWEST = 4
"""Scores that a curve with three numbers can be told from."""
DRAWS = 400
_SPEEDS = np.linspace(0.1, 2.0, 20)
_Z95 = 1.96
_LEAST_ERROR = 0.002
"""Of a score; what has no interval is not certain either."""


def forecast_score(
    rows: Sequence[int], scores: Sequence[float], intervals: Sequence[tuple[float, float] | None], at: float
) -> ScoreForecast | None:
    """`rows`: learned by the student of each score. `at`: rows at the end. None where it would be a guess."""
    if len(scores) < FEWEST or len({*rows}) < FEWEST or at < rows[-1]:
        return None
    x, y = np.maximum(np.array(rows, np.float64), 1.0), np.array(scores)
    widths = [high - low for low, high in (interval or (0.0, 0.0) for interval in intervals)]
    errors = np.maximum(np.array(widths) / (2 * _Z95), _LEAST_ERROR)
    drawn = np.vstack([y, y + errors * np.random.default_rng(0).normal(size=(DRAWS, len(y)))])
    ends = np.clip(_fit(x, drawn, 1 / errors, at), 0.0, 1.0)
    low, high = np.quantile(ends[1:], (0.05, 0.95))
    middle = float(ends[0])
    return ScoreForecast(round(at), min(float(low), middle), middle, max(float(high), middle))


def _fit(x: Floats, drawn: Floats, weights: Floats, at: float) -> Floats:
    """The value at `at` of the best curve for each draw: least squares in top and drop for each speed, then the best speed."""
    best = np.full(len(drawn), np.inf)
    ends = np.zeros(len(drawn))
    for speed in _SPEEDS:
        basis = np.stack([np.ones_like(x), -(x**-speed)], axis=1) * weights[:, None]
        solved = np.linalg.lstsq(basis, (drawn * weights).T, rcond=None)[0]
        # Teaching does not make it worse for good: a curve that falls is level, at the mean.
        falls = solved[1] < 0
        level = (drawn * weights**2).sum(axis=1) / (weights**2).sum()
        tops, drops = np.where(falls, level, solved[0]), np.where(falls, 0.0, solved[1])
        curves = tops[:, None] - drops[:, None] * x**-speed
        losses = (((curves - drawn) * weights) ** 2).sum(axis=1)
        value = tops - drops * at**-speed
        is_better = losses < best
        best, ends = np.where(is_better, losses, best), np.where(is_better, value, ends)
    return ends
