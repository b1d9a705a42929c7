from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from engine.errors import StoreError
from engine.records import Call, RejectionReason, RowCounts
from engine.rundir import TABLES, RunDir
from engine.store import SCHEMAS, Store, read_samples, store, unpack_calls
from engine.store.segments import committed, read_table
from tests.engine.store.builders import (
    make_call,
    make_completion,
    make_origin,
    make_rejection,
    make_request,
    make_round,
    make_run,
    make_sample,
    refuse_to_answer,
    work,
)
from tests.engine.store.gate import Gate


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(tmp_path)


def call_ids(run: RunDir) -> list[str]:
    return [call.outcome.request_id for call in unpack_calls(read_table(run.table("calls"), SCHEMAS["calls"]))]


async def add_recorded_call(store: Store, request_id: str, round: int = 1) -> bool:
    await store.record(make_completion(request_id))
    return await store.add_call(make_call(request_id, round))


async def test_a_row_ends_once_over_samples_and_rejections(run: RunDir) -> None:
    async with Store(run) as store:
        assert store.add_sample(make_sample("q1-0"))
        assert store.add_rejection(make_rejection("q1-1"))
        assert not store.add_rejection(make_rejection("q1-0"))
        assert not store.add_sample(make_sample("q1-1"))
        assert await add_recorded_call(store, "q1")
        assert not await store.add_call(make_call("q1"))
        endings = [store.ending(row_id) for row_id in ("q1-0", "q1-1", "q1-2")]
    async with Store(run) as store:
        assert [store.ending(row_id) for row_id in ("q1-0", "q1-1", "q1-2")] == endings == ["accepted", RejectionReason.DUPLICATE, None]
        assert not store.add_sample(make_sample("q1-0", text="another text"))
        assert not await store.add_call(make_call("q1"))
    assert [sample.text for sample in read_samples(run)] == ["where is my refund"]
    assert call_ids(run) == ["q1"]


async def test_answers_are_replayed_from_the_journal_and_from_calls_until_their_round_is_complete(run: RunDir) -> None:
    async with Store(run) as store:
        await add_recorded_call(store, "sealed")
    async with Store(run) as store:
        # The first journal is sealed and gone.
        await store.record(make_completion("recorded"))
    async with Store(run) as store:
        assert store.replay("sealed") == make_completion("sealed")
        assert store.replay("recorded") == make_completion("recorded")
        assert store.replay("never asked") is None
        await store.add_call(make_call("recorded"))
        await store.complete_round(make_round(1))
        assert store.replay("sealed") is None
        assert store.replay("recorded") is None
    async with Store(run) as store:
        assert store.replay("sealed") is None


async def test_a_replay_has_the_first_answer_to_a_request(run: RunDir) -> None:
    async with Store(run) as store:
        await store.record(make_completion("q1", "first"))
        await store.record(make_completion("q1", "second"))
        assert store.replay("q1") == make_completion("q1", "first")
    async with Store(run) as store:
        assert store.replay("q1") == make_completion("q1", "first")


async def test_an_answer_that_runs_ahead_of_its_round_survives_the_journal(run: RunDir) -> None:
    async with Store(run) as store:
        await add_recorded_call(store, "q1", round=1)
        await store.record(make_completion("q2"))
        await store.complete_round(make_round(1))
    async with Store(run) as store:
        assert store.replay("q2") == make_completion("q2")


async def test_what_breaks_an_invariant_is_let_in_nowhere(run: RunDir) -> None:
    async with Store(run) as store:
        with pytest.raises(AssertionError, match="not recorded before"):
            await store.add_call(make_call("q1"))
        await store.record(make_completion("q1"))
        with pytest.raises(AssertionError, match="does not add up"):
            await store.add_call(make_call("q1", rows=RowCounts(requested=2, accepted=1)))
        with pytest.raises(AssertionError, match="does not add up"):
            await store.complete_round(make_round(1, RowCounts(requested=1)))
        await store.complete_round(make_round(1))
        for add in (lambda: store.add_sample(make_sample("q1-0", round=1)), lambda: store.add_rejection(make_rejection("q1-1", round=1))):
            with pytest.raises(AssertionError, match="round 1 is complete"):
                add()
        with pytest.raises(AssertionError, match="round 1 is complete"):
            await store.add_call(make_call("q1", round=1))
        with pytest.raises(AssertionError, match="round 1 is complete"):
            await store.complete_round(make_round(1))
    assert read_samples(run) == []


async def test_totals_are_of_the_whole_run(run: RunDir) -> None:
    async with Store(run) as store:
        assert (store.last_round, store.totals.rounds) == (0, 0)
        await store.complete_round(make_round(1, RowCounts(3, 2, 1, 0, 4), calls=1))
    async with Store(run) as store:
        await store.complete_round(make_round(2, RowCounts(3, 0, 0, 3), calls=2))
        assert store.last_round == 2
        assert store.totals.rows == RowCounts(6, 2, 1, 3, 4)
        assert (store.totals.calls, store.totals.prompt_tokens, store.totals.completion_tokens) == (3, 300, 60)


