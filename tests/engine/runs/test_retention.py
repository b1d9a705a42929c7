import json
import os
from pathlib import Path

import pytest

from engine.errors import StoreError, UserError
from engine.rundir import RunDir
from engine.runs import retention
from engine.runs.inventory import Score, State, list_runs
from engine.runs.retention import Part, Plan, Use, freed_parts, plan, prune, require
from tests.engine.run_folders import LABELS, finish_run, make_rows, make_run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(tmp_path / "tickets", [make_rows(1, LABELS)])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Pruning.


def test_what_is_not_kept_is_freed_and_the_account_of_the_run_stays(run: RunDir) -> None:
    finish_run(run)
    before = sum(path.stat().st_size for path in run.root.rglob("*") if path.is_file())
    freed = prune(run, [Part.SAMPLES])
    assert set(freed.parts) == set(Part) - {Part.SAMPLES}
    assert names(run.tables) == {"samples", "rounds", "evaluations"}
    assert names(run.student) == {"final"}
    assert {"run.json", "summary.json", "finish.json", "reports", "tables", "student", "pruned.json"} <= names(run.root)
    assert not {"journal", "logs"} & names(run.root)
    after = sum(path.stat().st_size for path in run.root.rglob("*") if path.is_file() and path != run.pruned)
    assert freed.num_bytes == before - after > 5000


def test_looking_changes_nothing_and_says_what_will_be_lost(run: RunDir) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*")}
    found = plan(run, [Part.SAMPLES, Part.REJECTIONS])
    assert found.parts.keys() == {Part.CALLS, Part.PROMPTS, Part.JOURNAL, Part.CHECKPOINTS, Part.LOGS}
    assert found.lost == (Use.RESUME, Use.SHOW, Use.REPLAY)
    assert {path: path.stat().st_mtime_ns for path in run.root.rglob("*")} == before
    finish_run(run)
    assert Use.RESUME not in plan(run, [Part.SAMPLES]).lost, "a finished run is not resumed anyway"
    assert plan(run, [*Part]) == Plan({}, ())
    assert plan(run, set(Part) - {Part.LOGS}).lost == ()


def test_what_needs_a_freed_part_is_refused(run: RunDir) -> None:
    for use in Use:
        require(run, use)
    prune(run, [Part.SAMPLES])
    require(run, Use.EXPORT)
    for use, message in {
        Use.RESUME: "no calls, checkpoints, journal, prompts and rejections any more, so it can no longer be resumed; start anew",
        Use.SHOW: "no calls, prompts and rejections any more, so it can no longer show a row",
        Use.REPLAY: "so it can no longer replay refused rows",
        Use.EXPORT_REJECTIONS: "has no rejections any more",
    }.items():
        with pytest.raises(UserError, match="tickets was pruned .*" + message.split(", so")[0]) as caught:
            require(run, use)
        assert message in str(caught.value)


def test_a_second_pruning_adds_to_the_first(run: RunDir) -> None:
    prune(run, set(Part) - {Part.LOGS})
    assert freed_parts(run) == {Part.LOGS}
    assert prune(run, [Part.SAMPLES]).lost == (Use.RESUME, Use.SHOW, Use.REPLAY, Use.EXPORT_REJECTIONS)
    assert freed_parts(run) == set(Part) - {Part.SAMPLES}
    assert prune(run, [Part.SAMPLES]) == Plan({}, ())
    assert len(json.loads(run.pruned.read_bytes())) == 2
    assert plan(run, [Part.LOGS]).lost == (Use.EXPORT,)


@pytest.mark.parametrize("who", ["engine", "student", "compaction"])
def test_a_run_that_is_worked_on_is_left_alone(run: RunDir, who: str) -> None:
    before = set(run.root.rglob("*"))
    with run.lock(who), pytest.raises(UserError, match=rf"is being worked on \({who}\)"):
        prune(run, [Part.SAMPLES])
    assert {path for path in run.root.rglob("*") if path.suffix != ".lock"} == before
    assert not freed_parts(run)


@pytest.mark.parametrize("deleted", range(6))
def test_killed_in_the_middle_it_says_that_it_was_pruned_and_the_rest_can_be_freed(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, deleted: int
) -> None:
    class Killed(BaseException):
        pass

    count = 0

    def delete(path: Path) -> None:
        nonlocal count
        if count == deleted:
            next(file for file in path.rglob("*") if file.is_file()).unlink()  # half of it
            raise Killed
        count += 1
        monkeypatch.undo()
        retention._delete(path)  # pyright: ignore[reportPrivateUsage]
        monkeypatch.setattr(retention, "_delete", delete)

    monkeypatch.setattr(retention, "_delete", delete)
    with pytest.raises(Killed):
        prune(run, [Part.SAMPLES])
    monkeypatch.undo()
    assert freed_parts(run) == set(Part) - {Part.SAMPLES}
    with pytest.raises(UserError, match="was pruned"):
        require(run, Use.SHOW)
    (info,) = list_runs(run.root)
    assert info.state is State.STOPPED, "nothing is half there"
    prune(run, [Part.SAMPLES])
    assert names(run.tables) == {"samples", "rounds", "evaluations"}
    assert not list(run.root.rglob(".*"))


