from __future__ import annotations

import numpy as np
import pytest

from engine.reports import WeaknessReport
from engine.stopping.gain import Gain, last_gain
from tests.engine.builders import make_report


def reports(*hits: str, rounds: tuple[int, ...] | None = None) -> list[WeaknessReport]:
    return [make_report(round, hits=told) for round, told in zip(rounds or range(len(hits)), hits, strict=True)]


def test_rows_are_paired() -> None:
    gain = last_gain(reports("0011", "0111", "1101"), 2)
    assert gain == Gain(since=0, until=2, num_rows=4, fixed=2, broken=1)
    assert Gain(0, 2, 4, 2, 1).share == 0.25


def test_a_report_on_several_rounds_covers_them_all() -> None:
    told = reports("00", "01", "11", "10", rounds=(0, 1, 4, 5))
    assert last_gain(told, 3) == Gain(1, 5, 2, fixed=1, broken=1)
    assert last_gain(told, 1) == Gain(4, 5, 2, fixed=0, broken=1)
    assert last_gain(told, 6) is None


def test_a_report_that_does_not_tell_of_each_row_tells_no_gain() -> None:
    assert last_gain(reports("", ""), 1) is None
    assert last_gain(reports("01", "011"), 1) is None


def test_where_nothing_has_changed_few_rows_show_less_than_many() -> None:
    assert 0 < Gain(0, 1, 1000, 0, 0).at_most(0.95) < 0.003 < 0.02 < Gain(0, 1, 50, 0, 0).at_most(0.95)


@pytest.mark.parametrize(("num_rows", "fixed", "broken"), [(100, 0.02, 0.02), (240, 0.05, 0.03), (600, 0.01, 0.03), (60, 0.1, 0.1)])
def test_the_true_gain_is_below_the_upper_end_as_often_as_is_said(num_rows: int, fixed: float, broken: float) -> None:
    draws = np.random.default_rng(1).multinomial(num_rows, [fixed, broken, 1 - fixed - broken], size=4000)
    below = [fixed - broken <= Gain(0, 1, num_rows, int(mended), int(torn)).at_most(0.95) for mended, torn, _ in draws]
    assert 0.93 <= np.mean(below) <= 0.99
