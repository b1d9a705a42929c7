from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from student.evaluation import overall_scores
from student.resampling import draw_scores, interval, intervals, mcnemar, sign_p_value

NUM_LABELS = 4
ROWS = st.lists(st.tuples(*[st.integers(0, NUM_LABELS - 1)] * 3), min_size=1, max_size=40)


@settings(deadline=None, max_examples=50)
@given(rows=ROWS)
def test_a_draw_is_scored_as_rows_are(rows: list[tuple[int, int, int]]) -> None:
    """Where every row of a label is predicted alike, each draw is the rows themselves."""
    first = {label: guess for label, guess, _ in rows}
    labels = [label for label, _, _ in rows]
    guesses = [first[label] for label in labels]
    (draws,) = draw_scores(labels, [guesses], NUM_LABELS, num_draws=3)
    scores = overall_scores(labels, guesses, NUM_LABELS)
    for name in ("accuracy", "macro_f1", "weighted_f1", "mcc"):
        assert getattr(draws, name).tolist() == pytest.approx([getattr(scores, name)] * 3)


@settings(deadline=None, max_examples=50)
@given(rows=ROWS)
def test_intervals_hold_their_order_and_come_the_same_again(rows: list[tuple[int, int, int]]) -> None:
    labels, guesses, _ = zip(*rows, strict=True)
    found = intervals(labels, guesses, NUM_LABELS)
    assert 0 <= found.macro_f1.low <= found.macro_f1.high <= 1
    assert 0 <= found.accuracy.low <= found.accuracy.high <= 1
    assert found == intervals(labels, guesses, NUM_LABELS)


def test_intervals_of_accuracy_are_those_of_a_share() -> None:
    """One label, 80 of 100 right: a share's interval of 95 % is 0.8 plus and minus 1.96 * 0.04."""
    found = intervals([0] * 100, [0] * 80 + [1] * 20, 2).accuracy
    assert (found.low, found.high) == (pytest.approx(0.72, abs=0.015), pytest.approx(0.88, abs=0.015))


def test_a_small_label_is_in_every_draw() -> None:
    """Drawn without regard to labels, the one row of label 1 would be missing from a third of the draws, and macro F1 halved there."""
    found = intervals([0] * 50 + [1], [0] * 50 + [1], 2)
    assert found.macro_f1.low == 1


def test_two_students_are_drawn_together() -> None:
    labels = [number % 3 for number in range(60)]
    guesses = [(label + (number % 7 == 0)) % 3 for number, label in enumerate(labels)]
    first, second = draw_scores(labels, [guesses, guesses], 3)
    assert (first.macro_f1 == second.macro_f1).all()
    assert interval(first.macro_f1).low < interval(first.macro_f1).high


@pytest.mark.parametrize(
    ("fixed", "broken", "p_value"), [(0, 0, 1.0), (5, 0, 2 / 32), (0, 5, 2 / 32), (5, 5, 1.0), (8, 2, 2 * (1 + 10 + 45) / 1024)]
)
def test_mcnemar_is_a_coin_thrown_for_each_row_that_changed(fixed: int, broken: int, p_value: float) -> None:
    assert mcnemar(fixed, broken) == pytest.approx(p_value)


def test_a_sign_that_never_turns_is_rare_but_not_impossible() -> None:
    assert sign_p_value(np.full(999, 0.1)) == pytest.approx(2 / 1000)
    assert sign_p_value(np.zeros(999)) == 1
    assert sign_p_value(np.array([-1.0, 1.0] * 500)) == 1
