from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from engine.config import BudgetConfig, RunConfig
from engine.progress import Silent
from engine.records import RoundRecord, RowCounts
from engine.reports import Interval, Intervals
from engine.status import Stage, Status
from engine.teacher.batcher import Statistics
from engine.teacher.concurrency import ConcurrencyController, Observation
from engine.teacher.lane import Lane, Reach
from engine.teacher.metrics import ServerGauges
from engine.teacher.teacher import Teacher
from engine.watching.bottleneck import FlowMeter, Tick
from engine.watching.scoreboard import Scoreboard, open_scoreboard
from tests.engine.builders import make_report
from tests.engine.run_folders import LABELS, make_config, make_rows, make_run


class World:
    """A clock, and what a batcher and a watcher would know."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.tokens: tuple[int, int] = (0, 0)
        self.meter: FlowMeter | None = None
        self.lost = Counter[str]()
        self.lane = Lane(cast(Teacher, None), ConcurrencyController.fixed(8), name="http://a/v1")
        self.counter = 0

    def statistics(self) -> Statistics:
        zeros = dict.fromkeys(Statistics.__dataclass_fields__, 0)
        return Statistics(**(zeros | {"waiting": 5, "prompt_tokens": self.tokens[0], "completion_tokens": self.tokens[1]}))

    def tick(self, tokens: int, *, at_ceiling: bool = False) -> None:
        """Half a second in which so many tokens were written."""
        assert self.meter is not None
        self.now += 0.5
        self.counter += tokens
        gauges = ServerGauges(4, 0, 0.5, 0, self.counter, 0)
        observation = Observation(self.now, 8, 8, not at_ceiling, 1, tokens, 0, 0, gauges)
        self.meter.add(Tick("a", observation, gauges, 0.5, is_fixed=False, at_ceiling=at_ceiling, busy=0.0, handling=0.0, storing=0.0))


@pytest.fixture
def world() -> World:
    return World()


def make_board(world: World, config: RunConfig | None = None, **changes: Any) -> Scoreboard:
    return Scoreboard(config or make_config(), clock=lambda: world.now, **changes)


def make_record(round: int, **changes: Any) -> RoundRecord:
    known: dict[str, Any] = {"rows": RowCounts(10, 8, 2, 0), "prompt_tokens": 1000, "completion_tokens": 100, "generation_s": 20.0}
    return RoundRecord(round=round, report=round - 1, assignments=5, calls=5, peak_tokens_per_s=50.0, **(known | changes))


def test_a_run_that_starts_waits_for_its_servers(world: World) -> None:
    status = make_board(world).status()
    assert (status.state, status.round, status.rounds, status.rows, status.curve) == (Stage.STARTING, 0, 10, RowCounts(), ())
    assert (status.round_left, status.run_left, status.limit) == (None, None, None)


def test_rows_of_earlier_rounds_and_of_this_one_are_added(world: World) -> None:
    board = make_board(world, rounds=[make_record(1)], lost={"duplicate": 2}, wall_s=60.0)
    board.watch([world.lane], world.statistics, world)
    board.reported(make_report(0))
    board.round_started(2, 40)
    world.meter = FlowMeter()
    world.tokens, world.now = (500, 50), world.now + 5
    world.lost["duplicate"] += 1
    world.lost["timeout"] += 1
    board.assignment_done(RowCounts(4, 2, 1, 1))
    status = board.status()
    assert status.state is Stage.ASKING
    assert (status.round, status.round_planned, status.round_rows) == (2, 40, RowCounts(4, 2, 1, 1))
    assert status.rows == RowCounts(14, 10, 3, 1)
    assert list(status.lost.items()) == [("duplicate", 3), ("timeout", 1)]
    assert (status.prompt_tokens, status.completion_tokens) == (1500, 150)
    assert (status.wall_s, status.generation_s, status.waiting) == (65.0, 25.0, 5)
    # What the record says counts from now on, and nothing twice.
    board.round_done(make_record(2, rows=RowCounts(40, 30, 9, 1), prompt_tokens=600, completion_tokens=60))
    status = board.status()
    assert (status.state, status.round_planned, status.rows) == (Stage.TRAINING, 0, RowCounts(50, 38, 11, 1))
    assert (status.prompt_tokens, status.completion_tokens, status.generation_s) == (1600, 160, 40.0)


def test_what_limits_is_what_was_short_in_the_last_seconds(world: World) -> None:
    board = make_board(world)
    board.watch([world.lane], world.statistics, world)
    world.meter = FlowMeter()
    board.round_started(1, 100)

    def tick(times: int, tokens: int, *, at_ceiling: bool = False) -> Status:
        for _ in range(times):
            world.tick(tokens, at_ceiling=at_ceiling)
            board.status()
        return board.status()

    status = tick(100, tokens=100)
    assert (status.limit, status.tokens_per_s) == ("compute", pytest.approx(200, rel=0.3))
    status = tick(30, tokens=10, at_ceiling=True)
    assert (status.limit, status.tokens_per_s) == ("ceiling", pytest.approx(20, rel=0.3))
    assert status.peak_tokens_per_s == pytest.approx(200, rel=0.3)
    world.lane.reach = Reach.SUSPENDED
    status = board.status()
    assert (status.limit, status.tokens_per_s, status.servers[0].reach) == (None, 0.0, "suspended")


def test_the_curve_has_intervals_and_weak_classes_say_where_they_were(world: World) -> None:
    within = Interval(0.3, 0.6)
    board = make_board(world)
    first, second = make_report(0, f1={"a": 0.5, "b": 0.2}), make_report(1, loss=0.5, f1={"a": 0.1, "b": 0.4})
    board.reported(first)
    board.reported(replace(second, intervals=Intervals(within, within, within, within)))
    status = board.status()
    assert [(point.round, point.macro_f1, point.low, point.high) for point in status.curve] == [(0, 0.35, None, None), (1, 0.25, 0.3, 0.6)]
    assert [(found.label, found.f1, found.before) for found in status.weakest] == [("a", 0.1, 0.5), ("b", 0.4, 0.2)]
    assert status.best_round == 1


def test_the_end_of_the_run_is_told_once_a_round_has_been_seen(world: World) -> None:
    board = make_board(world)
    board.watch([world.lane], world.statistics, world)
    board.reported(make_report(0))
    world.meter = FlowMeter()
    board.round_started(1, 100)
    for _ in range(50):
        board.assignment_done(RowCounts(1, 1))
        world.now += 0.2
    status = board.status()
    assert status.round_left is not None
    assert status.round_left.low_s < 10 < status.round_left.high_s
    assert status.run_left is None
    board.round_done(make_record(1, generation_s=20.0))
    board.reported(make_report(1, loss=0.9))  # 0.1 s of learning
    board.round_started(2, 100)
    assert board.status().run_left is None
    for _ in range(50):
        board.assignment_done(RowCounts(1, 1))
        world.now += 0.2
    status = board.status()
    assert status.round_left is not None
    assert status.run_left is not None
    # From the five rounds without an improvement that patience allows, this one among them, to all ten.
    assert status.run_left.low_s == pytest.approx(status.round_left.low_s + 0.1 + 4 * 20.1)
    assert status.run_left.high_s == pytest.approx(status.round_left.high_s + 0.1 + 8 * 20.1)
    ended = board.status(Stage.STOPPED, "stopped by the user")
    assert (ended.state, ended.phase, ended.round_left, ended.run_left) == (Stage.STOPPED, "stopped by the user", None, None)


def test_budgets_are_told_with_what_is_spent(world: World) -> None:
    config = make_config().model_copy(update={"budget": BudgetConfig(teacher_tokens=2200, seconds=100)})
    status = make_board(world, config, rounds=[make_record(1)], wall_s=25.0).status()
    assert [(use.name, use.spent, use.bound) for use in status.budget] == [("teacher tokens", 1100, 2200), ("seconds", 25.0, 100)]


def test_all_is_passed_on(world: World) -> None:
    told: list[object] = []

    class Told(Silent):
        def phase(self, text: str) -> None:
            told.append(text)

        def notice(self, text: str) -> None:
            told.append(text)

        def round_started(self, round: int, num_rows: int) -> None:
            told.append(num_rows)

        def assignment_done(self, rows: RowCounts) -> None:
            told.append(rows)

        def round_done(self, record: RoundRecord) -> None:
            told.append(record)

    board = make_board(world, progress=Told())
    board.phase("a phase")
    board.notice("a notice")
    board.round_started(1, 7)
    board.assignment_done(RowCounts(1, 1))
    board.round_done(make_record(1))
    assert told == ["a phase", "a notice", 7, RowCounts(1, 1), make_record(1)]
    assert [notice.text for notice in board.status().notices] == ["a notice"]


def test_the_tables_tell_what_was_before(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_rows(1, LABELS), make_rows(2, LABELS)])
    status = open_scoreboard(run, make_config(), 12.0).status()
    assert (status.round, status.rows.accepted, status.rows.rejected) == (2, 6, 2)
    assert status.lost == {"duplicate": 2, "missing": 1}
    assert (status.prompt_tokens, status.completion_tokens) == (2000, 200)
