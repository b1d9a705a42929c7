"""A real worker that is killed in the middle of an update while the engine asks the next round, each a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from engine.config import change_config
from engine.reports import WeaknessReport
from engine.rundir import RunDir, read_json
from engine.runs.summary import Summary
from engine.store import read_rounds, read_samples
from engine.testing.server import ScriptedServer
from student.mined import MinedLog
from tests.engine.kills import Onlooker, assert_rows_carry_the_reports_of_their_rounds, see_through
from tests.student.builders import make_config, make_rows, make_run

CALLS = 4
"""In a round, of three rows each."""
ROUNDS = 3


@pytest.mark.timeout(240)  # two or three processes load torch
@pytest.mark.parametrize("whom", ["worker", "engine"])
async def test_killed_in_the_middle_of_an_update_each_row_is_learned_once(whom: str, sentence_encoder: Path, tmp_path: Path) -> None:
    run, gate = RunDir(tmp_path / "run"), tmp_path / "gate"
    os.mkfifo(gate)

    def see(number: int) -> None:
        if number == CALLS + 2 and gate.exists():  # in the middle of round 2, when the student is in the middle of round 1
            with gate.open() as held:
                held.read()

    onlooker = Onlooker(run, see)
    async with ScriptedServer(ledger=onlooker) as server:
        config = make_config(
            tmp_path,
            sentence_encoder,
            student={"update": "incremental", "weights": "continue", "optimizer": "continue", "epochs": 2, "min_steps": 4},
            strategy={"rounds": ROUNDS, "rows_per_round": 3 * CALLS, "rows_per_call": 3},
            loop={"max_staleness": 1},
        )
        teacher = {"teacher.model": "scripted", "teacher.endpoint": server.base_url}
        make_run(run.root, change_config(config, {**teacher, "gates.near_duplicates": False, "engine.concurrency": 1}))
        command = ((sys.executable, "-m", "tests.student.dying_worker", whom, str(gate)), "run", run.root)
        status, said = await see_through(*command)
        if whom == "engine":
            assert status == -signal.SIGKILL
            assert run.reported_rounds() == [0]
            onlooker.died()
            status, said = await see_through(*command)
    assert status == 0, said
    assert not gate.exists(), "nobody was killed"
    if whom == "engine":
        onlooker.assert_no_answer_was_asked_for_again()
    else:
        assert "it is started again" in said
        assert onlooker.num_asked == ROUNDS * CALLS
    assert_rows_carry_the_reports_of_their_rounds(run)
    # What goes by the newest report, goes by one that was there: the last round's by that on round 1 at least.
    reports = [record.report for record in read_rounds(run)]
    assert reports[:2] == [0, 0]
    assert reports[2] in {1, 2}
    # A row is predicted once, before it is learned, and learned once in that round.
    num_rows = 3 * CALLS * ROUNDS
    predicted = Counter(mined.row.text for mined in MinedLog(run.student / "mined", 0, 0).read(ROUNDS, 1000) if mined.round)
    assert predicted == Counter(sample.text for sample in read_samples(run))
    assert predicted.total() == num_rows
    last = read_json(run.report(ROUNDS), WeaknessReport)
    assert last.num_train_rows == len(make_rows(2)) + num_rows
    assert read_json(run.summary, Summary).rows.accepted == num_rows
