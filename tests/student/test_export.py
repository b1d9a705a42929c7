"""What leaves is what stayed: a graph that predicts something else never gets its name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.errors import ExportError, UserError
from student import export
from student.backends import load_predictor
from student.export import Exported, export_student
from student.hardware import Hardware
from student.onnx_predictor import OnnxPredictor
from student.predictor import Predictor
from tests.student.builders import LABELS
from tests.student.conftest import TEXTS

ODD_TEXTS = ["", "   ", "\ud800", "apple " * 1000, "the old pear"]
FLOAT32 = Hardware(torch.device("cpu"), "float32")


def test_the_folder_holds_what_is_needed_and_nothing_else(exported: Exported) -> None:
    folder = Path(exported.folder)
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "onnx/model.onnx", "onnx/model_int8.onnx",
    }  # fmt: skip
    card = (folder / "README.md").read_text()
    assert card.startswith("# a card\n\n## Without torch\n")
    assert "| `onnx/model.onnx` | 0.1 MB | 100.00% on 48 rows |" in card
    assert exported.labels == LABELS
    assert exported.max_length == 24


def test_graphs_agree_with_the_student(exported: Exported) -> None:
    exact, rounded = exported.graphs
    assert (exact.num_rows, exact.same_labels) == (48, 1)
    assert exact.max_difference < 1e-4
    assert rounded.same_labels >= 0.95
    assert exact.max_difference < rounded.max_difference < 0.2
    sizes = [(Path(exported.folder) / graph.file).stat().st_size for graph in exported.graphs]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("backend", ["onnx", "onnx-int8"])
def test_odd_texts_are_labelled_as_in_torch(backend: str, exported: Exported) -> None:
    folder = Path(exported.folder)
    found = OnnxPredictor.load(folder, backend).predict_texts(ODD_TEXTS, batch_size=2)
    expected = Predictor.load(folder, FLOAT32).predict_texts(ODD_TEXTS)
    assert found.num_cut == expected.num_cut == 1
    assert found.labels == expected.labels
    assert np.exp(found.log_probabilities) == pytest.approx(np.exp(expected.log_probabilities), abs=1e-4 if backend == "onnx" else 0.2)
    assert len(load_predictor(folder, "onnx").predict_texts([])) == 0


def test_a_graph_runs_without_torch(exported: Exported) -> None:
    code = (
        "import sys, pathlib; from student import load_predictor; p = load_predictor(pathlib.Path(sys.argv[1]), 'onnx');"
        "print(p.predict_texts(['the apple']).best()[0].label in p.labels, *('torch' in sys.modules, 'transformers' in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code, exported.folder], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False", "False"]


def shift(logits: Any) -> Any:
    return logits[::-1]


def make_nan(logits: Any) -> Any:
    return logits * float("nan")


@pytest.mark.parametrize("spoil", [shift, make_nan])
def test_a_graph_that_does_not_agree_is_not_written(
    spoil: Callable[[Any], Any], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: Exported
) -> None:
    honest = OnnxPredictor.log_probabilities
    monkeypatch.setattr(OnnxPredictor, "log_probabilities", lambda *arguments: spoil(honest(*arguments)))  # pyright: ignore
    graph = Path(exported.folder) / "onnx" / "model.onnx"
    monkeypatch.setattr(export, "_trace", lambda _, file: shutil.copyfile(graph, file))  # pyright: ignore
    with pytest.raises(ExportError, match=r"model\.onnx does not predict what the student predicts"):
        export_student(trained, tmp_path / "out", ["onnx"], TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_what_the_tracer_cannot_follow_is_told(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: 1 / 0)  # pyright: ignore
    with pytest.raises(ExportError, match="bert cannot be exported to ONNX: division by zero"):
        export_student(trained, tmp_path / "out", ["onnx"], TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_without_graphs_it_is_a_copy(trained: Path, tmp_path: Path) -> None:
    exported = export_student(trained, tmp_path / "out", [], [], card="# another card\n")
    assert exported.graphs == ()
    assert (tmp_path / "out" / "README.md").read_text() == "# another card\n"
    assert Predictor.load(tmp_path / "out").labels == LABELS


def test_what_is_there_is_not_overwritten(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match="is there already"):
        export_student(trained, tmp_path, [], [])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_graphs_want_rows_to_be_compared_on(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data"):
        export_student(trained, tmp_path / "out", ["onnx"], [])


def test_a_folder_without_a_graph(trained: Path) -> None:
    with pytest.raises(UserError, match=r"has no onnx/model_int8\.onnx; write one with `reflux export-student .* --int8`"):
        load_predictor(trained, "onnx-int8")


def test_a_damaged_export(exported: Exported, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported.folder, tmp_path / "damaged"))
    (folder / "onnx" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match="is no graph that onnxruntime can read"):
        load_predictor(folder, "onnx")
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="is no JSON"):
        load_predictor(folder, "onnx-int8")
    assert json.loads((Path(exported.folder) / "config.json").read_text())["architectures"] == ["BertForSequenceClassification"]
