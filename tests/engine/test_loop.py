import asyncio
from collections import Counter
from pathlib import Path

import pytest

from engine.config import BudgetConfig, RunConfig
from engine.errors import ServerError, StudentError, UserError
from engine.progress import Silent
from engine.records import RoundRecord, RowCounts
from engine.rundir import RunDir, read_json
from engine.runs.manifest import Manifest
from engine.runs.summary import Summary
from engine.store import connect, read_rounds, read_samples
from engine.teacher import batcher
from engine.testing.server import ScriptedServer
from tests.engine.scripted_runs import make_config, run_once


@pytest.fixture(autouse=True)
def retry_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "BACKOFF_S", 0.01)


def count_rows(root: Path, table: str) -> int:
    with connect(RunDir(root)) as connection:
        (count,) = connection.execute(f"select count(*) from {table}").fetchall()[0]
    return count


async def test_a_run_from_beginning_to_end(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        summary = await run_once(make_config(server.base_url), tmp_path)
        assert server.num_sequences == 6
    assert summary.rows.is_balanced
    assert (summary.rounds, summary.stopped, summary.rows.requested, summary.rows.accepted) == (2, "all 2 rounds done", 24, 24)
    assert (summary.student.before.round, summary.student.after.round) == (0, 2)
    assert summary.curve.train_rows == (6, 18, 30)
    assert read_json(tmp_path / "summary.json", Summary) == summary
    assert (count_rows(tmp_path, "samples"), count_rows(tmp_path, "calls")) == (24, 6)
    samples = read_samples(RunDir(tmp_path))
    assert Counter(sample.origin.round for sample in samples) == {1: 12, 2: 12}
    assert all(sample.origin.report == sample.origin.round - 1 for sample in samples)


async def test_a_run_finds_its_limit_by_itself(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        summary = await run_once(make_config(server.base_url, concurrency=None, rows_per_round=200), tmp_path)
        assert 4 < server.statistics().num_sequences == 100
    assert summary.rows.accepted == 400


async def test_a_run_stops_when_its_budget_is_used_up(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        plain = await run_once(make_config(server.base_url), tmp_path / "plain")
        tokens = plain.teacher.prompt_tokens + plain.teacher.completion_tokens
        config = make_config(server.base_url, rounds=8).model_copy(update={"budget": BudgetConfig(teacher_tokens=2 * tokens)})
        summary = await run_once(config, tmp_path / "budgeted")
    assert summary.stopped.startswith(f"the budget of {2 * tokens:,} teacher tokens is used up")
    assert 1.5 * tokens < summary.teacher.prompt_tokens + summary.teacher.completion_tokens <= 2.1 * tokens
    assert summary.rows.is_balanced


async def test_two_servers_share_a_run_and_one_may_go(tmp_path: Path) -> None:
    config = make_config("", rounds=3, rows_per_round=80)
    async with ScriptedServer(["latency:0.002", "die:5"]) as dying, ScriptedServer(["latency:0.002"]) as living:
        teacher = config.teacher.model_copy(update={"endpoint": (dying.base_url, living.base_url)})
        summary = await run_once(config.model_copy(update={"teacher": teacher}), tmp_path)
    assert summary.rows.requested == summary.rows.accepted == 240
    assert dying.num_sequences > 0


async def test_each_round_is_announced_with_its_rows_and_every_assignment_told(tmp_path: Path) -> None:
    class Told(Silent):
        def __init__(self) -> None:
            self.rounds: list[tuple[int, int]] = []
            self.rows = RowCounts()

        def round_started(self, round: int, num_rows: int) -> None:
            self.rounds.append((round, num_rows))

        def assignment_done(self, rows: RowCounts) -> None:
            self.rows += rows

    told = Told()
    async with ScriptedServer() as server:
        summary = await run_once(make_config(server.base_url), tmp_path, progress=told)
    assert told.rounds == [(1, 12), (2, 12)]
    assert told.rows == summary.rows


async def test_no_task_is_left(tmp_path: Path) -> None:
    async with ScriptedServer(["reset:3"]) as server:
        before = asyncio.all_tasks()
        await run_once(make_config(server.base_url), tmp_path)
        assert asyncio.all_tasks() == before


async def test_every_row_ends_once_when_the_server_misbehaves(tmp_path: Path) -> None:
    config = make_config("", rounds=3, rows_per_round=48, concurrency=1)
    async with ScriptedServer(["malformed:5", "truncated:4", "badjson:3", "reset:7"]) as server:
        teacher = config.teacher.model_copy(update={"endpoint": server.base_url})
        summary = await run_once(config.model_copy(update={"teacher": teacher}), tmp_path)
    rows = summary.rows
    assert rows.requested == 144
    assert rows.is_balanced
    assert rows.rejected + rows.failed > 0
    assert (count_rows(tmp_path, "samples"), count_rows(tmp_path, "rejections")) == (rows.accepted, rows.rejected + rows.surplus)
    with connect(RunDir(tmp_path)) as connection:
        (sums,) = connection.execute(
            "select sum(rows_requested), sum(rows_accepted), sum(rows_rejected), sum(rows_failed) from calls"
        ).fetchall()
    assert sums == (rows.requested, rows.accepted, rows.rejected, rows.failed)


async def test_a_dead_server_stops_the_run_and_nothing_answered_is_asked_again(tmp_path: Path) -> None:
    config = make_config("", rounds=3, rows_per_round=40, attempts=1, concurrency=2)
    async with ScriptedServer(["die:14"]) as dying:
        with pytest.raises(ServerError):
            await run_once(with_endpoint(config, dying), tmp_path)
    assert not (tmp_path / "summary.json").exists()
    async with ScriptedServer() as server:
        summary = await run_once(with_endpoint(config, server), tmp_path)
        assert dying.num_sequences + server.num_sequences <= 30 + 2 * 2
    with connect(RunDir(tmp_path)) as connection:
        assert connection.execute("select count(*) from calls where failure_reason is not null").fetchall() == [(0,)]
    assert summary.rows.requested == 120
    assert summary.rows.is_balanced
    ids = [sample.id for sample in read_samples(RunDir(tmp_path))]
    assert len(ids) == len(set(ids)) == summary.rows.accepted


def with_endpoint(config: RunConfig, server: ScriptedServer) -> RunConfig:
    return config.model_copy(update={"teacher": config.teacher.model_copy(update={"endpoint": server.base_url})})


async def test_a_cancelled_run_resumes_to_the_same_rows(tmp_path: Path) -> None:
    class CancelInRoundTwo(Silent):
        def round_done(self, record: RoundRecord) -> None:
            if record.round == 2:
                task.cancel()

    async with ScriptedServer() as server:
        config = make_config(server.base_url, rounds=3)
        undisturbed = await run_once(config, tmp_path / "undisturbed")
        task = asyncio.create_task(run_once(config, tmp_path / "stopped", progress=CancelInRoundTwo()))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(read_rounds(RunDir(tmp_path / "stopped"))) == 2
        resumed = await run_once(config, tmp_path / "stopped")
        assert server.num_sequences == 18
    rows = [{(sample.id, sample.text) for sample in read_samples(RunDir(tmp_path / name))} for name in ("undisturbed", "stopped")]
    assert rows[0] == rows[1]
    assert resumed.rows == undisturbed.rows


async def test_a_student_that_dies_stops_the_run_with_its_last_words(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        with pytest.raises(StudentError, match="out of chalk"):
            await run_once(make_config(server.base_url), tmp_path, "--die-at", "1")


async def test_a_complaint_of_the_student_about_its_input_is_the_users_to_mend(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        with pytest.raises(UserError, match="no encoder here"):
            await run_once(make_config(server.base_url), tmp_path, "--complain", "no encoder here")


async def test_another_configuration_is_refused_by_name(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        await run_once(make_config(server.base_url), tmp_path)
        with pytest.raises(UserError, match=r"strategy\.rounds: 2 -> 3"):
            await run_once(make_config(server.base_url, rounds=3), tmp_path)


async def test_settings_of_the_machine_may_change(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        await run_once(make_config(server.base_url), tmp_path)
        (tmp_path / "summary.json").unlink()
        again = await run_once(make_config(server.base_url, concurrency=9), tmp_path)
    assert again.rows.requested == 24


async def test_the_run_records_how_it_was_made(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        await run_once(make_config(server.base_url), tmp_path)
    manifest = read_json(tmp_path / "run.json", Manifest)
    assert manifest.config["seed"] == 3
    assert manifest.servers[0]["model"] == "scripted"
    assert "torch" in manifest.versions
    assert manifest.wall_s > 0
    assert manifest.leaks == ()
