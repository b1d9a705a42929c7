"""An engine that asks ahead of the student, as a process that is killed in the middle of a round."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from engine.rundir import RunDir, read_json
from engine.runs.summary import Summary
from engine.stopping.turns import Asking
from engine.store import read_rounds
from engine.testing.server import ScriptedServer
from tests.engine.builders import LABELS, make_task
from tests.engine.kills import Onlooker, assert_rows_carry_the_reports_of_their_rounds, see_through
from tests.engine.reflux_process import reflux_process
from tests.engine.scripted_runs import FAKE_STUDENT

CALLS = 4
"""In a round, of three rows each."""


def write_task(folder: Path) -> Path:
    task = make_task()
    for name, rows in (("seed", task.seed), ("validation", task.validation), ("test", task.test)):
        lines = (json.dumps({"text": row.text, "label": row.label}) for row in rows)
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    path = folder / "task.toml"
    path.write_text(f"""
name = "killed"
[task]
domain = "messages"
labels = [{", ".join(f'{{name = "{label}"}}' for label in LABELS)}]
[task.data]
seed = "seed.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
[teacher]
model = "scripted"
[strategy]
rounds = 3
rows_per_round = {3 * CALLS}
rows_per_call = 3
[gates]
near_duplicates = false
[engine]
concurrency = 1
[loop]
max_staleness = 1
""")
    return path


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("killed_at", "reported_meanwhile"), [(CALLS + 1, True), (CALLS + 3, False)])
async def test_killed_in_the_middle_of_a_round_the_same_command_goes_on_with_it(
    killed_at: int, reported_meanwhile: bool, tmp_path: Path
) -> None:
    """Round 2 is asked while the student learns round 1. Whether the report on that is there when the engine comes back makes no difference
    to what round 2 answers. One request is in flight, so that none arrives behind the one that the kill comes with.
    """
    run, gates = RunDir(tmp_path / "run"), tmp_path / "gates"
    gates.mkdir()
    for round in (1, 2):
        os.mkfifo(gates / str(round))
    pid = 0

    def see(number: int) -> None:
        if number == killed_at and onlooker.life == 0:
            os.kill(pid, signal.SIGKILL)
        elif number == CALLS * 2 and not reported_meanwhile:
            (gates / "1").open("w").close()  # the last request of round 2
        elif number == CALLS * 2 + 1:
            (gates / "2").open("w").close()  # of round 3, which is asked before the report on round 2 is there

    onlooker = Onlooker(run, see)
    async with ScriptedServer(ledger=onlooker) as server:
        student = (*FAKE_STUDENT, "--gates", str(gates))
        arguments = ("run", write_task(tmp_path), "--out", run.root, "--endpoint", server.base_url)
        with reflux_process(student, *arguments) as process:
            pid = process.pid
            assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
        onlooker.died()
        assert [record.round for record in read_rounds(run)] == [1]
        assert run.reported_rounds() == [0]
        assert read_json(run.asking, Asking) == Asking(2, 0)
        if reported_meanwhile:
            (gates / "1").unlink()
        status, said = await see_through(student, *arguments)
        assert status == 0, said
    onlooker.assert_no_answer_was_asked_for_again()
    assert_rows_carry_the_reports_of_their_rounds(run)
    assert [(record.round, record.report) for record in read_rounds(run)] == [(1, 0), (2, 0), (3, 1)]
    summary = read_json(run.summary, Summary)
    assert (summary.rows.requested, summary.rows.accepted) == (9 * CALLS, 9 * CALLS)
    assert summary.curve.train_rows[-1] == 6 + 9 * CALLS
