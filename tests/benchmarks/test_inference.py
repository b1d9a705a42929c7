"""The benchmark itself, on a student so small that only its shape matters."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.inference import run, show
from engine.config import StudentConfig
from engine.records import Example
from student.model import new_student, save_student
from tests.student.builders import LABELS, make_encoder, make_rows


def test_every_way_is_measured_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("student.export.MIN_SAME_LABELS", {"onnx": 0.9, "onnx-int8": 0.0})
    student = new_student(StudentConfig(encoder=str(make_encoder(tmp_path / "encoder"))), LABELS, 0)
    save_student(student, tmp_path / "student")
    test: list[Example] = make_rows(4)
    result = run(tmp_path / "student", test, batches=[1, 3], lengths=[8], budget_s=0)
    ways = ["torch float32 cpu", "torch bfloat16 cpu", "onnx float32 cpu", "onnx int8 cpu"]
    assert [row["way"] for row in result["quality"] if "cuda" not in row["way"]] == ways
    assert [(row["batch"], row["length"]) for row in result["speed"] if row["way"] == ways[0]] == [(1, 8), (3, 8)]
    assert all(row["spread_ms"][0] <= row["ms"] <= row["spread_ms"][1] and row["repeats"] == 3 for row in result["speed"])
    assert result["quality"][2]["loss"] == pytest.approx(0, abs=1e-6)
    assert result["test_rows"] == 12
    shown = io.StringIO()
    show(result, Console(file=shown, width=120))
    assert "onnx int8 cpu" in shown.getvalue()
