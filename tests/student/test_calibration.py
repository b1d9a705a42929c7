from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from student.calibration import COLDEST, best_temperature, calibrate, calibration_error, scale
from student.inference import LogProbabilities


def make_student(temperature: float, num_rows: int = 4000, num_labels: int = 5) -> tuple[LogProbabilities, list[int]]:
    """One whose logits are `temperature` times what they should be: its labels are drawn from the right probabilities."""
    generator = np.random.default_rng(7)
    logits = generator.normal(scale=2.0, size=(num_rows, num_labels))
    probabilities = np.exp(log_softmax(logits, axis=1))
    labels = [int(generator.choice(num_labels, p=row)) for row in probabilities]
    return log_softmax(logits * temperature, axis=1), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature: float) -> None:
    predicted, labels = make_student(temperature)
    assert best_temperature(predicted, labels) == pytest.approx(temperature, rel=0.08)


def test_scaling_mends_an_overconfident_student_and_changes_no_prediction() -> None:
    predicted, labels = make_student(3.0)
    found = calibrate(predicted, labels)
    assert found.ece > 0.1
    assert found.ece_scaled < 0.03
    assert found.confidence > np.mean(predicted.argmax(axis=1) == labels) + 0.1
    assert (scale(predicted, found.temperature).argmax(axis=1) == predicted.argmax(axis=1)).all()


def test_known_errors() -> None:
    """Sure by 0.9 and right in half the rows; sure by 0.6, in another bin, and always right."""
    predicted = np.log([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert calibration_error(predicted, [0, 1, 0, 0]) == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)
    assert calibration_error(np.log([[0.75, 0.25]] * 4), [0, 0, 0, 1]) == pytest.approx(0)


def test_a_handful_of_rows_without_a_mistake_gives_no_absurd_temperature() -> None:
    found = calibrate(np.log([[0.9, 0.1], [0.2, 0.8]]), [0, 1])
    assert COLDEST <= found.temperature < 0.2
    assert found.ece == pytest.approx(0.15)


def test_one_row_and_one_label() -> None:
    assert calibrate(np.zeros((1, 1)), [0]).ece == 0
