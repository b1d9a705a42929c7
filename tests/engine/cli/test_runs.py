"""The commands about whole runs, as a user meets them."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.cli import app, runs
from engine.rundir import RunDir
from engine.runs.retention import Part, freed_parts
from tests.engine.command_line import call, refused
from tests.engine.run_folders import LABELS, finish_run, make_config, make_rows, make_run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(tmp_path / "runs/tickets", [make_rows(1, LABELS)])


def value(*arguments: object) -> Any:
    return json.loads(call(*arguments, "--json").stdout)


def test_runs_are_listed_for_people_and_programs(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.root.parent.parent)
    make_run(run.root.parent / "\x1b[31mred").run_json.write_text("{")
    (listed,) = [info for info in value("runs") if info["name"] == "tickets"]
    assert (listed["state"], listed["rows"], listed["rounds"], listed["score"]["split"]) == ("stopped", 3, 1, "validation")
    assert listed["sizes"]["samples"] > 0
    with run.lock("engine"):
        shown = call("runs", run.root.parent).output
    assert "at work: engine" in shown
    assert "0.350 on validation" in shown
    assert "run.json is not what Reflux wrote there" in shown
    assert "\x1b" not in shown


def test_no_runs(tmp_path: Path) -> None:
    assert f"no runs in {tmp_path}" in call("runs", tmp_path).output.replace("\n", "")
    assert value("runs", tmp_path) == []
    assert "nowhere: no such folder" in refused("runs", tmp_path / "nowhere")


def test_rows_are_exported(run: RunDir, tmp_path: Path) -> None:
    shown = call("export", run.root, tmp_path / "rows", "--license", "CC-BY-4.0", "--language", "en").output
    assert "3 rows" in shown
    assert 'license: "cc-by-4.0"' in (tmp_path / "rows/README.md").read_text()
    done = value("export", run.root, tmp_path / "rows", "--overwrite", "--jsonl", "--with-rejections", "--where", "label = 'track'")
    assert (done["rows"], done["classes"], done["rejections"]) == (1, {"track": 1}, 1)
    assert done["files"] == ["README.md", "data/train-00000-of-00001.jsonl", "rejections/train-00000-of-00001.jsonl"]
    assert "is not empty" in refused("export", run.root, tmp_path / "rows")
    assert "is no run directory" in refused("export", tmp_path, tmp_path / "out")


def test_hostile_labels_are_shown_as_they_are(tmp_path: Path) -> None:
    labels = ("\x1b[31mred", "[bold]not[/bold]")
    run = make_run(tmp_path / "run", [make_rows(1, labels)], make_config(labels))
    shown = call("export", run.root, tmp_path / "rows").output
    assert "\\x1b[31mred" in shown
    assert "[bold]not[/bold]" in shown


def test_nothing_is_deleted_unless_it_is_meant(run: RunDir) -> None:
    assert "say what is to stay, e.g. --keep samples; parts: samples, rejections, calls" in refused("prune", run.root)
    assert "say --yes to delete" in refused("prune", run.root, "--keep", "samples")
    assert "say --yes to delete" in refused("prune", run.root, "--keep", "samples", "--json")
    found = value("prune", run.root, "--keep", "samples", "--dry-run")
    assert found["freed"] is False
    assert found["num_bytes"] == sum(found["parts"].values()) > 3000
    assert CliRunner().invoke(app, ["prune", str(run.root), "--keep", "everything"]).exit_code == 2
    assert not freed_parts(run)
    assert not run.pruned.exists()


@pytest.mark.parametrize(("answer", "is_freed"), [("y\n", True), ("n\n", False)])
def test_a_person_is_asked(run: RunDir, monkeypatch: pytest.MonkeyPatch, answer: str, is_freed: bool) -> None:
    class Terminal:
        @staticmethod
        def isatty() -> bool:
            return True

    monkeypatch.setattr(runs, "sys", type("", (), {"stdin": Terminal}))
    shown = CliRunner().invoke(app, ["prune", str(run.root), "--keep", "samples"], input=answer).output
    assert shown.index("can no longer be resumed") < shown.index("Delete?"), "what is lost is said before"
    assert (freed_parts(run) == set(Part) - {Part.SAMPLES}) is is_freed


def test_what_is_left_of_a_pruned_run_says_so(run: RunDir, tmp_path: Path) -> None:
    size = value("prune", run.root, "--keep", "samples", "--dry-run")["num_bytes"]
    assert value("prune", run.root, "--keep", "samples", "--yes")["num_bytes"] == size
    assert "nothing to free" in call("prune", run.root, "--keep", "samples", "--yes").output
    assert "pruned: rejections, calls, prompts" in " ".join(call("runs", run.root.parent).output.split())
    report = " ".join(call("report", run.root).output.split())
    assert "is not finished, and can no longer be resumed" in report
    assert "was pruned: it has no calls" in report
    assert "goes on with it" not in report
    assert "calls" in value("report", run.root)["freed"]
    assert "was pruned" in refused("show", run.root, "010000-0")
    assert "was pruned" in refused("replay", run.root)
    assert "this run was pruned" in call("query", run.root, "select count(*) from calls").stderr
    assert call("query", run.root, "select count(*) from samples", "--csv").stdout.splitlines()[-1] == "3"
    call("export", run.root, tmp_path / "rows")


def test_a_pruned_run_is_not_resumed(run: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = "".join(json.dumps({"text": f"{label} text", "label": label}) + "\n" for label in LABELS)
    for name in ("seed", "validation", "test"):
        (tmp_path / f"{name}.jsonl").write_text(rows)
    labels = ", ".join(f'{{name = "{label}"}}' for label in LABELS)
    (tmp_path / "run.toml").write_text(
        f'name = "tickets"\n[task]\ndomain = "messages"\nlabels = [{labels}]\n[task.data]\nseed = "seed.jsonl"\n'
        'validation = "validation.jsonl"\ntest = "test.jsonl"\n[teacher]\nmodel = "teacher-model"\nendpoint = "http://127.0.0.1:9/v1"\n'
    )
    call("prune", run.root, "--keep", "samples", "--yes")

    async def found(*_: object) -> list[object]:
        return []

    monkeypatch.setattr("engine.api.find_models", found)
    monkeypatch.setattr("student.check_encoder", nothing)
    before = set(run.root.rglob("*"))
    assert "it can no longer be resumed; start anew in another folder with --out" in refused(
        "run", tmp_path / "run.toml", "--out", run.root
    )
    assert set(run.root.rglob("*")) == before


def nothing(*_: object) -> None:
    pass


def test_a_finished_run_that_was_pruned_is_still_told(run: RunDir) -> None:
    finish_run(run)
    shown = call("prune", run.root, "--keep", "samples", "--yes").output
    assert "can no longer be resumed" not in shown
    (info,) = value("runs", run.root)
    assert (info["state"], info["score"]) == ("finished", {"macro_f1": 0.8, "split": "test", "round": 1})


@pytest.mark.parametrize("command", ["runs", "export", "prune"])
def test_every_command_shows_an_example(command: str) -> None:
    assert f"Example:\n  reflux {command}" in call(command, "--help").output
