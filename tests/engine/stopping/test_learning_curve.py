from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.stopping.learning_curve import FEWEST, forecast_score

ROWS = [20, 100, 200, 300, 400, 500]


def curve(rows: float, top: float = 0.95, drop: float = 2.0, speed: float = 0.5) -> float:
    return top - drop * rows**-speed


def test_a_curve_without_noise_is_followed() -> None:
    told = forecast_score(ROWS, [curve(rows) for rows in ROWS], [None] * len(ROWS), 2000)
    assert told is not None
    assert told.rows == 2000
    assert told.macro_f1 == pytest.approx(curve(2000), abs=0.005)
    assert told.low <= told.macro_f1 <= told.high


def test_the_range_holds_where_scores_are_as_noisy_as_they_say() -> None:
    generator, error, inside = np.random.default_rng(3), 0.01, 0
    for _ in range(60):
        scores = [curve(rows) + error * generator.normal() for rows in ROWS]
        told = forecast_score(ROWS, scores, [(score - 1.96 * error, score + 1.96 * error) for score in scores], 1000)
        assert told is not None
        inside += told.low <= curve(1000) <= told.high
    assert inside >= 45


def test_a_student_that_gets_worse_is_not_said_to_fall_further() -> None:
    told = forecast_score(ROWS, [0.9, 0.89, 0.88, 0.87, 0.86, 0.85], [None] * 6, 5000)
    assert told is not None
    assert 0.85 <= told.macro_f1 <= 0.9


@pytest.mark.parametrize("rows", [ROWS[: FEWEST - 1], [20, 20, 20, 20], []])
def test_too_few_scores_tell_nothing(rows: list[int]) -> None:
    assert forecast_score(rows, [0.5] * len(rows), [None] * len(rows), 1000) is None


@given(st.lists(st.floats(0, 1), min_size=4, max_size=12), st.integers(0, 10_000))
def test_a_range_is_one_of_scores(scores: list[float], more: int) -> None:
    rows = [10 * number for number in range(len(scores))]
    told = forecast_score(rows, scores, [(score, score) for score in scores], rows[-1] + more)
    assert told is not None
    assert 0 <= told.low <= told.macro_f1 <= told.high <= 1
