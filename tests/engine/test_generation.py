from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.config import EngineConfig, GatesConfig, PgkdConfig, RunConfig, TeacherConfig
from engine.crew import SPARE
from engine.errors import ServerError
from engine.generation import Generation, open_generation
from engine.progress import Silent
from engine.records import Request, RowCounts
from engine.rundir import RunDir
from engine.server.fleet import Fleet
from engine.store import connect, read_rounds, read_samples
from engine.teacher import lanes
from engine.teacher.concurrency import ConcurrencyController, Observation
from engine.teacher.lane import Lane
from engine.teacher.teacher import Teacher
from engine.testing.teacher import ScriptedTeacher, write_rows
from tests.engine.asking import Gates, Watched, make_lane, settle
from tests.engine.builders import make_report, make_task, make_task_config


def make_config(*, rows_per_round: int = 40, rows_per_call: int = 4, **engine: Any) -> RunConfig:
    return RunConfig(
        name="test",
        seed=3,
        task=make_task_config(),
        teacher=TeacherConfig(model="scripted"),
        gates=GatesConfig(near_duplicates=False),  # what the scripted teacher writes is alike
        strategy=PgkdConfig(rows_per_round=rows_per_round, rows_per_call=rows_per_call),
        engine=EngineConfig(**engine),
    )


@asynccontextmanager
async def generating(root: Path, teacher: Teacher | Lane, config: RunConfig) -> AsyncGenerator[Generation]:
    run = RunDir(root)
    run.create()
    lane = teacher if isinstance(teacher, Lane) else make_lane(teacher, 8)
    fleet = Fleet((lane,), "scripted", None, 300.0, Silent(), lambda _note: None)
    async with open_generation(config, make_task(), run, fleet) as generation:
        yield generation


async def test_a_round_is_asked_and_committed(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(write_rows)
    async with generating(tmp_path, teacher, make_config(rows_per_round=42)) as generation:
        record = await generation.ask_round(1, make_report(), Silent())
        assert [committed.round for committed in read_rounds(RunDir(tmp_path))] == [1]
        assert len(read_samples(RunDir(tmp_path))) == 42
        assert generation.last_round == 1
    assert (record.round, record.report, record.assignments, record.calls) == (1, 0, 11, 11)
    assert record.rows == RowCounts(42, accepted=42)
    assert record.prompt_tokens > 0
    assert record.completion_tokens > 0
    assert set(record.blocks) == {"examples", "right", "wrong", "hard"}


async def test_a_round_after_another_and_none_twice(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(write_rows)
    for _ in range(2):
        async with generating(tmp_path, teacher, make_config()) as generation:
            round = generation.last_round + 1
            record = await generation.ask_round(round, make_report(round - 1), Silent())
            assert record.rows == RowCounts(40, accepted=40)
    assert len({request.id for request in teacher.requests}) == len(teacher.requests) == 20


async def test_a_round_that_was_stopped_goes_on_without_asking_again(tmp_path: Path) -> None:
    class Stopping(Silent):
        def __init__(self) -> None:
            self.num_done = 0

        def assignment_done(self, rows: RowCounts) -> None:
            self.num_done += 1
            if self.num_done == 4:
                raise ServerError("gone")

    first, second = ScriptedTeacher(write_rows), ScriptedTeacher(write_rows)
    with pytest.raises(ExceptionGroup):
        async with generating(tmp_path, make_lane(first, 2), make_config()) as generation:
            await generation.ask_round(1, make_report(), Stopping())
    async with generating(tmp_path, second, make_config()) as generation:
        record = await generation.ask_round(1, make_report(), Silent())
        assert generation.batcher.statistics().replayed >= 4
    assert record.rows == RowCounts(40, accepted=40)
    assert len(first.requests) + len(second.requests) <= 10 + 2
    assert len(read_samples(RunDir(tmp_path))) == 40


async def test_an_assignment_is_planned_only_when_there_is_room_for_it(tmp_path: Path) -> None:
    gates = Gates()
    teacher = Watched(gates)
    config = make_config(rows_per_round=1_000_000, rows_per_call=1)
    async with generating(tmp_path, make_lane(teacher, 3), config) as generation:
        asking = asyncio.create_task(generation.ask_round(1, make_report(), Silent()))
        await settle()
        statistics = generation.batcher.statistics()
        assert (statistics.in_flight, statistics.asked) == (3, 2 * 3 + SPARE)
        asking.cancel()
        await asyncio.wait([asking])
        await settle()
        assert generation.batcher.statistics().waiting == 0


async def test_the_crew_grows_with_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "OBSERVE_S", 0.001)

    class Rising(ConcurrencyController):
        def observe(self, observation: Observation) -> int:
            self.limit = min(64, self.limit * 2)
            return self.limit

    gates = Gates()
    teacher = Watched(gates)
    lane = Lane(teacher, Rising(start=1))
    async with generating(tmp_path, lane, make_config(rows_per_round=100_000, rows_per_call=1)) as generation:
        asking = asyncio.create_task(generation.ask_round(1, make_report(), Silent()))
        async with asyncio.timeout(5):
            while generation.batcher.statistics().asked < 2 * 64 + SPARE:  # noqa: ASYNC110 - it is told by a timer of the batcher's own
                await asyncio.sleep(0.001)
        await settle()
        assert generation.batcher.statistics().in_flight == 64
        asking.cancel()
        await asyncio.wait([asking])


@pytest.mark.parametrize(("setting", "seconds"), [("requests_per_second", 1.0), ("requests_per_minute", 60.0)])
async def test_the_users_ceilings_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, seconds: float) -> None:
    made: list[tuple[int, float]] = []

    class Throttler:
        def __init__(self, requests: int, period_s: float, _poll_s: float) -> None:
            made.append((requests, period_s))
            self.num_acquired = 0
            throttlers.append(self)

        async def acquire(self) -> None:
            self.num_acquired += 1

    throttlers: list[Throttler] = []
    monkeypatch.setattr("engine.teacher.ceiling.Throttler", Throttler)
    async with generating(tmp_path, ScriptedTeacher(write_rows), make_config(**{setting: 5})) as generation:
        await generation.ask_round(1, make_report(), Silent())
        posts = generation.batcher.statistics().posts
    assert made == [(5, seconds)]
    assert throttlers[0].num_acquired == posts


async def test_rows_known_from_seed_validation_and_earlier_rounds_are_refused(tmp_path: Path) -> None:
    texts = iter(["seed text 0 about cancel", "validation text 1 about track", "a new one", "A new one!", "another"])

    def script(_: Request) -> str:
        return f'[{{"text": "{next(texts)}", "label": "track"}}]'

    for round, rows in ((1, RowCounts(3, accepted=1, rejected=2)), (2, RowCounts(2, accepted=1, rejected=1))):
        config = make_config(rows_per_round=rows.requested, rows_per_call=1)
        async with generating(tmp_path, ScriptedTeacher(script), config) as generation:
            assert (await generation.ask_round(round, make_report(round - 1), Silent())).rows == rows
    with connect(RunDir(tmp_path)) as connection:
        reasons = connection.execute("select reason from rejections order by reason").fetchall()
    assert reasons == [("duplicate",), ("duplicate",), ("leakage",)]
