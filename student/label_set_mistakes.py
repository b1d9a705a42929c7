"""Which labels a student misses and makes up where a text may have several, and which of them together. Pure: what is there and what was
said in, mistakes out.

What is there, and what was said: a row for each text, a column for each label.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from engine.reports import ClassScore, Confusion, MinedRow, Weakness
from student.resampling import CONFIDENCE
from student.weaknesses import NUM_EXAMPLES


def find_set_confusions(
    there: NDArray[np.bool_], said: NDArray[np.bool_], names: Sequence[str], mined: Iterable[MinedRow] = ()
) -> tuple[Confusion, ...]:
    """In how many rows the one label was missed and the other made up, most frequent first; with mined rows of which the same was said."""
    missed, made_up = (there & ~said).astype(np.int64), (said & ~there).astype(np.int64)
    counts = missed.T @ made_up
    pairs: list[tuple[int, int]] = np.argwhere(counts).tolist()
    examples = _by_pair(mined)
    found = [
        Confusion(names[label], names[guess], int(counts[label, guess]), tuple(examples[names[label], names[guess]][:NUM_EXAMPLES]))
        for label, guess in pairs
    ]
    return tuple(sorted(found, key=lambda confusion: -confusion.count))


def find_set_weaknesses(
    there: NDArray[np.bool_],
    said: NDArray[np.bool_],
    classes: Sequence[ClassScore],
    confusions: Sequence[Confusion],
    mined: Iterable[MinedRow] = (),
) -> tuple[Weakness, ...]:
    """Of each label with mistakes one, the surest first. What was made up counts for itself only in rows in which nothing was missed: else
    it is what a missed label was taken for.
    """
    missed, made_up = there & ~said, said & ~there
    alone = made_up & ~missed.any(axis=1, keepdims=True)
    by_label: defaultdict[str, list[Confusion]] = defaultdict(list)
    for confusion in confusions:
        by_label[confusion.label].append(confusion)
    examples = _by_label(mined)
    weaknesses = [
        _weakness(score.label, num_missed + num_alone, score.support + num_alone, by_label[score.label], examples[score.label])
        for score, num_missed, num_alone in zip(classes, missed.sum(axis=0).tolist(), alone.sum(axis=0).tolist(), strict=True)
        if num_missed + num_alone
    ]
    return tuple(sorted(weaknesses, key=lambda weakness: (-weakness.at_least, -weakness.missed, weakness.name)))


def _weakness(label: str, missed: int, num_rows: int, confusions: Sequence[Confusion], examples: Sequence[MinedRow]) -> Weakness:
    """Of a label's confusions, most frequent first."""
    is_pair = bool(confusions) and 2 * confusions[0].count > missed
    return Weakness(
        name=f"pair:{label}>{confusions[0].predicted}" if is_pair else f"class:{label}",
        labels=(label, confusions[0].predicted) if is_pair else (label,),
        missed=missed,
        num_rows=num_rows,
        at_least=float(binomtest(missed, num_rows).proportion_ci(CONFIDENCE, method="wilson").low),
        examples=confusions[0].examples if is_pair else tuple(examples[:NUM_EXAMPLES]),
    )


def _by_pair(mined: Iterable[MinedRow]) -> defaultdict[tuple[str, str], list[MinedRow]]:
    """The rows with each, most confident first."""
    rows: defaultdict[tuple[str, str], list[MinedRow]] = defaultdict(list)
    for row in sorted(mined, key=lambda row: -row.confidence):
        for pair in product(*_missed_and_made_up(row)):
            rows[pair].append(row)
    return rows


def _by_label(mined: Iterable[MinedRow]) -> defaultdict[str, list[MinedRow]]:
    """Rows that are wrong about each label, most confident first."""
    rows: defaultdict[str, list[MinedRow]] = defaultdict(list)
    for row in sorted(mined, key=lambda row: -row.confidence):
        missed, made_up = _missed_and_made_up(row)
        for label in missed or made_up:
            rows[label].append(row)
    return rows


def _missed_and_made_up(row: MinedRow) -> tuple[list[str], list[str]]:
    missed = [label for label in row.labels if label not in row.predicted_labels]
    return missed, [label for label in row.predicted_labels if label not in row.labels]
