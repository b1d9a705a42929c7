import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.records import Finish
from engine.rundir import RunDir, write_json
from engine.runs.inventory import State, list_runs
from engine.runs.standing import Observer
from engine.status import Stage, write_status
from tests.engine.builders import make_report
from tests.engine.run_folders import LABELS, finish_run, make_rows, make_run
from tests.engine.views.dashboard.statuses import beating, make_status

WORKER = """
import sys, time
from pathlib import Path
from engine.rundir import RunDir
from engine.status import write_status
from tests.engine.views.dashboard.statuses import beating
run = RunDir(Path(sys.argv[1]))
with run.lock("engine"):
    write_status(run.status, beating())
    print(flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(tmp_path / "tickets", [make_rows(1, LABELS)], wall_s=90.0)


def test_a_run_under_way_and_one_that_was_killed(run: RunDir) -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER, str(run.root)], stdout=subprocess.PIPE) as worker:
        try:
            assert worker.stdout is not None
            worker.stdout.readline()
            alive = Observer(run).look()
        finally:
            worker.send_signal(signal.SIGKILL)
    assert (alive.status.state, alive.holders) == (Stage.ASKING, ("engine",))
    assert alive.heartbeat_age_s is not None
    assert alive.heartbeat_age_s < 30
    assert alive.status.round_left is not None
    dead = Observer(run).look().status
    assert dead.state is Stage.DIED
    assert dead.phase == "teacher writes round 3; then its process ended without a word"
    assert (dead.tokens_per_s, dead.limit, dead.round_left, dead.run_left, dead.pids) == (0.0, None, None, None, {})
    assert dead.rows == alive.status.rows


def test_a_run_of_another_version_is_told_from_its_tables(run: RunDir) -> None:
    write_json(run.report(0), make_report(0))
    write_json(run.report(1), make_report(1, loss=0.5))
    standing = Observer(run).look()
    status = standing.status
    assert (status.state, standing.heartbeat_age_s) == (Stage.STOPPED, None)
    assert (status.round, status.rounds, status.rows.accepted, status.rows.rejected, status.wall_s) == (1, 10, 3, 1, 90.0)
    assert [point.round for point in status.curve] == [0, 1]
    assert [found.label for found in status.weakest] == ["cancel", "change", "track"]


def test_a_finished_run_says_why_it_ended(run: RunDir) -> None:
    finish_run(run)
    write_status(run.status, make_status())  # whatever was written last
    standing = Observer(run).look()
    assert (standing.status.state, standing.status.phase) == (Stage.FINISHED, "enough")


def test_a_run_that_was_stopped(run: RunDir) -> None:
    write_status(run.status, make_status(state=Stage.STOPPED, phase="stopped by the user"))
    assert Observer(run).look().status.state is Stage.STOPPED
    # Finished in its own words, and then its summary was lost: it can go on.
    write_status(run.status, make_status(state=Stage.FINISHED, phase="enough"))
    assert Observer(run).look().status.state is Stage.STOPPED


def test_who_writes_no_status_is_at_work(run: RunDir) -> None:
    with run.lock("engine"):
        unknown = Observer(run).look().status
        assert (unknown.state, unknown.rows.accepted) == (Stage.WORKING, 3)
        assert "tells nothing" in unknown.phase
        for written in (make_status(state=Stage.STOPPED), make_status(pids={"engine": 2**22 + 1})):
            write_status(run.status, written)
            assert Observer(run).look().status.state is Stage.WORKING
        # Process ids of another machine say nothing here.
        write_status(run.status, beating(pids={"engine": 2**22 + 1}, host="elsewhere"))
        assert Observer(run).look().status.state is Stage.ASKING


@pytest.mark.parametrize("is_finished", [True, False])
def test_it_agrees_with_the_list_of_runs(run: RunDir, is_finished: bool) -> None:
    if is_finished:
        finish_run(run)
    (info,) = list_runs(run.root)
    found = Observer(run).look().status.state
    assert (info.state, found) == ((State.FINISHED, Stage.FINISHED) if is_finished else (State.STOPPED, Stage.STOPPED))


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run directory"):
        Observer(RunDir(tmp_path))
    begun = RunDir(tmp_path / "begun")
    begun.create()
    with pytest.raises(UserError, match="has never begun"):
        Observer(begun)


def test_an_observer_sees_what_changes(run: RunDir) -> None:
    observer = Observer(run)
    with run.lock("engine"):
        write_status(run.status, beating())
        first = observer.look().status
        write_status(run.status, replace(beating(), phase="student learns round 3", state=Stage.TRAINING))
        assert (first.state, observer.look().status.state) == (Stage.ASKING, Stage.TRAINING)
    write_json(run.finish, Finish(1, 1, "enough"))
    assert observer.look().status.state is Stage.DIED
