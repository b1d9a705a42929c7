"""`reflux compare` and `reflux evaluate`, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.cli import app
from engine.config import StudentConfig
from engine.errors import UserError
from student.model import new_student, save_student
from tests.student.builders import LABELS, make_rows


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def beginner(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has learned nothing, and knows the labels in another order."""
    folder = tmp_path_factory.mktemp("beginner")
    save_student(new_student(StudentConfig(encoder=str(encoder), max_length=24), LABELS[::-1], 0), folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": row.text, "label": row.label}) + "\n" for row in make_rows(12, 40)))
    return path


def test_a_trained_student_beats_a_beginner(beginner: Path, trained: Path, data: Path) -> None:
    result = invoke("compare", beginner, trained, data)
    assert result.exit_code == 0, result.exception
    assert "The second student is better" in result.stdout
    assert "Right by the second only" in result.stdout
    found = json.loads(invoke("compare", beginner, trained, data, "--json").stdout)
    assert found["num_rows"] == 36
    assert found["fixed"] - found["broken"] > 12
    assert [difference["name"] for difference in found["differences"]] == ["macro F1", "accuracy", "weighted F1", "MCC"]


def test_a_label_that_one_does_not_know(beginner: Path, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps({"text": "mint", "label": "herb"}) + "\n")
    error = invoke("compare", beginner, trained, path).exception
    assert isinstance(error, UserError)
    assert "row 1 has the label 'herb', which the first student does not know" in str(error)


def test_evaluate_says_how_sure_its_scores_are(trained: Path, data: Path) -> None:
    shown = invoke("evaluate", trained, data).stdout
    assert "95 % interval" in shown
    assert "MCC" in shown
    assert "calibration error" in shown
    found = json.loads(invoke("evaluate", trained, data, "--json").stdout)
    assert found["intervals"]["macro_f1"]["low"] <= found["scores"]["macro_f1"] <= found["intervals"]["macro_f1"]["high"]
    assert found["calibration"]["temperature"] > 0
