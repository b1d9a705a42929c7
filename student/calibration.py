"""Whether confidence can be believed: how far it is from accuracy, and by which temperature it comes nearest (Guo et al., ICML 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from engine.reports import Calibration
from student.inference import LogProbabilities, cross_entropy

NUM_BINS = 15
"""Of equal width, as in the paper."""
COLDEST, HOTTEST = 0.1, 10.0
"""Bounds of the temperature: of a student that makes no mistake on a handful of rows the best one would be zero."""


def calibrate(predicted: LogProbabilities, labels: Sequence[int]) -> Calibration:
    """`labels` as positions in the columns. The temperature is fitted on these very rows: one number, which hundreds of rows settle."""
    temperature = best_temperature(predicted, labels)
    return Calibration(
        confidence=float(np.exp(predicted.max(axis=1)).mean()),
        ece=calibration_error(predicted, labels),
        temperature=temperature,
        ece_scaled=calibration_error(scale(predicted, temperature), labels),
    )


def best_temperature(predicted: LogProbabilities, labels: Sequence[int] | NDArray[np.int64]) -> float:
    """The one with the lowest cross-entropy."""
    return best_by(lambda temperature: cross_entropy(scale(predicted, temperature), labels))


def best_by(loss: Callable[[float], float]) -> float:
    """The temperature with the lowest loss, which has one minimum in it."""

    def of_log(log_temperature: float) -> float:
        return loss(math.exp(log_temperature))

    return math.exp(minimize_scalar(of_log, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded").x)


def scale(predicted: LogProbabilities, temperature: float) -> LogProbabilities:
    """What the student would have said at this temperature; log-probabilities serve as logits."""
    return log_softmax(predicted / temperature, axis=1)


def calibration_error(predicted: LogProbabilities, labels: Sequence[int]) -> float:
    return binned_error(np.exp(predicted.max(axis=1)), predicted.argmax(axis=1) == np.asarray(labels))


def binned_error(confidences: NDArray[np.float64], hits: NDArray[np.bool_]) -> float:
    """By how much the two differ; of one answer at least."""
    surplus = confidences - hits
    bins = np.minimum((confidences * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    return float(np.abs(np.bincount(bins, weights=surplus, minlength=NUM_BINS)).sum() / len(confidences))
