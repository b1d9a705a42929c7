import json
from pathlib import Path

import pytest

from engine.config import PgkdConfig, SamplingConfig
from engine.desk import Desk
from engine.gates import Gatekeeper
from engine.prompting import Prompter
from engine.records import Assignment, Completion, Failure, FailureReason, FinishReason, Outcome, Request, RowCounts, Timings, Usage
from engine.rundir import RunDir
from engine.store import Store, connect, read_samples
from engine.strategies.pgkd import Pgkd
from prompts import PromptLibrary
from tests.engine.builders import LABELS, make_report, make_task

TIMINGS = Timings(0.0, 0.1, 1)
ASSIGNMENT = Assignment("r0001-a0000", round=1, report=0, weakness="class:track", focus=("track",), num_rows=3)


async def work_off(root: Path, reply: str | FailureReason) -> RowCounts:
    """One assignment of three rows, answered like this."""
    run = RunDir(root)
    run.create()
    task = make_task()
    async with Store(run) as store:

        async def send(request: Request) -> Outcome:
            outcome: Outcome = (
                Failure(request.id, reply, "scripted", TIMINGS)
                if isinstance(reply, FailureReason)
                else Completion(request.id, reply, FinishReason.STOP, Usage(10, 5), TIMINGS)
            )
            await store.record(outcome)
            return outcome

        prompter = Prompter(PromptLibrary(), "teacher", SamplingConfig(), seed=1)
        gatekeeper = Gatekeeper(LABELS, 100, known=(row.text for row in task.seed), held_out=(row.text for row in task.test))
        desk = Desk(Pgkd(PgkdConfig(), task, prompter, 1), prompter, gatekeeper, store, send)
        (call,) = await desk.work_off(ASSIGNMENT, make_report())
    return call.rows


def rows(*texts: str, label: str = "track") -> str:
    return json.dumps([{"text": text, "label": label} for text in texts])


@pytest.mark.parametrize(
    ("reply", "counts"),
    [
        (rows("a", "b", "c"), RowCounts(3, accepted=3)),
        (rows("a", "b"), RowCounts(3, accepted=2, failed=1)),
        (rows("a", "b", "c", "d", "e"), RowCounts(3, accepted=3, surplus=2)),
        (rows("a", "A!", "test text 0 about track"), RowCounts(3, accepted=1, rejected=2)),
        (rows("a", "b", "c", label="unheard of"), RowCounts(3, rejected=3)),
        ("no rows today", RowCounts(3, rejected=1, failed=2)),
        ("", RowCounts(3, failed=3)),
        (FailureReason.TIMEOUT, RowCounts(3, failed=3)),
    ],
)
async def test_every_row_ends_once(tmp_path: Path, reply: str | FailureReason, counts: RowCounts) -> None:
    assert await work_off(tmp_path, reply) == counts
    with connect(RunDir(tmp_path)) as connection:
        (reasons,) = connection.execute("select count(*) from rejections").fetchall()
        (calls,) = connection.execute("select count(*) from calls").fetchall()
    assert reasons == (counts.rejected + counts.surplus,)
    assert calls == (1,)


async def test_a_row_knows_where_it_comes_from(tmp_path: Path) -> None:
    await work_off(tmp_path, rows("a"))
    (sample,) = read_samples(RunDir(tmp_path))
    origin = sample.origin
    assert (origin.round, origin.report, origin.assignment, origin.weakness) == (1, 0, "r0001-a0000", "class:track")
    assert (origin.strategy, origin.teacher) == ("pgkd", "teacher")
    assert origin.template.startswith("pgkd/generate@")
    assert sample.id == f"{origin.request_id}-0"


async def test_a_replayed_assignment_writes_nothing_twice(tmp_path: Path) -> None:
    first = await work_off(tmp_path, rows("a", "a", "b"))
    second = await work_off(tmp_path, rows("a", "a", "b"))
    assert first == second == RowCounts(3, accepted=2, rejected=1)
    assert [sample.text for sample in read_samples(RunDir(tmp_path))] == ["a", "b"]
