"""Runs side by side, and the commands that write pages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.html_report.svg import Sheet
from engine.rundir import RunDir
from tests.engine.command_line import call, refused
from tests.engine.html_report.builders import make_full_run
from tests.engine.html_report.inspection import Page
from tests.engine.html_report.undrawn import leave_undrawn

DATA = {"seed": "a", "validation": "b", "test": "c"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, RunDir]:
    folder = tmp_path_factory.mktemp("runs")
    return make_full_run(folder / "slow", 1, data=DATA), make_full_run(folder / "fast", 2, f1=0.45, data=DATA)


def test_figures_of_two_runs_for_programs(runs: tuple[RunDir, RunDir]) -> None:
    found = json.loads(call("compare", *(run.root for run in runs), "--json").stdout)
    slow, fast = found["runs"]
    assert (slow["method"], slow["seed"], slow["teacher"], slow["state"], slow["kept_round"]) == ("pgkd", 0, "teacher-model", "finished", 1)
    assert (slow["rows"]["requested"], slow["rows"]["accepted"], slow["yield_share"]) == (6, 3, 0.5)
    assert (slow["prompt_tokens"], slow["completion_tokens"], slow["generation_s"], slow["train_s"]) == (4000, 1000, 8.0, 11.0)
    assert slow["test"]["gain"] == pytest.approx(0.1)
    assert slow["test"]["gain_per_1000_tokens"] == pytest.approx(0.02)
    assert fast["test"]["gain_per_1000_tokens"] == pytest.approx(0.02)
    assert fast["test"]["after"]["intervals"]["macro_f1"] == {"low": pytest.approx(0.7), "high": pytest.approx(0.8)}
    assert [(point["round"], point["tokens"], point["accepted"], point["busy_s"]) for point in fast["curve"]] == [
        (0, 0, 0, 5.0),
        (1, 5000, 3, 19.0),
        (2, 10000, 6, 34.0),
    ]
    assert found["not_comparable"] == []
    assert found["classes"]["split"] == "test"
    (cancel,) = [shift for shift in found["classes"]["shifts"] if shift["label"] == "cancel"]
    assert cancel == {"label": "cancel", "support": 20, "first": pytest.approx(0.5), "second": pytest.approx(0.65)}


def test_for_people(runs: tuple[RunDir, RunDir]) -> None:
    shown = " ".join(call("compare", *(run.root for run in runs)).output.split())
    assert "test after 0.600 (0.550 to 0.650) 0.750 (0.700 to 0.800)" in shown
    assert "teacher tokens 5,000 10,000" in shown
    assert "cancel 20 0.500 0.650 +0.150" in shown
    assert "Not comparable" not in shown


def test_runs_on_other_rows_or_tasks_are_named(runs: tuple[RunDir, RunDir], tmp_path: Path) -> None:
    other_test = make_full_run(tmp_path / "test", 1, data=DATA | {"test": "d"}, is_finished=False)
    other_task = make_full_run(tmp_path / "task", 1, ("yes", "no"), data=DATA)
    earlier = make_full_run(tmp_path / "earlier", 1)
    found = json.loads(call("compare", runs[0].root, other_test.root, other_task.root, earlier.root, "--json").stdout)
    assert found["not_comparable"] == [
        f"{other_test.root} has other test rows than {runs[0].root}: their scores on test cannot be compared",
        f"{other_task.root} has another task (other labels) than {runs[0].root}: none of their scores can be compared",
    ]
    assert found["classes"] is None
    assert found["runs"][1]["test"] is None
    assert "Not comparable: " in call("compare", runs[0].root, other_test.root).output


def test_what_cannot_be_compared_is_refused(runs: tuple[RunDir, RunDir], tmp_path: Path) -> None:
    assert "two or more different runs" in refused("compare", runs[0].root)
    assert "two or more different runs" in refused("compare", runs[0].root, runs[0].root)
    assert f"no run (a folder with run.json): {tmp_path}" in refused("compare", runs[0].root, tmp_path)
    assert "a page is written of runs only" in refused("compare", tmp_path, runs[0].root, tmp_path / "rows.csv", "--html")
    assert "say --html too" in refused("compare", runs[0].root, runs[1].root, "--out", "page.html")


def test_a_page_of_several_runs(runs: tuple[RunDir, RunDir], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert json.loads(call("compare", *(run.root for run in runs), "--html", "--out", path, "--json").stdout) == {"html": str(path)}
    page = Page(path.read_text())
    (plot,) = page.plots
    assert "A slow: from 0.500 after round 0 to 0.600 after round 1, for 5,000 tokens; B fast: from 0.550" in plot
    assert "0.750 (0.700 to 0.800)" in page.text


def test_a_page_of_one_run_lies_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sheet, "draw", leave_undrawn)
    run = make_full_run(tmp_path / "run", 0, is_finished=False)
    assert "report.html" in call("report", run.root, "--html").stderr.replace("\n", "")
    assert "tickets" in Page((run.root / "report.html").read_text()).text
    assert "there is no folder" in refused("report", run.root, "--html", "--out", tmp_path / "no/page.html")
    assert "is a folder" in refused("report", run.root, "--html", "--out", tmp_path)
