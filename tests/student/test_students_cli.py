"""The commands that use a student, as a user meets them. Those on pipes run as processes, with a backend that starts at once."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from engine.cli import app
from engine.config import StudentConfig, change_config
from engine.errors import UserError
from student.export import Exported
from student.model import new_student, save_student
from tests.student.builders import LABELS, make_config, make_run

REFLUX = [sys.executable, "-m", "engine.cli"]


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_predict_writes_parquet_and_says_what_was_odd(exported: Exported, tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1, 2, 3, 4], "message": ["the apple", "", None, "apple " * 100]}), tmp_path / "in.parquet")
    result = invoke(
        "predict", exported.folder, tmp_path / "in.parquet", "--out", tmp_path / "out.parquet", "--text-column", "message",
        "--backend", "onnx", "--probabilities",
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["n"] for row in rows] == [1, 2, 3, 4]
    assert [row["predicted"] in LABELS for row in rows] == [True, True, False, True]
    assert rows[0]["probabilities"][rows[0]["predicted"]] == rows[0]["confidence"]
    assert "1 of 4 texts are longer than the 24 tokens" in result.stderr
    assert "1 texts are empty" in result.stderr
    assert "1 rows could not be labelled" in result.stderr


def test_a_run_s_student_reads_the_columns_of_its_run(trained: Path, tmp_path: Path) -> None:
    config = change_config(make_config(tmp_path, trained), {"task.data.text_column": "message", "task.data.label_column": "topic"})
    run = make_run(tmp_path / "run", config)
    shutil.copytree(trained, run.final_student)
    (tmp_path / "in.csv").write_text("n,message,topic\n1,the apple,fruit\n2,the saw,tool\n")
    predicted = invoke("predict", run.root, tmp_path / "in.csv", "--out", tmp_path / "out.jsonl")
    assert predicted.exit_code == 0, predicted.exception
    assert [json.loads(line)["message"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == ["the apple", "the saw"]
    scored = invoke("evaluate", run.root, tmp_path / "in.csv", "--json")
    assert json.loads(scored.stdout)["scores"]["num_rows"] == 2, scored.exception


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("nowhere.csv", [], "no such file"),
        ("in.jsonl", ["--out", "out.txt"], "unknown kind of file"),
        ("in.jsonl", ["--backend", "onnx"], "has no onnx"),
    ],
)
def test_wrong_input_is_told_at_once(
    data: str, options: list[str], message: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    result = invoke("predict", trained, data, *options)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,kind\nan apple,fruit\n", "no column 'label'; it has text, kind; expected text, label"),
        ("text,label\na stone,mineral\n", "row 1 has the label 'mineral', which the (first )?student does not know"),
        ("text,label\n", "no rows"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_rows_that_cannot_be_scored_are_told(command: str, content: str, message: str, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(content)
    result = invoke(command, *[trained] * (2 if command == "compare" else 1), tmp_path / "rows.csv")
    assert isinstance(result.exception, UserError)
    assert re.search(message, str(result.exception))


def test_rows_without_any_entity_say_nothing_of_a_student_that_marks_them(encoder: Path, tmp_path: Path) -> None:
    save_student(new_student(StudentConfig(encoder=str(encoder)), LABELS, 0, "ner"), tmp_path / "student")
    (tmp_path / "rows.csv").write_text("text,label\nan apple,fruit\n")
    result = invoke("evaluate", tmp_path / "student", tmp_path / "rows.csv")
    assert isinstance(result.exception, UserError)
    assert "no entity is marked in any of its 1 rows" in str(result.exception)


def test_a_line_is_answered_while_the_pipe_stays_open(exported: Exported) -> None:
    command = [*REFLUX, "predict", exported.folder, "-", "--backend", "onnx"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text in ("the apple", "an old saw"):
            process.stdin.write(text.encode() + b"\n")
            process.stdin.flush()
            line = json.loads(process.stdout.readline())
            assert set(line) == {"text", "predicted", "confidence"}
            assert line["text"] == text
        process.stdin.close()
        assert process.wait() == 0


def test_serve_answers_until_it_is_stopped(exported: Exported) -> None:
    command = [*REFLUX, "serve-student", exported.folder, "--port", "0", "--backend", "onnx-int8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/predict", url)
        with urllib.request.urlopen(url, data=b'{"texts": ["the apple"]}') as response:
            assert json.load(response)["predictions"][0]["label"] in LABELS
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
        assert process.returncode == 143
        assert "what was taken has been answered" in said


def test_export_compares_on_the_runs_validation_rows(trained: Path, encoder: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_config(tmp_path / "data", encoder))
    run.final_student.symlink_to(trained)
    result = invoke("export-student", run.root, tmp_path / "out", "--onnx", "--json")
    assert result.exit_code == 0, result.exception
    (graph,) = json.loads(result.stdout)["graphs"]
    assert (graph["num_rows"], graph["same_labels"]) == (18, 1)
    assert not (tmp_path / "out" / "onnx" / "model_int8.onnx").exists()


def test_export_of_a_lone_folder_wants_data(trained: Path, tmp_path: Path) -> None:
    result = invoke("export-student", trained, tmp_path / "out", "--onnx")
    assert "give a file as --data" in str(result.exception)
