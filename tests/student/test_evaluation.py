from __future__ import annotations

import math

import numpy as np
import pytest

from engine.reports import ClassScore, Confusion
from student.evaluation import score


def test_known_answers() -> None:
    """Three rows of a (two found, one taken for b), one of b (taken for a), none of c."""
    predicted = np.log([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.8, 0.1, 0.1]])
    card = score(predicted, [0, 0, 0, 1], ["a", "b", "c"])
    third = pytest.approx(2 / 3)
    assert card.classes == (
        ClassScore("a", third, third, third, 3),  # pyright: ignore[reportArgumentType]
        ClassScore("b", 0.0, 0.0, 0.0, 1),
        ClassScore("c", 0.0, 0.0, 0.0, 0),
    )
    assert card.scores.accuracy == 0.5
    assert card.scores.macro_f1 == pytest.approx(2 / 9)
    assert card.scores.weighted_f1 == pytest.approx(0.5)
    assert card.scores.num_rows == 4
    assert card.loss == pytest.approx(-(2 * math.log(0.5) + math.log(0.25) + math.log(0.1)) / 4)


def test_a_label_that_is_only_predicted_counts() -> None:
    card = score(np.log([[0.1, 0.9], [0.9, 0.1]]), [0, 0], ["a", "b"])
    assert card.scores.macro_f1 == pytest.approx(1 / 3)
    assert card.classes[1] == ClassScore("b", 0.0, 0.0, 0.0, 0)


def test_confusions_come_most_frequent_first() -> None:
    guesses = [1, 1, 1, 2, 0, 0, 2]
    predicted = np.log(np.eye(3)[guesses] * 0.8 + 0.1)
    card = score(predicted, [0, 0, 0, 0, 0, 2, 2], ["a", "b", "c"])
    assert card.confusions == (Confusion("a", "b", 3), Confusion("a", "c", 1), Confusion("c", "a", 1))


def test_all_right() -> None:
    card = score(np.log([[0.9, 0.1], [0.1, 0.9]]), [0, 1], ["a", "b"])
    assert (card.scores.accuracy, card.scores.macro_f1, card.scores.weighted_f1) == (1, 1, 1)
    assert card.confusions == ()
