"""The loop where the engine asks ahead of the student (`loop.max_staleness`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import pytest

from engine import loop
from engine.config import LoopConfig, RunConfig, StopConfig
from engine.errors import StudentError
from engine.progress import Silent
from engine.records import Finish, RowCounts
from engine.reports import FinalReport, Scores, StudentScores, WeaknessReport
from engine.rundir import RunDir, read_json, write_json
from engine.runs.summary import Summary
from engine.stopping.turns import Asking
from engine.store import connect, read_rounds, read_samples
from engine.testing.server import ScriptedServer
from tests.engine.builders import make_report, make_task
from tests.engine.scripted_runs import make_config, run_once

ROWS = 12


class PacedStudent:
    """Reports on a round when another one is complete: as slow as is wanted, and at no time of its own."""

    def __init__(self, run: RunDir, pace: Mapping[int, int]) -> None:
        self._run = run
        self._pace = pace

    pid = 0

    async def __aenter__(self) -> PacedStudent:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    async def report_after(self, round: int) -> WeaknessReport:
        if told := [number for number in self._run.reported_rounds() if number > round]:
            return read_json(self._run.report(told[0]), WeaknessReport)
        due = {0: 0, **self._pace}
        number = min((number for number in due if number > round), default=None)
        while number is None or due[number] not in {0, *(record.round for record in read_rounds(self._run))}:  # noqa: ASYNC110 - files tell
            await asyncio.sleep(0.005)
        write_json(self._run.report(number), make_report(number, loss=1 / (number + 1)))
        return read_json(self._run.report(number), WeaknessReport)

    async def final_report(self) -> FinalReport:
        best = read_json(self._run.finish, Finish).best_round
        before, after = (StudentScores(round, Scores(0.5, 0.5, 0.5, 9), (), ()) for round in (0, best))
        return FinalReport(before, after, "none", 0, "none")


def ahead(config: RunConfig, max_staleness: int) -> RunConfig:
    return config.model_copy(update={"loop": LoopConfig(max_staleness=max_staleness)})


async def run_paced(
    monkeypatch: pytest.MonkeyPatch, config: RunConfig, root: Path, pace: Mapping[int, int], progress: Silent | None = None
) -> Summary:
    monkeypatch.setattr(loop, "StudentProcess", lambda *_, **__: PacedStudent(RunDir(root), pace))  # pyright: ignore[reportUnknownLambdaType]
    return await loop.run_loop(config, make_task(), RunDir(root), progress or Silent())


def answered(root: Path) -> list[int]:
    """The report that each round answers, by its record and by all of its rows."""
    by_record = {record.round: record.report for record in read_rounds(RunDir(root))}
    by_row = {(sample.origin.round, sample.origin.report) for sample in read_samples(RunDir(root))}
    assert by_row == set(by_record.items())
    return list(by_record.values())


@pytest.mark.parametrize(
    ("max_staleness", "pace", "expected"),
    [
        (0, {1: 1, 2: 2, 3: 3, 4: 4}, [0, 1, 2, 3]),
        # Each report comes a round late: the engine never waits.
        (1, {1: 2, 2: 3, 3: 4, 4: 4}, [0, 0, 1, 2]),
        # The student learns two rounds at once.
        (1, {2: 2, 4: 4}, [0, 0, 2, 2]),
        (2, {1: 3, 4: 4}, [0, 0, 0, 1]),
        (2, {3: 3, 4: 4}, [0, 0, 0, 3]),
    ],
)
async def test_rounds_are_asked_against_the_newest_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_staleness: int, pace: dict[int, int], expected: list[int]
) -> None:
    async with ScriptedServer() as server:
        config = ahead(make_config(server.base_url, rounds=4), max_staleness)
        summary = await run_paced(monkeypatch, config, tmp_path, pace)
    assert answered(tmp_path) == expected
    assert (summary.rounds, summary.stopped, summary.rows.requested, summary.rows.accepted) == (4, "all 4 rounds done", 48, 48)
    assert summary.curve.rounds == (0, *pace)
    assert summary.student.after.round == 4
    assert (tmp_path / "asking.json").exists() is (max_staleness > 0)


async def test_a_stopped_round_goes_on_against_its_report_although_a_newer_one_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopInRoundTwo(Silent):
        round = 0

        def round_started(self, round: int, num_rows: int) -> None:
            self.round = round

        def assignment_done(self, rows: RowCounts) -> None:
            if self.round == 2:
                task.cancel()

    pace = {1: 2, 2: 3, 3: 3}
    async with ScriptedServer() as server:
        config = ahead(make_config(server.base_url, rounds=3, concurrency=1), 1)
        undisturbed = await run_paced(monkeypatch, config, tmp_path / "undisturbed", pace)
        asked = server.num_sequences
        task = asyncio.create_task(run_paced(monkeypatch, config, tmp_path / "stopped", pace, StopInRoundTwo()))
        with pytest.raises(asyncio.CancelledError):
            await task
        run = RunDir(tmp_path / "stopped")
        assert [record.round for record in read_rounds(run)] == [1]
        assert read_json(run.asking, Asking) == Asking(2, 0)
        write_json(run.report(1), make_report(1, loss=0.5))
        resumed = await run_paced(monkeypatch, config, run.root, pace)
        assert server.num_sequences <= 2 * asked + 1  # what was in flight
    assert answered(run.root) == answered(tmp_path / "undisturbed") == [0, 0, 1]
    rows = [{(sample.id, sample.text) for sample in read_samples(RunDir(tmp_path / name))} for name in ("undisturbed", "stopped")]
    assert rows[0] == rows[1]
    assert resumed.rows == undisturbed.rows


async def test_patience_waits_for_the_reports_on_all_that_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {0: 1.0, 1: 1.1, 2: 1.2, 3: 0.5, 4: 0.6, 5: 0.6, 6: 0.6}
    made = make_report
    monkeypatch.setattr("tests.engine.test_overlap.make_report", lambda round, **_: made(round, loss=losses[round]))  # pyright: ignore[reportUnknownLambdaType]
    async with ScriptedServer() as server:
        config = ahead(make_config(server.base_url, rounds=9), 1)
        strategy = config.strategy.model_copy(update={"patience": 2})
        # After the report on round 2, two rounds went by without a lower loss; but round 3 was asked before it came, and brings one.
        # So it is with round 6, which is asked before the report on round 5 says that two rounds brought nothing.
        pace = {1: 2, 2: 3, 3: 3, 4: 4, 5: 5, 6: 6}
        summary = await run_paced(monkeypatch, config.model_copy(update={"strategy": strategy}), tmp_path, pace)
    assert summary.stopped == "no lower validation loss in 3 rounds"
    assert (summary.rounds, summary.student.after.round) == (6, 3)


async def test_a_run_ends_when_its_rounds_gain_nothing_and_says_so_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_report
    monkeypatch.setattr(
        "tests.engine.test_overlap.make_report",
        lambda round, loss: made(round, loss=loss, hits="1" * 900 + "0" * 100),  # pyright: ignore[reportUnknownLambdaType]
    )
    async with ScriptedServer() as server:
        config = ahead(make_config(server.base_url, rounds=9), 1).model_copy(update={"stop": StopConfig(window=2, min_gain=0.01)})
        summary = await run_paced(monkeypatch, config, tmp_path, {1: 2, 2: 3, 3: 3})
    # Round 3 was asked before the report on round 2 came, and was learned.
    assert summary.rounds == 3
    assert summary.stopped == read_json(tmp_path / "finish.json", Finish).reason
    assert summary.stopped.startswith("rounds 2 to 3 gained +0.000 on validation")


async def test_a_student_that_is_killed_is_started_again_and_the_teacher_goes_on(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        config = ahead(make_config(server.base_url, rounds=4), 2)
        summary = await run_once(config, tmp_path, "--at-once", "--kills", "3")
        assert server.num_sequences == 4 * 3
    assert (tmp_path / "logs" / "killed-2").exists()
    assert summary.rows == RowCounts(requested=48, accepted=48)
    assert summary.curve.train_rows[-1] == 6 + 48
    with connect(RunDir(tmp_path)) as connection:
        assert connection.execute("select count(*), count(distinct id) from samples").fetchall() == [(48, 48)]


async def test_a_student_that_is_killed_again_and_again_stops_the_run(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        config = ahead(make_config(server.base_url, rounds=4), 1)
        with pytest.raises(StudentError, match="killed by SIGKILL"):
            await run_once(config, tmp_path, "--at-once", "--kills", "9")
        assert len(list((tmp_path / "logs").glob("killed-*"))) == 4
        summary = await run_once(config, tmp_path, "--at-once")
    assert summary.rows == RowCounts(requested=48, accepted=48)
