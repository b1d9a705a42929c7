from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.records import Outcome, Request, RowCounts
from engine.rundir import RunDir
from engine.store import Store, compact, journal, read_rounds, read_samples, store
from engine.store.journal import encode_record
from tests.engine.store.builders import (
    add_rows,
    assert_whole,
    make_completion,
    make_failure,
    make_run,
    numbered_request,
    one_call,
    one_round,
    refuse_to_answer,
    work,
)
from tests.engine.store.disk import CrashError, Disk

NUM_ROUNDS, NUM_CALLS = 2, 3

steps = st.one_of(
    st.tuples(st.sampled_from(["answer", "rows", "call"]), st.integers(0, NUM_CALLS - 1)),
    st.tuples(st.sampled_from(["seal", "crash", "compact", "round"]), st.just(0)),
    st.tuples(st.sampled_from(["break the disk", "break a compaction"]), st.integers(0, 15)),
)
"""The last ones crash whatever comes to the disk's so manieth step from then on: a seal, a compaction, a journal's group."""


class Teacher:
    """Never says the same, and is not asked again for what was recorded."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.recorded: set[str] = set()
        self._num_asked = 0
        record = Store.record

        async def note(store: Store, outcome: Outcome) -> None:
            await record(store, outcome)
            self.recorded.add(outcome.request_id)

        patch.setattr(Store, "record", note)

    async def __call__(self, request: Request) -> Outcome:
        assert request.id not in self.recorded
        self._num_asked += 1
        return make_failure(request.id) if request.sampling.seed == 1 else make_completion(request.id, f"answer {self._num_asked}")


@settings(max_examples=25, deadline=None)
@given(st.lists(steps, min_size=3, max_size=20))
def test_rows_are_neither_lost_nor_doubled_in_whatever_order_things_happen(plan: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "GATHER_S", 0.0)
        patch.setattr(journal, "MAX_FILE_BYTES", 200)
        patch.setattr(store, "SEAL_ROWS", 1)
        run = make_run(Path(folder))
        disk, teacher = Disk(patch), Teacher(patch)
        while plan:
            try:
                asyncio.run(_follow(run, disk, teacher, plan))
            except CrashError:
                # The kill tore what was being written.
                if files := sorted(run.journal.iterdir(), key=lambda path: int(path.stem)):
                    files[-1].write_bytes(files[-1].read_bytes() + encode_record(make_completion("a1"))[:-1])
            disk.crash_at = None
        asyncio.run(work(run, teacher, NUM_ROUNDS, NUM_CALLS))
        compact(run)  # it also clears away what one left that was killed
        assert_whole(run, NUM_ROUNDS, NUM_CALLS)
        rows = sorted((sample.id, sample.text) for sample in read_samples(run))
        compact(run)
        asyncio.run(work(run, refuse_to_answer, NUM_ROUNDS, NUM_CALLS))
        assert_whole(run, NUM_ROUNDS, NUM_CALLS)
        assert sorted((sample.id, sample.text) for sample in read_samples(run)) == rows
        assert sum((record.rows for record in read_rounds(run)), RowCounts()).accepted == len(rows)


async def _follow(run: RunDir, disk: Disk, teacher: Teacher, plan: list[tuple[str, int]]) -> None:
    async with Store(run) as store:
        while plan:
            name, number = plan.pop(0)
            round = store.last_round + 1
            request = numbered_request(round, number)
            match name:
                case "seal":
                    await store.seal()
                case "compact":
                    compact(run)
                case "crash":
                    raise CrashError
                case "break the disk":
                    disk.crash_at = disk.steps + number
                case "break a compaction":
                    await store.seal()
                    disk.crash_at = disk.steps + number
                    compact(run)
                case _ if round > NUM_ROUNDS:
                    pass
                case "answer":
                    if store.replay(request.id) is None:
                        await store.record(await teacher(request))
                case "rows":
                    # Without their call, as a kill in mid-seal leaves them.
                    if (outcome := store.replay(request.id)) is not None:
                        add_rows(store, outcome, round)
                case "call":
                    await one_call(store, teacher, round, number)
                case _:
                    await one_round(store, teacher, round, NUM_CALLS)
