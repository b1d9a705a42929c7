"""The real thing, small: vLLM with the shipped teacher, two short rounds, stopped once with Ctrl-C and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "examples" / "quickstart" / "quickstart.toml"
# So few requests would name no weakness of their own, unless told to.
SETTINGS = ("strategy.rounds=2", "strategy.rows_per_round=64", "strategy.focus=true", "student.epochs=2", "engine.concurrency=8")
REFLUX = (sys.executable, "-m", "engine.cli")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def start_run(out: Path) -> subprocess.Popen[str]:
    settings = [argument for setting in SETTINGS for argument in ("--set", setting)]
    command = [*REFLUX, "run", str(CONFIG), "--out", str(out), "--json", *settings]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def reflux(*arguments: str) -> str:
    return subprocess.run([*REFLUX, *arguments], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def wait_for(condition: Iterator[bool], process: subprocess.Popen[str]) -> None:
    """Until the condition holds; fails with the run's own words if it ends before."""
    for is_true in condition:
        if is_true:
            return
        if process.poll() is not None:
            pytest.fail(f"the run ended early:\n{process.communicate()[1]}")
        time.sleep(0.1)


def files_under(folder: Path, pattern: str) -> Iterator[bool]:
    while True:
        yield any(folder.glob(pattern))


def processes_of(run: Path) -> list[str]:
    """Command lines of processes that belong to this run."""
    found: list[str] = []
    for process in psutil.process_iter():
        try:
            command, environment = " ".join(process.cmdline()), process.environ()
        except psutil.Error:
            continue
        if str(run) in command or str(run) in environment.get("REFLUX_SERVER_OWNER", ""):
            found.append(command)
    return found


def test_the_loop_runs_stops_and_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = start_run(run)
    wait_for(files_under(run / "tables" / "rounds", "*.parquet"), first)
    counted = json.loads(reflux("query", str(run), "select label, count(*) as n from samples group by 1", "--json"))
    assert sum(row["n"] for row in counted) > 0
    assert first.poll() is None, "the query was meant to run beside the run"
    first.send_signal(signal.SIGINT)
    _, messages = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "The same command goes on" in messages
    assert processes_of(run) == []
    assert not (run / "summary.json").exists()
    asked_before = json.loads(reflux("query", str(run), "select count(*) as n from calls", "--json"))[0]["n"]

    second = start_run(run)
    output, messages = second.communicate(timeout=600)
    assert second.returncode == 0, messages
    assert processes_of(run) == []
    summary: dict[str, Any] = json.loads(output)
    assert summary == json.loads((run / "summary.json").read_text())
    check_summary(summary)
    assert asked_before > 0
    check_tables(run, summary)
    check_student(run, summary)


def check_summary(summary: dict[str, Any]) -> None:
    rows, teacher = summary["rows"], summary["teacher"]
    assert rows["requested"] == 128 == rows["accepted"] + rows["rejected"] + rows["failed"]
    assert rows["accepted"] > 90
    assert (summary["rounds"], teacher["calls"]) == (2, 16)
    assert teacher["prompt_tokens"] > 16 * 500
    assert teacher["completion_tokens"] > 128 * 10
    assert summary["wall_s"] > 0
    for side in ("before", "after"):
        assert set(summary["student"][side]["test"]) >= {"accuracy", "macro_f1", "weighted_f1"}
    assert summary["student"]["after"]["test"]["macro_f1"] > summary["student"]["before"]["test"]["macro_f1"]


def check_tables(run: Path, summary: dict[str, Any]) -> None:
    """What the tables say is what the summary says, and no request was asked twice."""
    sql = "select count(*) as calls, count(distinct request_id) as different, sum(rows_accepted)::int as accepted from calls"
    (calls,) = json.loads(reflux("query", str(run), sql, "--json"))
    assert calls == {"calls": 16, "different": 16, "accepted": summary["rows"]["accepted"]}
    (samples,) = json.loads(reflux("query", str(run), "select count(*) as n, count(distinct id) as ids from samples", "--json"))
    assert samples["n"] == samples["ids"] == summary["rows"]["accepted"]


def check_student(run: Path, summary: dict[str, Any]) -> None:
    """The student taken home scores what the summary says, and labels a line of text."""
    scored = json.loads(reflux("evaluate", str(run), str(ROOT / "examples/quickstart/data/test.jsonl"), "--json"))
    assert scored["scores"]["macro_f1"] == pytest.approx(summary["student"]["after"]["test"]["macro_f1"], abs=0.005)
    predicted = subprocess.run(
        [*REFLUX, "predict", str(run / "student" / "final"), "-"],
        input="where is my parcel\n", capture_output=True, text=True, check=True, cwd=ROOT, env=dict(os.environ),
    )  # fmt: skip
    (line,) = predicted.stdout.splitlines()
    assert set(json.loads(line)) == {"text", "predicted", "confidence"}
    assert "before" in reflux("report", str(run))
