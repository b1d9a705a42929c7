"""From a task of pairs to a deployed student, with a scripted server as the teacher and a real worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import engine
from engine.api import make_config
from engine.cli import app
from engine.progress import Silent
from engine.records import Label, TaskSpec, content_of
from engine.reports import FinalReport
from engine.rundir import RunDir, read_json
from engine.store import read_samples
from student.backends import load_predictor
from student.export import export_student
from student.hardware import choose_hardware
from student.predictor import Predictor
from tests.scripted_server import scripted_endpoint
from tests.student.pair_builders import PAIR_LABELS, make_pairs


@pytest.fixture
def endpoint() -> Iterator[str]:
    with scripted_endpoint() as url:
        yield url


@pytest.mark.timeout(240)
def test_a_task_of_pairs_becomes_a_deployed_student(endpoint: str, encoder: Path, tmp_path: Path) -> None:
    labels = tuple(Label(label, f"fruit in {label}") for label in PAIR_LABELS)
    seed, validation, test = (tuple(make_pairs(192, 0)), tuple(make_pairs(24, 300)), tuple(make_pairs(24, 600)))
    task = TaskSpec("pair", "two things", labels, seed, validation, test)
    student = engine.StudentConfig(
        encoder=str(encoder), batch_size=8, epochs=24, learning_rate=2e-3, head_learning_rate=5e-2, precision="float32", device="cpu"
    )
    config = make_config(
        task,
        engine.TeacherConfig(model="scripted", endpoint=endpoint),
        tmp_path / "task",
        student=student,
        settings={"strategy.rounds": 2, "strategy.rows_per_round": 6, "strategy.rows_per_call": 3, "gates.near_duplicates": False},
    )
    assert engine.load_task(config.task, config.seed) == task
    summary = engine.distil(config, tmp_path / "run", progress=Silent())
    run = RunDir(tmp_path / "run")
    assert summary.rounds == 2
    samples = read_samples(run)
    assert samples
    assert all(sample.annotation is not None and sample.annotation.text_pair for sample in samples)
    final = read_json(run.final_report, FinalReport)
    assert final.before.scores.num_rows == 24
    assert final.after.scores.macro_f1 > 0.8
    texts = [row.content for row in test]
    exported = export_student(run.final_student, tmp_path / "exported", ["onnx"], texts)
    here, there = Predictor.load(run.final_student, choose_hardware("cpu", "float32")), load_predictor(Path(exported.folder), "onnx")
    assert np.allclose(here.predict_texts(texts).log_probabilities, there.predict_texts(texts).log_probabilities, atol=1e-3)
    told = CliRunner().invoke(app, ["show", str(run.root), samples[0].id, "--json"])
    assert (samples[0].text, json.loads(told.stdout)["row"]["text_pair"]) == content_of(samples[0])
    assert "Second text" in CliRunner().invoke(app, ["show", str(run.root), samples[0].id]).stdout
    page = tmp_path / "page.html"
    assert CliRunner().invoke(app, ["report", str(run.root), "--html", "--out", str(page)]).exit_code == 0
    assert " │ " in page.read_text()
    assert CliRunner().invoke(app, ["report", str(run.root)]).exit_code == 0
