from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import student.checkpoint
from engine.config import StudentConfig
from engine.errors import StoreError
from engine.rundir import RunDir
from student.checkpoint import Progress, checkpoint_rounds, keep_checkpoints, load_checkpoint, publish, remove_leftovers, save_checkpoint
from student.model import Student, load_student, new_student
from tests.student.builders import LABELS

MOMENTS = {"head/exp_avg": torch.arange(3) / 7, "head/step": torch.tensor(5.0)}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.create()
    return run


@pytest.fixture(scope="module")
def newborn(encoder: Path) -> Student:
    return new_student(StudentConfig(encoder=str(encoder)), LABELS, 0)


def make_progress(round: int) -> Progress:
    return Progress(round=round, watermark=7, num_train_rows=30, epochs=4, train_s=1.5)


def test_a_checkpoint_comes_back_as_it_was(run: RunDir, newborn: Student) -> None:
    save_checkpoint(run, newborn, make_progress(2), MOMENTS)
    checkpoint = load_checkpoint(run, 2)
    assert checkpoint.progress == make_progress(2)
    assert checkpoint.moments is not None
    assert {name: moment.tolist() for name, moment in checkpoint.moments.items()} == {
        name: moment.tolist() for name, moment in MOMENTS.items()
    }
    before, after = newborn.model.state_dict(), checkpoint.student.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert checkpoint.student.labels == LABELS
    assert checkpoint.student.max_length == newborn.max_length


@pytest.mark.parametrize("function", ["save_student", "write_json", "sync_folder"])
def test_a_checkpoint_is_there_whole_or_not_at_all(function: str, run: RunDir, newborn: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(student.checkpoint, function, failing)
        with pytest.raises(StoreError, match=r"cannot write the checkpoint .*: No space left on device"):
            save_checkpoint(run, newborn, make_progress(1))
    assert checkpoint_rounds(run) == []
    remove_leftovers(run)
    assert list(run.student.iterdir()) == []
    save_checkpoint(run, newborn, make_progress(1))
    assert checkpoint_rounds(run) == [1]


def test_only_the_wanted_are_kept(run: RunDir) -> None:
    for round in range(5):
        run.checkpoint(round).mkdir()
    run.final_student.mkdir()
    keep_checkpoints(run, {0, 3, 4})
    assert checkpoint_rounds(run) == [0, 3, 4]
    assert sorted(path.name for path in run.student.iterdir()) == ["final", "round-0000", "round-0003", "round-0004"]


def test_a_half_deleted_checkpoint_is_none(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    run.checkpoint(1).mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(student.checkpoint.shutil, "rmtree", lambda _: 1 / 0)  # pyright: ignore[reportUnknownLambdaType]
        with pytest.raises(ZeroDivisionError):
            keep_checkpoints(run, set())
    assert checkpoint_rounds(run) == []
    remove_leftovers(run)
    assert list(run.student.iterdir()) == []


def test_the_final_student_replaces_an_earlier_one(run: RunDir, newborn: Student) -> None:
    run.final_student.mkdir()
    (run.final_student / "old").touch()
    save_checkpoint(run, newborn, make_progress(1))
    publish(run, 1, "# a card")
    assert load_student(run.final_student).labels == LABELS
    assert (run.final_student / "README.md").read_text() == "# a card"
    assert {path.name for path in run.final_student.iterdir()}.isdisjoint({"old", "state.json", "mined.json"})


def test_a_missing_checkpoint_is_a_broken_run(run: RunDir) -> None:
    with pytest.raises(StoreError, match="round-0003"):
        load_checkpoint(run, 3)
