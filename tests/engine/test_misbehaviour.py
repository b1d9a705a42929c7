"""A round of 5,000 assignments by servers that do wrong whatever there is to do wrong, over real sockets and into a real store."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from engine.config import (
    DataConfig,
    EngineConfig,
    GatesConfig,
    LabelConfig,
    PgkdConfig,
    RunConfig,
    SamplingConfig,
    TaskConfig,
    TeacherConfig,
)
from engine.generation import open_generation
from engine.progress import Silent
from engine.records import FailureReason, RowCounts
from engine.rundir import RunDir
from engine.server.fleet import Fleet
from engine.store import connect
from engine.teacher import batcher, lanes, teacher
from engine.teacher.concurrency import ConcurrencyController
from engine.teacher.endpoint import Endpoint
from engine.teacher.lane import Lane, Reach
from engine.teacher.teacher import HttpTeacher
from engine.testing.server import ScriptedServer
from tests.engine.builders import LABELS, make_report, make_task

NUM_ASSIGNMENTS = 5000
ROWS_PER_CALL = 2
WRONGS = (
    "slowstart:0.2", "latency:0.002", "overload:40", "reset:53", "malformed:47", "truncated:43", "badjson:41", "stall:211", "drip:0.05:37",
    "status:400:59", "status:408:113", "status:429:61", "status:500:31", "status:503:67",
)  # fmt: skip


def make_config() -> RunConfig:
    nowhere = Path("unused.jsonl")
    return RunConfig(
        name="test",
        task=TaskConfig(
            domain="messages",
            labels=tuple(LabelConfig(name=label) for label in LABELS),
            data=DataConfig(seed=nowhere, validation=nowhere, test=nowhere),
        ),
        teacher=TeacherConfig(model="scripted"),
        gates=GatesConfig(near_duplicates=False),
        sampling=SamplingConfig(max_tokens=256, max_tokens_bound=512),
        strategy=PgkdConfig(rows_per_round=NUM_ASSIGNMENTS * ROWS_PER_CALL, rows_per_call=ROWS_PER_CALL),
        engine=EngineConfig(attempts=2, server_patience_s=10),
    )


class Told(Silent):
    def __init__(self) -> None:
        self.num_assignments = 0
        self.rows = RowCounts()

    def assignment_done(self, rows: RowCounts) -> None:
        self.num_assignments += 1
        self.rows += rows


@pytest.fixture(autouse=True)
def wait_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "BACKOFF_S", 0.005)
    monkeypatch.setattr(batcher, "MAX_BACKOFF_S", 0.05)
    monkeypatch.setattr(teacher, "MAX_RETRY_AFTER_S", 0.01)
    monkeypatch.setattr(lanes, "PROBE_S", 0.01)


async def test_whatever_servers_do_wrong_every_request_and_every_row_ends_once(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.create()
    told = Told()
    before = asyncio.all_tasks()
    wrong, dying, locking = ScriptedServer(WRONGS), ScriptedServer(["latency:0.002", "die:150"]), ScriptedServer(["status:401:150"])
    async with wrong, dying, locking:
        async with AsyncExitStack() as stack:
            servers: list[Lane] = []
            for server in (wrong, dying, locking):
                endpoint = Endpoint(server.base_url, "scripted")
                client = await stack.enter_async_context(HttpTeacher(endpoint, timeout_s=5.0, stall_s=0.1))
                servers.append(Lane(client, ConcurrencyController(), name=server.base_url))
            fleet = Fleet(tuple(servers), "scripted", None, 300.0, Silent(), lambda _note: None)
            generation = await stack.enter_async_context(open_generation(make_config(), make_task(), run, fleet))
            record = await generation.ask_round(1, make_report(), told)
            statistics = generation.batcher.statistics()
        assert asyncio.all_tasks() == before
        await have_closed(wrong, dying, locking)

    assert [lane.reach for lane in servers] == [Reach.OPEN, Reach.DOUBTED, Reach.LOST]
    seen = wrong.statistics()
    assert seen.in_flight == 0
    assert seen.statuses.keys() >= {200, 400, 408, 429, 500, 503}
    assert min(seen.num_requests, dying.num_requests, locking.num_requests) > 100

    assert told.num_assignments == record.assignments == NUM_ASSIGNMENTS
    assert told.rows == record.rows
    rows = record.rows
    assert rows.requested == NUM_ASSIGNMENTS * ROWS_PER_CALL == rows.accepted + rows.rejected + rows.failed
    assert min(rows.accepted, rows.rejected, rows.failed) > 0
    assert (statistics.in_flight, statistics.waiting, statistics.shared, statistics.replayed) == (0, 0, 0, 0)
    assert statistics.asked == statistics.completed + statistics.failed == record.calls > NUM_ASSIGNMENTS
    assert statistics.sent - statistics.retried == statistics.asked
    assert min(statistics.failed, statistics.overloads, statistics.retried) > 0
    assert statistics.posts < statistics.sent

    assert ask(run, "select count(*), count(distinct request_id) from calls") == (record.calls, record.calls)
    sums = "sum(rows_requested), sum(rows_accepted), sum(rows_rejected), sum(rows_failed)"
    assert ask(run, f"select {sums} from calls") == (rows.requested, rows.accepted, rows.rejected, rows.failed)
    assert ask(run, "select count(*), count(distinct id) from samples") == (rows.accepted, rows.accepted)
    assert ask(run, "select count(*), count(distinct id) from rejections") == (rows.rejected + rows.surplus,) * 2
    assert ask(run, "select count(*) from calls where failure_reason is not null") == (statistics.failed,)
    assert ask(run, f"select count(*) > 0 from calls where failure_reason = '{FailureReason.REFUSED}'") == (True,)
    assert ask(run, f"select count(*) from calls where failure_reason = '{FailureReason.CONNECTION}'") == (0,)
    assert ask(run, "select count(*) from calls where request_id not in (select request_id from samples) and rows_accepted > 0") == (0,)


async def have_closed(*servers: ScriptedServer) -> None:
    """The last ones are told of it only by their sockets."""
    async with asyncio.timeout(2):
        while any(server.num_connections for server in servers):  # noqa: ASYNC110 - nothing says so
            await asyncio.sleep(0.001)


def ask(run: RunDir, query: str) -> Any:
    with connect(run) as connection:
        (row,) = connection.execute(query).fetchall()
    return row
