from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.records import Outcome, Request, RowCounts
from engine.rundir import RunDir
from engine.store import Store, compact, journal, read_rounds, read_samples
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

NUM_ROUNDS, NUM_CALLS = 2, 3

steps = st.one_of(
    st.tuples(st.sampled_from(["answer", "rows", "call"]), st.integers(0, NUM_CALLS - 1)),
    st.tuples(st.sampled_from(["seal", "crash", "compact", "round"]), st.just(0)),
)


class CrashError(Exception):
    pass


class Teacher:
    """Refuses to answer twice, as all that it says is recorded, and never says the same."""

    def __init__(self) -> None:
        self._asked: set[str] = set()

    async def __call__(self, request: Request) -> Outcome:
        assert request.id not in self._asked
        self._asked.add(request.id)
        return make_failure(request.id) if request.sampling.seed == 1 else make_completion(request.id, f"answer {len(self._asked)}")


@settings(max_examples=15, deadline=None)
@given(st.lists(steps, max_size=15))
def test_rows_are_neither_lost_nor_doubled_in_whatever_order_things_happen(plan: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        patch.setattr(journal, "GATHER_S", 0.0)
        patch.setattr(journal, "MAX_FILE_BYTES", 200)
        run = make_run(Path(folder))
        teacher = Teacher()
        while plan:
            try:
                asyncio.run(_follow(run, teacher, plan))
            except CrashError:
                # The kill tore what was being written.
                newest = max(run.journal.iterdir(), key=lambda path: int(path.stem))
                newest.write_bytes(newest.read_bytes() + encode_record(make_completion("a1"))[:-1])
        asyncio.run(work(run, teacher, NUM_ROUNDS, NUM_CALLS))
        assert_whole(run, NUM_ROUNDS, NUM_CALLS)
        rows = sorted((sample.id, sample.text) for sample in read_samples(run))
        compact(run)
        asyncio.run(work(run, refuse_to_answer, NUM_ROUNDS, NUM_CALLS))
        assert_whole(run, NUM_ROUNDS, NUM_CALLS)
        assert sorted((sample.id, sample.text) for sample in read_samples(run)) == rows
        assert sum((record.rows for record in read_rounds(run)), RowCounts()).accepted == len(rows)


async def _follow(run: RunDir, teacher: Teacher, plan: list[tuple[str, int]]) -> None:
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