def test_a_disk_that_refuses_is_an_error_that_can_be_gone_on_from(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(retention, "_delete", refuse)
        with pytest.raises(StoreError, match="Read-only file system; the same command goes on"):
            prune(run, [Part.SAMPLES])
    assert prune(run, [Part.SAMPLES]).num_bytes > 0


def test_a_link_is_deleted_and_not_what_it_leads_to(run: RunDir, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "model.bin").write_bytes(b"x" * 10**6)
    run.checkpoint(1).symlink_to(elsewhere)
    assert plan(run, [Part.SAMPLES]).parts[Part.CHECKPOINTS] < 10_000
    prune(run, [Part.SAMPLES])
    assert (elsewhere / "model.bin").exists()


# The list of runs.


def test_runs_are_listed_with_state_rows_and_score(tmp_path: Path) -> None:
    rows = [make_rows(1, LABELS), make_rows(2, LABELS)]
    stopped, finished, running = (make_run(tmp_path / name, rows) for name in ("stopped", "finished", "running"))
    finish_run(finished)
    make_run(tmp_path / "new")
    with running.lock("engine"), running.lock("student"):
        found = {run.name: run for run in list_runs(tmp_path)}
    assert {name: run.state for name, run in found.items()} == {
        "stopped": State.STOPPED,
        "finished": State.FINISHED,
        "running": State.RUNNING,
        "new": State.STOPPED,
    }
    assert found["running"].holders == ("engine", "student")
    assert [(run.rounds, run.rows) for run in (found["stopped"], found["new"])] == [(2, 6), (0, 0)]
    assert found["stopped"].score == Score(0.25 + 2 / 10, "validation", 2)
    assert found["finished"].score == Score(0.8, "test", 1)
    assert found["new"].score == Score(0.25, "validation", 0)
    assert all(run.problem is None and run.created_at == "2026-01-01T00:00:00Z" for run in found.values())
    assert [run.path for run in list_runs(stopped.root)] == [str(stopped.root)]


def test_sizes_are_told_by_part_and_add_up(run: RunDir) -> None:
    (info,) = list_runs(run.root)
    assert info.num_bytes == sum(info.sizes.values()) == sum(path.stat().st_size for path in run.root.rglob("*") if path.is_file())
    assert [info.sizes[part] for part in ("journal", "checkpoints", "logs", "student")] == [1000] * 4
    assert info.sizes["calls"] == (run.table("calls") / "000001.parquet").stat().st_size
    prune(run, [Part.SAMPLES])
    (pruned,) = list_runs(run.root)
    assert pruned.sizes.keys() == {"samples", "student", "other"}
    assert pruned.freed == tuple(part for part in Part if part is not Part.SAMPLES)
    assert (pruned.state, pruned.rows) == (State.STOPPED, 3)


def test_broken_runs_do_not_hide_the_others(tmp_path: Path) -> None:
    runs = {name: make_run(tmp_path / name, [make_rows(1, LABELS)] * 2) for name in ("good", "manifest", "gap", "torn", "lost", "pruned")}
    runs["manifest"].run_json.write_text("{")
    (runs["gap"].table("samples") / "000001.parquet").unlink()
    (runs["torn"].table("rounds") / "000002.parquet").write_bytes(b"PAR1")
    runs["lost"].run_json.unlink()
    runs["pruned"].pruned.write_text("[[")
    (tmp_path / "no run").mkdir()
    (tmp_path / "teacher.log").write_text("")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    found = {run.name: run for run in list_runs(tmp_path)}
    assert found.keys() == runs.keys()
    assert found["good"].state is State.STOPPED
    for name, problem in {
        "manifest": "run.json is not what Reflux wrote there",
        "gap": "segment 1 is missing",
        "torn": "no Parquet file that can be read",
        "lost": "cannot read",
        "pruned": "pruned.json is not what Reflux wrote there",
    }.items():
        assert found[name].state is State.BROKEN
        assert problem in (found[name].problem or "")
    assert found["gap"].rounds == 2, "the rest is told"


def test_the_last_run_that_was_worked_on_comes_first(tmp_path: Path) -> None:
    for name, moment in (("a", 1000), ("b", 3000), ("c", 2000)):
        run = make_run(tmp_path / name)
        for path in run.root.rglob("*"):
            os.utime(path, (moment, moment))
    assert [(run.name, run.last_activity) for run in list_runs(tmp_path)] == [
        ("b", "1970-01-01T00:50:00Z"),
        ("c", "1970-01-01T00:33:20Z"),
        ("a", "1970-01-01T00:16:40Z"),
    ]


def test_looking_who_works_on_a_run_keeps_nobody_out(run: RunDir) -> None:
    with run.lock("engine"):
        assert run.holders() == ["engine"]
    assert run.holders() == []
    with run.lock("engine"):
        pass


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        list_runs(tmp_path / "nowhere")
    assert list_runs(tmp_path) == []
