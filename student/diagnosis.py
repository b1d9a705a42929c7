"""Which rows show the teacher what the student can and cannot do. Pure: predictions in, blocks of rows out.

The student may have seen a row before it predicted it (mining `train`), or never (`out_of_fold`, `held_out`); that is the caller's to say.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np

from engine.records import Example, MinedRow
from student.inference import LogProbabilities

MAX_FOLDS = 4


@dataclass(frozen=True, slots=True)
class Mined:
    """A row with what a student said of it, and the round that the row came in."""

    round: int
    row: MinedRow

    @property
    def is_right(self) -> bool:
        return self.row.label == self.row.predicted


@dataclass(frozen=True, slots=True)
class Blocks:
    """As in WeaknessReport."""

    right: tuple[MinedRow, ...]
    wrong: tuple[MinedRow, ...]
    hard: tuple[MinedRow, ...]


def as_predictions(rows: Sequence[Example], predicted: LogProbabilities, names: Sequence[str], round: int) -> list[Mined]:
    confidences = np.exp(predicted.max(axis=1)) if len(rows) else ()
    guesses = predicted.argmax(axis=1) if len(rows) else ()
    return [
        Mined(round, MinedRow(row.text, row.label, names[guess], float(confidence)))
        for row, guess, confidence in zip(rows, guesses, confidences, strict=True)
    ]


def mine(predictions: Sequence[Mined], right: int, wrong: int, hard: int, seed: int, round: int) -> Blocks:
    """At most so many rows of each kind; what there is not is not made up.

    Rows come from the newest rounds that together hold enough of a kind: an old prediction is that of an older, weaker student. Among the
    wrong ones `hard` takes the most confident; `wrong` and `right` are drawn, evenly over the true classes as far as they have rows.
    """
    generator = random.Random(f"{seed} {round} blocks")
    mistakes = _newest(predictions, lambda prediction: not prediction.is_right, hard + wrong)
    mistakes.sort(key=lambda row: -row.confidence)
    successes = _newest(predictions, lambda prediction: prediction.is_right, right)
    return Blocks(
        right=_draw_evenly(successes, right, generator),
        wrong=_draw_evenly(mistakes[hard:], wrong, generator),
        hard=tuple(mistakes[:hard]),
    )


def assign_folds(labels: Sequence[str], seed: int) -> list[int | None]:
    """A fold for each row, so that a student of the other folds has seen its class but not the row; None where its class has one row only.

    There are as many folds as the largest class has rows, MAX_FOLDS at most; a class is spread over them evenly.
    """
    counts = Counter(labels)
    num_folds = min(MAX_FOLDS, max(counts.values()))
    order = list(range(len(labels)))
    random.Random(f"{seed} folds").shuffle(order)
    folds: list[int | None] = [None] * len(labels)
    # Classes start at different folds, so that small ones do not all lie in the first.
    next_fold = {label: index for index, label in enumerate(sorted(counts))}
    for row in order:
        if counts[labels[row]] > 1:
            folds[row] = next_fold[labels[row]] % num_folds
            next_fold[labels[row]] += 1
    return folds


def _newest(predictions: Sequence[Mined], is_wanted: Callable[[Mined], bool], count: int) -> list[MinedRow]:
    """Wanted rows of the newest rounds: as few whole rounds as give `count`."""
    by_round: defaultdict[int, list[MinedRow]] = defaultdict(list)
    for prediction in filter(is_wanted, predictions):
        by_round[prediction.round].append(prediction.row)
    rows: list[MinedRow] = []
    for round in sorted(by_round, reverse=True):
        if len(rows) >= count:
            break
        rows += by_round[round]
    return rows


def _draw_evenly(rows: Sequence[MinedRow], count: int, generator: random.Random) -> tuple[MinedRow, ...]:
    """One row of each class in turn, until there are `count`."""
    by_label: defaultdict[str, list[MinedRow]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    labels = sorted(by_label)
    generator.shuffle(labels)
    for label in labels:
        generator.shuffle(by_label[label])
    turns = chain.from_iterable(zip_longest(*(by_label[label] for label in labels)))
    return tuple([row for row in turns if row is not None][:count])
