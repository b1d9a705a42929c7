"""From predictions to scores, over all labels of the task, whether rows have them or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from engine.records import ClassScore, Confusion, Scores
from student.inference import LogProbabilities, cross_entropy

_NO_ROWS: Any = 0
"""What 0/0 counts as. scikit-learn's own annotation knows its words for it only."""


@dataclass(frozen=True, slots=True)
class ScoreCard:
    """One student on one set of rows."""

    scores: Scores
    classes: tuple[ClassScore, ...]
    """In the order of the task's labels; a label without rows scores 0."""
    confusions: tuple[Confusion, ...]
    """Most frequent first, without the diagonal."""
    loss: float
    """Mean cross-entropy."""


def score(predicted: LogProbabilities, labels: Sequence[int], names: Sequence[str]) -> ScoreCard:
    """`labels` are the true ones, as positions in `names`."""
    everything = range(len(names))
    guesses = predicted.argmax(axis=1)
    # Typed as a tuple of floats, which it is for an average only.
    columns: Any = precision_recall_fscore_support(labels, guesses, labels=everything, average=None, zero_division=_NO_ROWS)
    precision, recall, f1, support = columns
    scores = Scores(
        accuracy=float((guesses == np.asarray(labels)).mean()),
        macro_f1=float(np.mean(f1)),
        weighted_f1=float(f1_score(labels, guesses, labels=everything, average="weighted", zero_division=_NO_ROWS)),
        num_rows=len(labels),
    )
    classes = tuple(
        ClassScore(name, float(precision[index]), float(recall[index]), float(f1[index]), int(support[index]))
        for index, name in enumerate(names)
    )
    counts = confusion_matrix(labels, guesses, labels=everything)
    return ScoreCard(scores, classes, _confusions(counts, names), cross_entropy(predicted, labels))


def _confusions(counts: NDArray[np.int64], names: Sequence[str]) -> tuple[Confusion, ...]:
    pairs: list[tuple[int, int]] = np.argwhere(counts).tolist()
    found = [Confusion(names[label], names[guess], int(counts[label, guess])) for label, guess in pairs if label != guess]
    return tuple(sorted(found, key=lambda confusion: -confusion.count))
