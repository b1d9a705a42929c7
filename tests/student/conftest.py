from pathlib import Path

import pytest
import torch

from engine.config import StudentConfig
from student.data import Rows, tokenise
from student.export import Exported, export_student
from student.hardware import choose_hardware
from student.model import new_student, save_student
from student.trainer import train
from tests.student.builders import LABELS, make_encoder, make_rows

TEXTS = [row.text for row in make_rows(16)]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks this small are slower with more, most of all on cores that others use."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def sentence_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("sentence-encoder"), mean_pooled=True)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    """A student that knows its labels, and in its folder things that are not to leave with it."""
    config = StudentConfig(encoder=str(encoder), max_length=24, batch_size=8, epochs=12, learning_rate=2e-3, head_learning_rate=5e-2)
    student = new_student(config, LABELS, 0)
    examples = make_rows(16)
    rows = Rows(tokenise(student.tokenizer, [row.text for row in examples]), [LABELS.index(row.label) for row in examples])
    train(student, rows, rows, config, choose_hardware("cpu", "float32"), 0)
    folder = tmp_path_factory.mktemp("trained")
    save_student(student, folder)
    (folder / "README.md").write_text("# a card\n")
    for name in ("state.json", "pytorch_model.bin", "optimizer.safetensors"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_student(trained, tmp_path_factory.mktemp("exported") / "out", ["onnx", "onnx-int8"], TEXTS)
