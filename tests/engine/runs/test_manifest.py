from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config import RunConfig, TeacherConfig
from engine.errors import UserError
from engine.records import Example
from engine.rundir import RunDir, read_json, write_json
from engine.runs.manifest import Manifest, begin
from tests.engine.builders import LABELS, make_task


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Begun with `make_config()` and the rows of `make_task()`."""
    run = RunDir(tmp_path)
    run.create()
    begin(run, make_config(), make_task())
    return run


def make_config(**sections: dict[str, Any]) -> RunConfig:
    content: dict[str, Any] = {
        "name": "test",
        "task": {
            "domain": "messages",
            "labels": [{"name": label} for label in LABELS],
            "data": {"seed": "seed.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"},
        },
        "teacher": {"model": "scripted"},
    }
    for name, section in sections.items():
        content[name] = content.get(name, {}) | section
    return RunConfig.model_validate(content)


def test_the_same_configuration_goes_on_and_changes_nothing(run: RunDir) -> None:
    before = run.run_json.stat()
    assert begin(run, make_config(), make_task()) == read_json(run.run_json, Manifest)
    assert run.run_json.stat().st_mtime_ns == before.st_mtime_ns


def test_every_setting_that_differs_is_named_with_both_values(run: RunDir) -> None:
    changed = make_config(strategy={"rounds": 3}, sampling={"temperature": 0.5}, engine={"attempts": 9})
    with pytest.raises(UserError, match=r"Different: sampling\.temperature: 1\.0 -> 0\.5; strategy\.rounds: 10 -> 3$"):
        begin(run, changed, make_task())
    assert read_json(run.run_json, Manifest).config == make_config().model_dump(mode="json")


def test_where_another_teacher_is_reached_may_change_and_which_it_is_may_not(tmp_path: Path) -> None:
    def teachers(**settings: object) -> RunConfig:
        return make_config().model_copy(update={"teachers": (TeacherConfig.model_validate({"model": "second", **settings}),)})

    run = RunDir(tmp_path)
    run.create()
    begin(run, teachers(endpoint="http://x/v1"))
    told: list[str] = []
    begin(run, teachers(endpoint="http://y/v1"), on_notice=told.append)
    assert told == ["changed since this run was started: teachers.0.endpoint: 'http://x/v1' -> 'http://y/v1'"]
    with pytest.raises(UserError, match=r"Different: teachers\.0\.share: 1\.0 -> 0\.5$"):
        begin(run, teachers(share=0.5))
    with pytest.raises(UserError, match="Different: teachers: "):
        begin(run, make_config())


@pytest.mark.parametrize(("calibrate", "leaks"), [("seed", 0), ("none", 0), ("validation", 1)])
def test_calibration_on_validation_texts_is_said_to_leak(tmp_path: Path, calibrate: str, leaks: int) -> None:
    run = RunDir(tmp_path)
    run.create()
    found = begin(run, make_config(strategy={"type": "evokd"}, labelling={"soft": True, "calibrate": calibrate})).leaks
    assert len(found) == leaks
    assert all("labelling.calibrate = validation" in leak for leak in found)


def test_a_setting_of_the_machine_takes_its_new_value_and_is_told(run: RunDir) -> None:
    told: list[str] = []
    begin(run, make_config(student={"device": "cpu"}, teacher={"port": 8001}), make_task(), told.append)
    assert told == [
        "changed since this run was started: student.device: 'auto' -> 'cpu'",
        "changed since this run was started: teacher.port: None -> 8001",
    ]
    assert read_json(run.run_json, Manifest).config["student"]["device"] == "cpu"


@pytest.mark.parametrize("split", ["seed", "validation", "test"])
def test_a_file_with_other_rows_is_refused_by_name(run: RunDir, split: str) -> None:
    task = make_task()
    changed = replace(task, **{split: (Example("another text \ud800", LABELS[0]), *getattr(task, split)[1:])})
    with pytest.raises(UserError, match=rf"Different: task\.data\.{split}: its file holds other rows now$"):
        begin(run, make_config(), changed)


def test_a_run_from_before_a_setting_was_there_goes_on_with_its_default(run: RunDir) -> None:
    manifest = read_json(run.run_json, Manifest)
    del manifest.config["engine"]["attempts"], manifest.config["strategy"]["rounds"]
    write_json(run.run_json, replace(manifest, data={}))
    assert begin(run, make_config(), make_task()).config == make_config().model_dump(mode="json")
    with pytest.raises(UserError, match=r"strategy\.rounds: 10 -> 3"):
        begin(run, make_config(strategy={"rounds": 3}), make_task())


def test_a_run_with_settings_that_are_unknown_here_says_which(run: RunDir) -> None:
    manifest = read_json(run.run_json, Manifest)
    write_json(run.run_json, replace(manifest, config=manifest.config | {"quantum": 1}))
    with pytest.raises(UserError, match=r"another version of Reflux, which alone can resume this run; not understood: quantum$"):
        begin(run, make_config(), make_task())
