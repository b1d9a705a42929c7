from pathlib import Path

import pytest

from engine.cost.cost import Shift
from engine.runs.round_times import RoundTimes, read_round_times, round_times
from tests.engine.html_report.builders import make_full_run


def test_calls_in_flight_together_count_once(tmp_path: Path) -> None:
    # Four calls a round, begun a second apart, of four seconds each; rounds begin thirty seconds apart.
    found = read_round_times(make_full_run(tmp_path, rounds=3))
    assert [times.round for times in found] == [1, 2, 3]
    assert [times.busy_s for times in found] == pytest.approx([7.0] * 3)
    assert [times.reserved_s for times in found] == pytest.approx([30.0, 30.0, 7.0])


def test_time_in_which_nobody_worked_is_not_reserved() -> None:
    rounds = [(1, 100.0, 110.0, 8.0), (2, 500.0, 510.0, 10.0)]
    shifts = [Shift(90.0, wall_s=60.0), Shift(480.0, wall_s=40.0)]
    assert list(round_times(rounds, shifts)) == [RoundTimes(1, 8.0, 70.0), RoundTimes(2, 10.0, 10.0)]
