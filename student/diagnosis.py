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

from engine.records import Example
from engine.reports import MinedRow
from student.inference import LogProbabilities

MAX_FOLDS = 4


MAX_LEARNED_ROWS = 4096
"""That a stand-in learns at most when old predictions are renewed."""
MIN_LEARNED_ROWS = 64
"""With fewer, predictions are renewed by nobody: what so few rows teach is noise anyway."""


@dataclass(frozen=True, slots=True)
class Mined:
    """A row with what a student said of it, and the round that the row came in, or the last of those that were learned at once with it."""

    round: int
    row: MinedRow
    own: float = 0.0
    """Softmax probability of the row's own label; of spans, as the confidence of MinedRow, for the tags of the row's own; of
    several labels, as that too, for those that the row has and has not."""
    learned: int = 0
    """How many rows the student had learned. The fewer, the less its mistakes say of a later one."""

    @property
    def is_right(self) -> bool:
        return self.row.is_right


@dataclass(frozen=True, slots=True)
class Renewal:
    """Old predictions that are worth making again, and what a stand-in for the student learns to make them."""

    old: tuple[int, ...]
    """Positions among the predictions."""
    learn: tuple[Example, ...]
    """Some of the other rows, with every label that the old ones have."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """As in WeaknessReport."""

    right: tuple[MinedRow, ...]
    wrong: tuple[MinedRow, ...]
    hard: tuple[MinedRow, ...]


def as_predictions(rows: Sequence[Example], predicted: LogProbabilities, names: Sequence[str], round: int, learned: int = 0) -> list[Mined]:
    """By a student that had learned `learned` rows."""
    if not rows:
        return []
    position = {name: index for index, name in enumerate(names)}
    probabilities = np.exp(predicted)
    own = probabilities[np.arange(len(rows)), [position[row.label] for row in rows]]
    return [
        Mined(round, MinedRow(row.text, row.label, names[int(guess)], float(confidence), text_pair=row.text_pair), float(share), learned)
        for row, guess, confidence, share in zip(rows, predicted.argmax(axis=1), probabilities.max(axis=1), own, strict=True)
    ]


def stratum(row: Example | MinedRow) -> str:
    """What a row counts for where rows are drawn or spread evenly: its label; of several labels the first, of marked spans the type of the
    first, or nothing.
    """
    return row.label or (row.labels[0] if row.labels else row.spans[0].type if row.spans else "")


def plan_renewal(predictions: Sequence[Mined], budget: int, seed: int) -> Renewal | None:
    """Which predictions a stand-in should make again; None while that does not pay. `budget`: rows that it may learn.

    Cross-fitting anew in each round would multiply the training time. So one stand-in learns half of the rows (MAX_LEARNED_ROWS at most),
    and predicts the oldest of the others, of which it has seen none; and only where it knows twice as much as whoever predicted them, and a
    quarter of all rows is as old as that. With rounds of equal size that is two of the first four rounds, and ever fewer of the later.
    """
    num_learned = min(len(predictions) // 2, budget, MAX_LEARNED_ROWS)
    by_age = sorted(range(len(predictions)), key=lambda index: predictions[index].learned)
    old = [index for index in by_age[: len(predictions) - num_learned] if 2 * predictions[index].learned <= num_learned]
    if num_learned < MIN_LEARNED_ROWS or 4 * len(old) < len(predictions):
        return None
    others = sorted(set(range(len(predictions))).difference(old))
    learn = [predictions[index].row for index in sorted(random.Random(f"{seed} renewal").sample(others, num_learned))]
    known = {stratum(row) for row in learn}
    return Renewal(
        old=tuple(sorted(index for index in old if stratum(predictions[index].row) in known)),
        learn=tuple(row.example for row in learn),
    )


def mine(predictions: Sequence[Mined], right: int, wrong: int, hard: int, seed: int, round: int) -> Blocks:
    """At most so many rows of each kind; what there is not is not made up.

    Rows come from the students that had learned most, as many of these as together made enough of a kind: a mistake of an older, weaker one
    says little. Among the wrong rows `hard` takes the most confident; `wrong` and `right` are drawn, evenly over the true classes as far as
    they have rows.
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
    """Wanted rows as predicted by the newest students: of as few of these as give `count`, and of each all."""
    by_student: defaultdict[int, list[MinedRow]] = defaultdict(list)
    for prediction in filter(is_wanted, predictions):
        by_student[prediction.learned].append(prediction.row)
    rows: list[MinedRow] = []
    for learned in sorted(by_student, reverse=True):
        if len(rows) >= count:
            break
        rows += by_student[learned]
    return rows


def _draw_evenly(rows: Sequence[MinedRow], count: int, generator: random.Random) -> tuple[MinedRow, ...]:
    """One row of each class in turn, until there are `count`."""
    by_label: defaultdict[str, list[MinedRow]] = defaultdict(list)
    for row in rows:
        by_label[stratum(row)].append(row)
    labels = sorted(by_label)
    generator.shuffle(labels)
    for label in labels:
        generator.shuffle(by_label[label])
    turns = chain.from_iterable(zip_longest(*(by_label[label] for label in labels)))
    return tuple([row for row in turns if row is not None][:count])
