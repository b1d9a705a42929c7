"""How much of a score is luck where a text may have several things, spans or labels: the texts are drawn again many times, for one student
or for two at once.

As in `student.resampling`, but texts are drawn within those that have the same types of entities, or the same labels, so that each keeps
its texts. What follows from a text is how many entities of each type it has, how many were named and how many found, so texts alike in
these are one cell, which is drawn more often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.records import Span
from student.resampling import NUM_DRAWS

_SEED = 1


class Named(NamedTuple):
    """What one student said: a row for each text, a column for each type or label, the first a single one."""

    are_right: NDArray[np.int64]
    """1 for a text of which all is right."""
    named: NDArray[np.int64]
    found: NDArray[np.int64]
    """Named, and there."""


class SpanDraws(NamedTuple):
    """A score of one student in each draw."""

    accuracy: NDArray[np.float64]
    macro_f1: NDArray[np.float64]
    weighted_f1: NDArray[np.float64]
    micro_f1: NDArray[np.float64]


def draw_span_scores(
    truth: Sequence[Sequence[Span]], guesses: Sequence[Sequence[Sequence[Span]]], types: Sequence[str], num_draws: int = NUM_DRAWS
) -> list[SpanDraws]:
    """For each student's guesses; a draw takes the same texts for all of them, so that its scores may be subtracted."""
    students: list[Named] = []
    for own in guesses:
        found = [[span for span in spans if span in real] for spans, real in zip(own, truth, strict=True)]
        is_hit = np.array([[tuple(spans) == tuple(real)] for spans, real in zip(own, truth, strict=True)], np.int64)
        students.append(Named(is_hit, _counts(own, types), _counts(found, types)))
    return draw_counted(_counts(truth, types), students, num_draws)


def draw_counted(there: NDArray[np.int64], students: Sequence[Named], num_draws: int = NUM_DRAWS) -> list[SpanDraws]:
    """`there`: how much of each type or label each text really has; draws as above."""
    parts = [there, *(part for student in students for part in student)]
    cells, frequency = np.unique(np.concatenate(parts, axis=1), axis=0, return_counts=True)
    support, *others = np.split(cells, np.cumsum([part.shape[1] for part in parts])[:-1], axis=1)
    drawn = _draw(support > 0, frequency, num_draws)
    sums = [part.T @ drawn for part in others]
    return [_scores(support.T @ drawn, *student, len(there)) for student in zip(sums[::3], sums[1::3], sums[2::3], strict=True)]


def _counts(spans: Sequence[Sequence[Span]], types: Sequence[str]) -> NDArray[np.int64]:
    """Of each type in each text."""
    counters = [Counter(span.type for span in row) for row in spans]
    return np.array([[counter[type] for type in types] for counter in counters], np.int64)


def _draw(types: NDArray[np.bool_], frequency: NDArray[np.int64], num_draws: int) -> NDArray[np.float64]:
    """How often each cell comes in each draw; `types` are those that its texts have."""
    drawn = np.empty((len(types), num_draws))
    generator = np.random.default_rng(_SEED)
    stratum = np.unique(types, axis=0, return_inverse=True)[1].ravel()
    for number in range(int(stratum.max()) + 1):
        inside = np.flatnonzero(stratum == number)
        total = frequency[inside].sum()
        drawn[inside] = generator.multinomial(total, frequency[inside] / total, size=num_draws).T
    return drawn


def _scores(
    support: NDArray[np.float64], hits: NDArray[np.float64], guessed: NDArray[np.float64], found: NDArray[np.float64], num_rows: int
) -> SpanDraws:
    f1 = _f1(found, guessed, support)
    total = support.sum(axis=0)
    return SpanDraws(
        accuracy=hits.sum(axis=0) / num_rows,
        macro_f1=f1.mean(axis=0),
        weighted_f1=(f1 * support).sum(axis=0) / np.maximum(total, 1),
        micro_f1=_f1(found.sum(axis=0), guessed.sum(axis=0), total),
    )


def _f1(found: NDArray[np.float64], guessed: NDArray[np.float64], support: NDArray[np.float64]) -> NDArray[np.float64]:
    both = guessed + support
    return np.divide(2 * found, both, out=np.zeros_like(both), where=both > 0)
