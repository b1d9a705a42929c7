"""`reflux status` and `reflux watch`, as a user meets them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from engine.cli import app, watching
from engine.errors import UserError
from engine.rundir import RunDir
from engine.status import Notice, Point, Stage, Status, write_status
from tests.engine.command_line import call
from tests.engine.run_folders import LABELS, finish_run, make_rows, make_run
from tests.engine.views.dashboard.statuses import NOW, beating, make_status


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(tmp_path / "tickets", [make_rows(1, LABELS)])


def plays(run: RunDir, statuses: Iterator[Status], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time that `watch` waits, the run has come to the next of them."""

    def sleep(_seconds: float) -> None:
        if (status := next(statuses, None)) is not None:
            write_status(run.status, status)

    monkeypatch.setattr(watching.time, "sleep", sleep)


def test_the_status_for_programs(run: RunDir) -> None:
    write_status(run.status, beating())
    with run.lock("engine"):
        value: dict[str, Any] = json.loads(call("status", run.root, "--json").stdout)
    fields = set(Status.__dataclass_fields__) | {"run", "heartbeat_age_s", "at_work"}
    assert set(value) == fields
    assert (value["state"], value["run"], value["at_work"]) == ("asking", str(run.root), ["engine"])
    assert 0 <= value["heartbeat_age_s"] < 30
    assert value["rows"] == {"requested": 1692, "accepted": 1402, "rejected": 250, "failed": 40, "surplus": 12}
    assert value["servers"][0]["kv_cache_use"] == 0.93
    assert value["curve"][-1] == pytest.approx({"round": 2, "macro_f1": 0.842, "low": 0.802, "high": 0.872, "loss": 0.158})
    assert value["run_left"] == {"low_s": 480.0, "high_s": 1900.0}
    assert value["limit"] == "memory"


@pytest.mark.parametrize("state", [Stage.STOPPED, Stage.DIED, Stage.FINISHED])
def test_the_status_for_people_whatever_the_state(run: RunDir, state: Stage) -> None:
    write_status(run.status, make_status(state=Stage.ASKING if state is Stage.DIED else state, name="\x1b[2Jtickets"))
    if state is Stage.FINISHED:
        finish_run(run)
    shown = call("status", run.root).output
    assert f"{state} · 13 min" in shown
    assert "intent_19" in shown  # not cut to a terminal's height
    assert "\x1b" not in shown


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    for command in ("status", "watch"):
        result = CliRunner().invoke(app, [command, str(tmp_path)])
        assert isinstance(result.exception, UserError)
        assert "is no run directory" in str(result.exception)


def test_a_dead_run_is_not_waited_for(run: RunDir) -> None:
    write_status(run.status, make_status())
    shown = call("watch", run.root).output
    assert "died: teacher writes round 3; then its process ended without a word" in shown
    assert "The run is not under way: its process ended without a word" in shown


def test_a_run_is_followed_to_its_end_in_lines(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    first = beating()
    second = replace(first, state=Stage.TRAINING, phase="student learns round 3", notices=(Notice(NOW, "\x1b[31ma notice"),))
    third = replace(second, curve=(*first.curve, Point(3, 0.9, None, None, 0.1)))
    write_status(run.status, first)
    lock = run.lock("engine")
    lock.__enter__()

    def play() -> Iterator[Status]:
        yield second
        yield third
        lock.__exit__(None, None, None)
        yield replace(third, state=Stage.STOPPED, phase="the disk is full")

    plays(run, play(), monkeypatch)
    told = call("watch", run.root, "--plain").output.splitlines()
    assert [line.partition(";")[0] for line in told if "changed since" not in line and "server is back" not in line] == [
        "student 0: validation macro F1 0.412 (0.372 to 0.442), loss 0.588",
        "student 1: validation macro F1 0.731 (0.691 to 0.761), loss 0.269",
        "student 2: validation macro F1 0.842 (0.802 to 0.872), loss 0.158",
        "asking: teacher writes round 3",
        "note: \\x1b[31ma notice",
        "training: student learns round 3",
        "student 3: validation macro F1 0.900, loss 0.100",
        "stopped: the disk is full",
        "The run is not under way: it was stopped. The same `reflux run` goes on with it.",
    ]


def test_a_run_is_drawn_on_a_terminal(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(force_terminal=True, width=80, height=24, record=True, _environ={"TERM": "xterm"})
    monkeypatch.setattr(watching, "messages", console)
    write_status(run.status, make_status(state=Stage.STOPPED, phase="stopped by the user"))
    call("watch", run.root)
    shown = console.export_text()
    assert "stopped by the user" in shown
    assert "intent_00" in shown
