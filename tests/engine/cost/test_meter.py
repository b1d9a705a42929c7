from pathlib import Path
from typing import cast

import pytest

from engine.config import RunConfig, change_config
from engine.cost import prices
from engine.cost.cost import Shift, Shifts
from engine.cost.meter import CostMeter, count_gpus, metered, read_shifts
from engine.rundir import RunDir, write_json
from engine.teacher.lane import Lane
from tests.engine.run_folders import make_config


class Joules:
    source = "rapl"

    def __init__(self) -> None:
        self.read = 0

    def joules(self) -> float:
        self.read += 1
        return 10.0 * self.read


class BusyLane:
    def __init__(self, busy_s: float) -> None:
        self.busy_s = busy_s


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def with_settings(**settings: object) -> RunConfig:
    return change_config(make_config(), settings)


def test_each_process_adds_a_shift(run: RunDir) -> None:
    for number in (1, 2):
        with metered(run, make_config()) as meter, meter.reserved():
            pass
        shifts = read_shifts(run)
        assert len(shifts) == number
        assert shifts[-1].wall_s >= shifts[-1].reserved_s > 0


def test_what_a_killed_process_noted_stays(run: RunDir) -> None:
    killed = Shift(1.0, wall_s=50.0, reserved_s=40.0, busy_s=30.0, gpus=4)
    write_json(run.cost, Shifts((killed,)))
    meter = CostMeter(run, with_settings(**{"cost.gpu_hour_price": 36}))
    cost = meter.cost(rows=1, tokens=1)
    assert (cost.processes, cost.busy_gpu_s) == (2, 120)
    assert cost.money is not None
    assert cost.money >= 1.6


def test_counters_are_read_at_the_beginning_and_at_the_end(run: RunDir) -> None:
    counter = Joules()
    meter = CostMeter(run, make_config(), open_counters=lambda _gpus: [counter])
    meter.start()
    meter.stop()
    (shift,) = read_shifts(run)
    assert (shift.joules, shift.joules_from) == (20.0, ("rapl",))


def test_of_several_servers_the_mean_is_busy(run: RunDir) -> None:
    meter = CostMeter(run, make_config())
    meter.watch(cast(list[Lane], [BusyLane(2.0), BusyLane(4.0)]))
    assert meter.shift().busy_s == 3.0


def test_time_stands_still_once_it_is_over(run: RunDir) -> None:
    meter = CostMeter(run, make_config())
    meter.start()
    meter.stop()
    assert meter.shift() == meter.shift()
    assert read_shifts(run) == (meter.shift(),)


def test_a_folder_that_takes_nothing_ends_no_run(run: RunDir) -> None:
    run.cost.mkdir()
    with metered(run, make_config()) as meter:
        pass
    assert meter.shift().wall_s > 0


def test_a_file_of_another_version_is_left_alone(run: RunDir) -> None:
    write_json(run.cost, Shifts((Shift(1.0),), format=99))
    assert read_shifts(run) == ()


@pytest.mark.parametrize(
    ("build", "settings", "found"),
    [
        ("cpu", {}, (0, "launch", 0)),
        ("gpu", {}, (1, "launch", 1)),
        ("gpu", {"teacher.extra_args": ["-tp", "2", "--pipeline-parallel-size=3"]}, (6, "launch", 6)),
        ("gpu", {"teacher.endpoint": ["http://a/v1", "http://b/v1"]}, (2, "assumed", 0)),
        ("gpu", {"teacher.endpoint": "http://a/v1", "cost.gpus": 8}, (8, "given", 0)),
        ("gpu", {"teacher.extra_args": ["-tp", "2"], "cost.gpus": 0.5}, (0.5, "given", 2)),
    ],
)
def test_gpus_are_counted(monkeypatch: pytest.MonkeyPatch, build: str, settings: dict[str, object], found: tuple[float, str, int]) -> None:
    monkeypatch.setattr(prices, "vllm_build", lambda: build)
    assert count_gpus(with_settings(**settings)) == found
