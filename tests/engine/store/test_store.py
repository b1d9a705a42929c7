from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from engine.errors import StoreError
from engine.records import Call, RejectionReason, RowCounts
from engine.rundir import TABLES, RunDir
from engine.store import Store, read_calls, read_samples, store
from engine.store.segments import committed
from tests.engine.store.builders import (
    add_row,
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
    return [call.outcome.request_id for call in read_calls(run)]


async def add_recorded_call(store: Store, request_id: str, round: int = 1) -> bool:
    await store.record(make_completion(request_id))
    return await store.add_call(make_call(request_id, round))


async def test_a_row_ends_once_over_samples_and_rejections(run: RunDir) -> None:
    async with Store(run) as store:
        assert add_row(store, make_sample("a1-0"))
        assert add_row(store, make_rejection("a1-1"))
        assert not add_row(store, make_rejection("a1-0"))
        assert not add_row(store, make_sample("a1-1"))
        assert await add_recorded_call(store, "a1")
        assert not await store.add_call(make_call("a1"))
        endings = [store.ending(row_id) for row_id in ("a1-0", "a1-1", "a1-2")]
    async with Store(run) as store:
        assert [store.ending(row_id) for row_id in ("a1-0", "a1-1", "a1-2")] == endings == ["accepted", RejectionReason.DUPLICATE, None]
        assert not add_row(store, make_sample("a1-0", text="another text"))
        assert not await store.add_call(make_call("a1"))
    assert [sample.text for sample in read_samples(run)] == ["where is my refund"]
    assert call_ids(run) == ["a1"]


async def test_answers_are_replayed_from_the_journal_and_from_calls(run: RunDir) -> None:
    async with Store(run) as store:
        await add_recorded_call(store, "5ea1ed")
    async with Store(run) as store:
        # The first journal is sealed and gone.
        await store.record(make_completion("dec0ded"))
    async with Store(run) as store:
        assert store.replay("5ea1ed") == make_completion("5ea1ed")
        assert store.replay("dec0ded") == make_completion("dec0ded")
        assert store.replay("facade") is None
        await store.add_call(make_call("dec0ded"))
        await store.complete_round(make_round(1))
        assert store.replay("5ea1ed") == make_completion("5ea1ed")
    async with Store(run) as store:
        assert store.replay("5ea1ed") == make_completion("5ea1ed")
        assert store.replay("dec0ded") == make_completion("dec0ded")


async def test_a_replay_has_the_first_answer_to_a_request(run: RunDir) -> None:
    async with Store(run) as store:
        await store.record(make_completion("a1", "first"))
        await store.record(make_completion("a1", "second"))
        assert store.replay("a1") == make_completion("a1", "first")
    async with Store(run) as store:
        assert store.replay("a1") == make_completion("a1", "first")


async def test_an_answer_that_runs_ahead_of_its_round_survives_the_journal(run: RunDir) -> None:
    async with Store(run) as store:
        await add_recorded_call(store, "a1", round=1)
        await store.record(make_completion("a2"))
        await store.complete_round(make_round(1))
    async with Store(run) as store:
        assert store.replay("a2") == make_completion("a2")


async def test_what_breaks_an_invariant_is_let_in_nowhere(run: RunDir) -> None:
    async with Store(run) as store:
        with pytest.raises(AssertionError, match="not recorded before"):
            await store.add_call(make_call("a1"))
        await store.record(make_completion("a1"))
        with pytest.raises(AssertionError, match="does not add up"):
            await store.add_call(make_call("a1", rows=RowCounts(requested=2, accepted=1)))
        with pytest.raises(AssertionError, match="does not add up"):
            await store.complete_round(make_round(1, RowCounts(requested=1)))
        await store.complete_round(make_round(1))
        for add in (lambda: add_row(store, make_sample("a1-0", round=1)), lambda: add_row(store, make_rejection("a1-1", round=1))):
            with pytest.raises(AssertionError, match="round 1 is complete"):
                add()
        with pytest.raises(AssertionError, match="round 1 is complete"):
            await store.add_call(make_call("a1", round=1))
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


async def test_a_full_buffer_is_sealed_in_the_background_and_a_fuller_one_makes_calls_wait(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SEAL_ROWS", 2)
    async with Store(run) as opened:
        for request_id in ("a1", "a2", "a3"):
            await opened.record(make_completion(request_id))
        gate = Gate(monkeypatch)
        add_row(opened, make_sample("a1-0"))
        assert await opened.add_call(make_call("a1"))
        await gate.is_reached()
        assert await opened.add_call(make_call("a2"))
        waiting = asyncio.create_task(opened.add_call(make_call("a3")))
        await asyncio.sleep(0)
        assert not waiting.done()
        gate.release.set()
        assert await waiting
        assert [sample.id for sample in read_samples(run)] == ["a1-0"]
        assert call_ids(run)[0] == "a1"
    assert call_ids(run) == ["a1", "a2", "a3"]


@pytest.mark.parametrize(("limit", "value"), [("SEAL_BYTES", 100), ("SEAL_AFTER_S", 0.0)])
async def test_rows_are_sealed_by_their_bytes_and_by_their_age(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    monkeypatch.setattr(store, limit, value)
    gate = Gate(monkeypatch)
    gate.release.set()
    async with Store(run) as opened:
        await opened.record(make_completion("a1", "x" * 100))
        gate.entered.clear()
        await opened.add_call(make_call("a1", outcome=make_completion("a1", "x" * 100)))
        await gate.is_reached()
        # Behind the seal in the store's own thread.
        await opened.seal()
        assert call_ids(run) == ["a1"]
        assert len(committed(run.table("calls"))) == 1


async def test_cancelling_whoever_seals_neither_loses_nor_doubles_rows(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Store(run) as opened:
        add_row(opened, make_sample("a1-0"))
        await add_recorded_call(opened, "a1")
        gate = Gate(monkeypatch)
        running = asyncio.create_task(opened.seal())
        await gate.is_reached()
        add_row(opened, make_sample("a2-0"))
        queued = asyncio.create_task(opened.seal())
        await asyncio.sleep(0)
        running.cancel()
        queued.cancel()
        await asyncio.wait([running, queued])
        gate.release.set()
        await opened.complete_round(make_round(1))
    assert [sample.id for sample in read_samples(run)] == ["a1-0", "a2-0"]
    assert call_ids(run) == ["a1"]


async def test_a_call_is_written_after_all_its_rows_whenever_it_comes(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Store(run) as opened:
        for request_id in ("a1", "a2"):
            await opened.record(make_completion(request_id))
        add_row(opened, make_sample("a1-0"))
        await opened.add_call(make_call("a1"))
        gate = Gate(monkeypatch)
        sealing = asyncio.create_task(opened.seal())
        await gate.is_reached()
        add_row(opened, make_sample("a2-0"))
        await opened.add_call(make_call("a2"))
        gate.release.set()
        await sealing
        # Its rows came in time for their segment, and it waits for the next.
        assert [sample.id for sample in read_samples(run)] == ["a1-0", "a2-0"]
        assert call_ids(run) == ["a1"]
    assert [sample.id for sample in read_samples(run)] == ["a1-0", "a2-0"]
    assert call_ids(run) == ["a1", "a2"]


async def test_a_disk_that_refused_is_not_written_again_and_the_run_resumes(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    async def keep_on() -> None:
        async with Store(run) as opened:
            add_row(opened, make_sample("a1-0"))
            await add_recorded_call(opened, "a1")
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
        assert opened.replay("a1") == make_completion("a1")


async def test_a_seal_that_failed_in_the_background_is_told_to_the_very_next_call(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SEAL_AFTER_S", 0.0)

    async def keep_on() -> None:
        async with Store(run) as opened:
            await opened.record(make_completion("a1"))
            await opened.record(make_completion("a2"))
            gate = Gate(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            gate.release.set()
            await opened.add_call(make_call("a1"))
            await gate.is_reached()
            with pytest.raises(StoreError, match="No space left"):
                await opened.seal()  # behind the one that failed
            with pytest.raises(StoreError, match="No space left"):
                await opened.add_call(make_call("a2"))

    with pytest.raises(StoreError, match="No space left"):
        await keep_on()


async def test_leaving_on_an_error_seals_nothing_and_loses_nothing(run: RunDir) -> None:
    async def fail() -> None:
        async with Store(run) as opened:
            add_row(opened, make_sample("a1-0"))
            await add_recorded_call(opened, "a1")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert read_samples(run) == []
    async with Store(run) as opened:
        assert opened.replay("a1") == make_completion("a1")


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
    request = make_request("a prompt", seed=7)
    call = Call(request, make_origin("a1", request=request), make_completion("a1", "text \ud800"), RowCounts(2, 1, 0, 1))
    async with Store(run) as opened:
        await opened.record(call.outcome)
        await opened.add_call(call)
    assert read_calls(run) == [call]