async def test_a_full_buffer_is_sealed_and_the_call_that_filled_it_waits(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_BUFFERED_ROWS", 3)
    async with Store(run) as opened:
        opened.add_sample(make_sample("q1-0"))
        opened.add_sample(make_sample("q1-1"))
        await opened.record(make_completion("q1"))
        gate = Gate(monkeypatch)
        filling = asyncio.create_task(opened.add_call(make_call("q1")))
        await gate.is_reached()
        assert not filling.done()
        opened.add_sample(make_sample("q2-0"))
        gate.release.set()
        assert await filling
        assert [sample.id for sample in read_samples(run)] == ["q1-0", "q1-1"]
        assert call_ids(run) == ["q1"]


async def test_calls_that_come_during_a_seal_do_not_each_make_a_segment(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_BUFFERED_ROWS", 2)
    async with Store(run) as opened:
        for request_id in ("q0", "q1"):
            await opened.record(make_completion(request_id))
        gate = Gate(monkeypatch)
        opened.add_sample(make_sample("q0-0"))
        first = asyncio.create_task(opened.add_call(make_call("q0")))
        await gate.is_reached()
        second = asyncio.create_task(opened.add_call(make_call("q1")))
        await asyncio.sleep(0)
        gate.release.set()
        await asyncio.gather(first, second)
        assert call_ids(run) == ["q0"]


async def test_cancelling_whoever_seals_neither_loses_nor_doubles_rows(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Store(run) as opened:
        opened.add_sample(make_sample("q1-0"))
        await add_recorded_call(opened, "q1")
        gate = Gate(monkeypatch)
        running = asyncio.create_task(opened.seal())
        await gate.is_reached()
        opened.add_sample(make_sample("q2-0"))
        queued = asyncio.create_task(opened.seal())
        await asyncio.sleep(0)
        running.cancel()
        queued.cancel()
        await asyncio.wait([running, queued])
        gate.release.set()
        await opened.complete_round(make_round(1))
    assert [sample.id for sample in read_samples(run)] == ["q1-0", "q2-0"]
    assert call_ids(run) == ["q1"]


async def test_a_call_that_comes_while_rows_are_written_waits_for_its_own_rows(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Store(run) as opened:
        for request_id in ("q1", "q2"):
            await opened.record(make_completion(request_id))
        opened.add_sample(make_sample("q1-0"))
        await opened.add_call(make_call("q1"))
        gate = Gate(monkeypatch)
        sealing = asyncio.create_task(opened.seal())
        await gate.is_reached()
        opened.add_sample(make_sample("q2-0"))
        await opened.add_call(make_call("q2"))
        gate.release.set()
        await sealing
        assert [sample.id for sample in read_samples(run)] == ["q1-0"]
        assert call_ids(run) == ["q1"]
    assert [sample.id for sample in read_samples(run)] == ["q1-0", "q2-0"]
    assert call_ids(run) == ["q1", "q2"]


async def test_a_disk_that_refused_is_not_written_again_and_the_run_resumes(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    async def keep_on() -> None:
        async with Store(run) as opened:
            opened.add_sample(make_sample("q1-0"))
            await add_recorded_call(opened, "q1")
            gate = Gate(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            gate.release.set()
            with pytest.raises(StoreError, match="No space left"):
                await opened.seal()
            monkeypatch.undo()
            await opened.complete_round(make_round(1))

    with pytest.raises(StoreError, match="No space left"):
        await keep_on()
    assert committed(run.table("samples")) == committed(run.table("rounds")) == []
    async with Store(run) as opened:
        assert opened.replay("q1") == make_completion("q1")


async def test_leaving_on_an_error_seals_nothing_and_loses_nothing(run: RunDir) -> None:
    async def fail() -> None:
        async with Store(run) as opened:
            opened.add_sample(make_sample("q1-0"))
            await add_recorded_call(opened, "q1")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert read_samples(run) == []
    async with Store(run) as opened:
        assert opened.replay("q1") == make_completion("q1")


async def test_opening_clears_up_after_a_dead_writer_but_leaves_the_students_table_alone(run: RunDir) -> None:
    for name in TABLES:
        (run.table(name) / ".000001.parquet.77.tmp").write_bytes(b"torn")
    async with Store(run):
        assert [path.parent.name for path in run.tables.rglob(".*")] == ["evaluations"]


async def test_a_finished_run_opens_and_asks_nothing(run: RunDir) -> None:
    async with Store(run) as opened:
        await opened.complete_round(make_round(1))
    await work(run, refuse_to_answer, num_rounds=1, num_calls=3)


async def test_the_stored_call_is_the_one_that_was_added(run: RunDir) -> None:
    request = make_request("a prompt\ud83d", seed=7)
    call = Call(request, make_origin("q1"), make_completion("q1", "text \ud800"), RowCounts(2, 1, 0, 1))
    async with Store(run) as opened:
        await opened.record(call.outcome)
        await opened.add_call(call)
    assert unpack_calls(read_table(run.table("calls"), SCHEMAS["calls"])) == [call]
