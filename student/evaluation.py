"""From predictions to scores, over all labels of the task, whether rows have them or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, matthews_corrcoef, precision_recall_fscore_support

from engine.reports import Calibration, ClassScore, Confusion, Intervals, Scores
from student.calibration import calibrate
from student.inference import LogProbabilities, cross_entropy
from student.resampling import Positions, intervals

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
    intervals: Intervals
    calibration: Calibration | None
    """None where a student that marks spans named none."""


def score(predicted: LogProbabilities, labels: Sequence[int], names: Sequence[str]) -> ScoreCard:
    """`labels` are the true ones, as positions in `names`; of one row at least."""
    guesses = predicted.argmax(axis=1)
    return ScoreCard(
        overall_scores(labels, guesses, len(names)),
        class_scores(labels, guesses, names),
        _confusions(confusion_matrix(labels, guesses, labels=range(len(names))), names),
        cross_entropy(predicted, labels),
        intervals(labels, guesses, len(names)),
        calibrate(predicted, labels),
    )


def overall_scores(labels: Positions, guesses: Positions, num_labels: int) -> Scores:
    def f1(average: Literal["macro", "weighted"]) -> float:
        return float(f1_score(labels, guesses, labels=range(num_labels), average=average, zero_division=_NO_ROWS))

    return Scores(
        accuracy=float((np.asarray(guesses) == np.asarray(labels)).mean()),
        macro_f1=f1("macro"),
        weighted_f1=f1("weighted"),
        num_rows=len(labels),
        # Of rows that are and are called all one label it is 0/0, which scikit-learn warns of.
        mcc=0.0 if len({*labels, *guesses}) == 1 else float(matthews_corrcoef(labels, guesses)),
    )


def class_scores(labels: Positions, guesses: Positions, names: Sequence[str]) -> tuple[ClassScore, ...]:
    # Typed as a tuple of floats, which it is for an average only.
    columns: Any = precision_recall_fscore_support(labels, guesses, labels=range(len(names)), average=None, zero_division=_NO_ROWS)
    precision, recall, f1, support = columns
    return tuple(
        ClassScore(name, float(precision[index]), float(recall[index]), float(f1[index]), int(support[index]))
        for index, name in enumerate(names)
    )


def _confusions(counts: NDArray[np.int64], names: Sequence[str]) -> tuple[Confusion, ...]:
    pairs: list[tuple[int, int]] = np.argwhere(counts).tolist()
    found = [Confusion(names[label], names[guess], int(counts[label, guess])) for label, guess in pairs if label != guess]
    return tuple(sorted(found, key=lambda confusion: -confusion.count))
