import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.status import BudgetUse, Range
from engine.stopping.forecast import forecast_round, forecast_run, within_budget


def test_what_is_left_of_a_round_spans_its_speeds_and_the_error_of_their_counts() -> None:
    left = forecast_round(100, [(400, 800, 80.0)])
    assert left is not None
    assert (left.low_s, left.high_s) == (pytest.approx(10 / 1.1), pytest.approx(10 / 0.9))
    slower_by_now = forecast_round(100, [(400, 800, 80.0), (100, 200, 40.0)])
    assert slower_by_now is not None
    assert (slower_by_now.low_s, slower_by_now.high_s) == (pytest.approx(10 / 1.1), pytest.approx(20 / 0.8))


@pytest.mark.parametrize("speeds", [[], [(4, 8, 1.0)], [(40, 0, 1.0)], [(40, 80, 0.0)]])
def test_too_little_work_tells_no_speed(speeds: list[tuple[int, int, float]]) -> None:
    assert forecast_round(100, speeds) is None


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.floats(0, 1000)), max_size=4), st.integers(0, 10_000))
def test_a_range_is_one(speeds: list[tuple[int, int, float]], rows: int) -> None:
    left = forecast_round(rows, speeds)
    assert left is None or 0 <= left.low_s <= left.high_s


def test_the_end_of_a_run_lies_between_the_fewest_short_and_the_most_long_rounds() -> None:
    assert forecast_run(Range(5, 6), [100, 10, 20, 12], fewest=2, most=7) == Range(5 + 2 * 10, 6 + 7 * 20)
    assert forecast_run(Range(5, 6), [], fewest=0, most=0) == Range(5, 6)
    assert forecast_run(Range(5, 6), [], fewest=0, most=1) is None


def test_a_budget_ends_a_run_earlier_and_never_later() -> None:
    used = BudgetUse("teacher tokens", spent=900, bound=1000)
    assert within_budget(Range(50, 500), [used], worked_s=900) == Range(50, 125)
    assert within_budget(Range(1, 2), [used], worked_s=900) == Range(1, 2)
    assert within_budget(Range(1, 2), [BudgetUse("seconds", 0, 10)], worked_s=0) == Range(1, 2)
    assert within_budget(Range(1, 2), [BudgetUse("seconds", 11, 10)], worked_s=11) == Range(0, 0)
