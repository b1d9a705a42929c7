"""From the labels that a student gives texts, any number each, to scores, over all labels of the task, whether texts have them or not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from engine.records import Example
from engine.reports import Calibration, ClassScore, Interval, Intervals, Scores
from student.calibration import best_by, binned_error
from student.evaluation import ScoreCard
from student.inference import LogProbabilities
from student.label_set_mistakes import find_set_confusions
from student.predictions import SetPredictions
from student.resampling import interval
from student.span_resampling import Named, draw_counted

_CLOSEST = 1e-12
"""How near to 1 a probability is taken for."""


def truth_matrix(rows: Sequence[Example], names: Sequence[str]) -> NDArray[np.bool_]:
    """A row for each text, a column for each label."""
    return np.array([[name in row.labels for name in names] for row in rows], np.bool_).reshape(len(rows), len(names))


def evaluate_sets(predictions: SetPredictions, there: NDArray[np.bool_]) -> ScoreCard:
    """`there`: the labels that each text really has; of one text at least."""
    said = predictions.said
    classes = set_class_scores(there, said, predictions.labels)
    return ScoreCard(
        scores=set_scores(there, said, classes),
        classes=classes,
        confusions=find_set_confusions(there, said, predictions.labels),
        loss=set_loss(predictions.log_probabilities, there),
        intervals=set_intervals(there, said),
        calibration=_calibrate(predictions, there),
    )


def set_scores(there: NDArray[np.bool_], said: NDArray[np.bool_], classes: Sequence[ClassScore]) -> Scores:
    """`classes` are the same by label."""
    total = there.sum()
    both = total + said.sum()
    return Scores(
        accuracy=float((there == said).all(axis=1).mean()),
        macro_f1=sum(score.f1 for score in classes) / len(classes),
        weighted_f1=float(sum(score.f1 * score.support for score in classes) / total) if total else 0.0,
        num_rows=len(there),
        micro_f1=float(2 * (there & said).sum() / both) if both else 0.0,
        has_sets=True,
    )


def set_class_scores(there: NDArray[np.bool_], said: NDArray[np.bool_], names: Sequence[str]) -> tuple[ClassScore, ...]:
    """What is 0/0 counts as 0."""
    found, named, support = (part.sum(axis=0).tolist() for part in (there & said, said, there))
    return tuple(
        ClassScore(name, hits / max(guesses, 1), hits / max(rows, 1), 2 * hits / max(guesses + rows, 1), rows)
        for name, hits, guesses, rows in zip(names, found, named, support, strict=True)
    )


def set_intervals(there: NDArray[np.bool_], said: NDArray[np.bool_]) -> Intervals:
    (draws,) = draw_counted(there.astype(np.int64), [named(there, said)])
    return Intervals(
        accuracy=interval(draws.accuracy),
        macro_f1=interval(draws.macro_f1),
        weighted_f1=interval(draws.weighted_f1),
        mcc=Interval(0.0, 0.0),
        micro_f1=interval(draws.micro_f1),
    )


def named(there: NDArray[np.bool_], said: NDArray[np.bool_]) -> Named:
    are_right = (there == said).all(axis=1)[:, None]
    return Named(are_right.astype(np.int64), said.astype(np.int64), (there & said).astype(np.int64))


def set_loss(predicted: LogProbabilities, there: NDArray[np.bool_]) -> float:
    """Mean binary cross-entropy over labels and texts, in nats."""
    return _loss(_logits(predicted), there)


def _loss(logits: NDArray[np.float64], there: NDArray[np.bool_]) -> float:
    return float(-log_expit(np.where(there, logits, -logits)).mean())


def _logits(predicted: LogProbabilities) -> NDArray[np.float64]:
    return predicted - np.log1p(-np.minimum(np.exp(predicted), 1 - _CLOSEST))


def _calibrate(predictions: SetPredictions, there: NDArray[np.bool_]) -> Calibration | None:
    """Of the labels that are said. The temperature is fitted on all, as the network is trained; the thresholds move with it."""
    said = predictions.said
    if not said.any():
        return None
    logits = _logits(predictions.log_probabilities)

    def loss(temperature: float) -> float:
        return _loss(logits / temperature, there)

    temperature = best_by(loss)
    confidences, are_right = np.exp(predictions.log_probabilities[said]), there[said]
    return Calibration(
        confidence=float(confidences.mean()),
        ece=binned_error(confidences, are_right),
        temperature=temperature,
        ece_scaled=binned_error(expit(logits / temperature)[said], are_right),
        precision=float(are_right.mean()),
    )
