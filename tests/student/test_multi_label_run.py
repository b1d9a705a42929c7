"""From a task whose texts have any number of labels to a deployed student, with a scripted server as the teacher and a real worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.api import make_config
from engine.progress import Silent
from engine.records import Label, TaskSpec
from engine.reports import FinalReport
from engine.rundir import RunDir, read_json
from engine.store import read_samples
from student.backends import load_predictor
from student.export import export_student
from student.hardware import choose_hardware
from student.predictor import Predictor
from tests.scripted_server import scripted_endpoint
from tests.student.builders import LABELS
from tests.student.set_builders import make_sets


@pytest.fixture
def endpoint() -> Iterator[str]:
    with scripted_endpoint() as url:
        yield url


@pytest.mark.timeout(180)
def test_a_task_with_several_labels_becomes_a_deployed_student(endpoint: str, encoder: Path, tmp_path: Path) -> None:
    labels = tuple(Label(label, f"a {label}") for label in LABELS)
    seed, validation, test = (tuple(make_sets(16, offset)) for offset in (0, 100, 200))
    task = TaskSpec("multi_label", "things", labels, seed, validation, test)
    config = make_config(
        task,
        engine.TeacherConfig(model="scripted", endpoint=endpoint),
        tmp_path / "task",
        student=engine.StudentConfig(encoder=str(encoder), batch_size=8, epochs=2, learning_rate=2e-3, precision="float32", device="cpu"),
        settings={"strategy.rounds": 2, "strategy.rows_per_round": 8, "strategy.rows_per_call": 4, "gates.near_duplicates": False},
    )
    assert engine.load_task(config.task, config.seed) == task
    summary = engine.distil(config, tmp_path / "run", progress=Silent())
    run = RunDir(tmp_path / "run")
    assert summary.rounds == 2
    samples = read_samples(run)
    assert samples
    assert all(sample.annotation is not None and sample.annotation.labels is not None for sample in samples)
    assert read_json(run.final_report, FinalReport).after.scores.num_rows == 16
    texts = [row.text for row in test]
    exported = export_student(run.final_student, tmp_path / "exported", ["onnx"], texts)
    here, there = Predictor.load(run.final_student, choose_hardware("cpu", "float32")), load_predictor(Path(exported.folder), "onnx")
    assert np.allclose(here.predict_texts(texts).log_probabilities, there.predict_texts(texts).log_probabilities, atol=1e-3)
    assert there.kind == "multi_label"
