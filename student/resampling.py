"""How much of a score is luck: the rows are drawn again many times, for one student or for two at once (the bootstrap).

Rows are drawn within their true label, so that a label keeps its number of rows: else one with three rows would be missing from every
twentieth draw, and its F1 of zero would drag macro F1 below what any real set of rows gives. All scores here follow from how often which
label was predicted for which, so not rows are drawn but these counts; a thousand draws take tens of milliseconds.

Invariant: the same rows and guesses give the same draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import binomtest

from engine.reports import Interval, Intervals

Positions: TypeAlias = NDArray[np.int64] | Sequence[int]
"""Of labels in the list of the task's labels, a number for each row."""

NUM_DRAWS = 1000
CONFIDENCE = 0.95
_SEED = 1


class Draws(NamedTuple):
    """A score of one student in each draw."""

    accuracy: NDArray[np.float64]
    macro_f1: NDArray[np.float64]
    weighted_f1: NDArray[np.float64]
    mcc: NDArray[np.float64]


def draw_scores(labels: Positions, guesses: Sequence[Positions], num_labels: int, num_draws: int = NUM_DRAWS) -> list[Draws]:
    """For each student's guesses; a draw takes the same rows for all of them, so that its scores may be subtracted."""
    cells, counts = np.unique(np.stack([np.asarray(labels), *map(np.asarray, guesses)]), axis=1, return_counts=True)
    drawn = np.empty((cells.shape[1], num_draws))
    generator = np.random.default_rng(_SEED)
    for label in np.unique(cells[0]):
        inside = np.flatnonzero(cells[0] == label)
        total = counts[inside].sum()
        drawn[inside] = generator.multinomial(total, counts[inside] / total, size=num_draws).T
    return [_scores(cells[0], predicted, drawn, num_labels) for predicted in cells[1:]]


def intervals(labels: Positions, guesses: Positions, num_labels: int) -> Intervals:
    (draws,) = draw_scores(labels, [guesses], num_labels)
    return Intervals(*(interval(scores) for scores in draws))


def interval(draws: NDArray[np.float64]) -> Interval:
    """The middle 95 % of the draws."""
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def sign_p_value(draws: NDArray[np.float64]) -> float:
    """Of differences: how often they point the rarer way, doubled. Never zero, as a further draw might have."""
    rarer = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))
    return min(1.0, 2 * float(rarer + 1) / (len(draws) + 1))


def mcnemar(fixed: int, broken: int) -> float:
    """Exact p-value of so uneven a split, if rows that two students treat differently favoured neither."""
    return float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0


def _scores(labels: NDArray[np.int64], guesses: NDArray[np.int64], drawn: NDArray[np.float64], num_labels: int) -> Draws:
    hits = _sum_by(labels, drawn * (labels == guesses)[:, None], num_labels)
    predicted = _sum_by(guesses, drawn, num_labels)
    support = _sum_by(labels, drawn, num_labels)
    num_rows = support.sum(axis=0)
    both = predicted + support
    f1 = np.divide(2 * hits, both, out=np.zeros_like(both), where=both > 0)
    covariance = hits.sum(axis=0) * num_rows - (predicted * support).sum(axis=0)
    spread = np.sqrt((num_rows**2 - (predicted**2).sum(axis=0)) * (num_rows**2 - (support**2).sum(axis=0)))
    return Draws(
        accuracy=hits.sum(axis=0) / num_rows,
        macro_f1=f1.mean(axis=0),
        weighted_f1=(f1 * support).sum(axis=0) / num_rows,
        mcc=np.divide(covariance, spread, out=np.zeros_like(spread), where=spread > 0),
    )


def _sum_by(positions: NDArray[np.int64], drawn: NDArray[np.float64], num_labels: int) -> NDArray[np.float64]:
    """Cells of one label together: a row for each label, a column for each draw."""
    cells = np.arange(len(positions))
    return csr_array((np.ones(len(positions)), (positions, cells)), shape=(num_labels, len(positions))) @ drawn
