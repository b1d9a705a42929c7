from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

import student.trainer
from engine.config import StudentConfig
from engine.errors import StudentError
from engine.records import Example
from student.data import Rows, tokenise
from student.hardware import choose_hardware
from student.inference import cross_entropy, predict
from student.model import Student, new_student
from student.trainer import Training, learning_rate_factor, train
from tests.student.builders import LABELS, make_rows

HARDWARE = choose_hardware("cpu", "float32")
SETTINGS: dict[str, Any] = {"batch_size": 8, "epochs": 4, "learning_rate": 2e-3, "head_learning_rate": 5e-2}


def encode(student: Student, rows: list[Example]) -> Rows:
    return Rows(tokenise(student.tokenizer, [row.text for row in rows]), [LABELS.index(row.label) for row in rows])


def teach(encoder: Path, *, seed: int = 0, num_rows: int = 8, **settings: Any) -> tuple[Student, Training]:
    config = StudentConfig(encoder=str(encoder), **(SETTINGS | settings))
    student = new_student(config, LABELS, 0)
    return student, train(student, encode(student, make_rows(num_rows)), encode(student, make_rows(6, 100)), config, HARDWARE, seed)


def loss_of(student: Student) -> float:
    rows = encode(student, make_rows(6, 100))
    return cross_entropy(predict(student, rows.tokens, HARDWARE, 8), rows.labels)


def same(left: Student, right: Student) -> bool:
    weights = right.model.state_dict()
    return all(torch.equal(weight, weights[name]) for name, weight in left.model.state_dict().items())


def test_a_student_learns(sentence_encoder: Path) -> None:
    student, training = teach(sentence_encoder, num_rows=24, epochs=10)
    assert loss_of(student) < 0.75 * math.log(3)
    assert training.best_epoch <= training.epochs <= 10


def test_the_same_seed_gives_the_same_weights(sentence_encoder: Path) -> None:
    state = torch.random.get_rng_state()
    students = [teach(sentence_encoder, seed=seed, epochs=2)[0] for seed in (0, 0, 1)]
    assert same(students[0], students[1])
    assert not same(students[0], students[2])
    assert torch.equal(state, torch.random.get_rng_state())


def script_losses(monkeypatch: pytest.MonkeyPatch, losses: Iterable[float]) -> None:
    """The validation losses of the epochs to come."""
    script = iter(losses)

    def scripted(*_: object) -> float:
        return next(script)

    monkeypatch.setattr(student.trainer, "cross_entropy", scripted)


def test_the_best_epoch_is_kept(sentence_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script_losses(monkeypatch, [0.9, 0.8, 0.85, 0.8])
    best_second, training = teach(sentence_encoder, epochs=4)
    assert (training.epochs, training.best_epoch) == (4, 2)
    script_losses(monkeypatch, [0.9, 0.8, 0.7, 0.6])
    best_last, training = teach(sentence_encoder, epochs=4)
    assert (training.epochs, training.best_epoch) == (4, 4)
    script_losses(monkeypatch, [0.9, 0.8, 0.9, 0.9])
    again, _ = teach(sentence_encoder, epochs=4)
    assert same(best_second, again)
    assert not same(best_second, best_last)


def test_patience_ends_it(sentence_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script_losses(monkeypatch, [0.9, 0.8, 0.85, 0.7, 0.71, 0.72])
    _, training = teach(sentence_encoder, epochs=9, patience=2)
    assert (training.epochs, training.best_epoch) == (6, 4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_loss_that_is_no_number_is_said_so(precision: Any, sentence_encoder: Path) -> None:
    config = StudentConfig(encoder=str(sentence_encoder), epochs=3)
    broken = new_student(config, LABELS, 0)
    with torch.no_grad():
        next(iter(broken.head_parameters())).fill_(math.nan)
    rows = encode(broken, make_rows(2))
    with pytest.raises(StudentError, match=r"the loss is nan in epoch 1 .* lower student.learning_rate"):
        train(broken, rows, rows, config, choose_hardware("cpu", precision), 0)


def test_the_head_has_its_own_learning_rate(sentence_encoder: Path) -> None:
    start = new_student(StudentConfig(encoder=str(sentence_encoder)), LABELS, 0)
    moved, _ = teach(sentence_encoder, epochs=1, learning_rate=1e-12, head_learning_rate=1e-2)
    before, after = start.model.state_dict(), moved.model.state_dict()
    changes = {name: (before[name] - after[name]).abs().max().item() for name in before}
    assert changes.pop("classifier.weight") > 1e-3
    assert changes.pop("classifier.bias") > 1e-3
    assert max(changes.values()) < 1e-6


def test_the_learning_rate_rises_and_falls() -> None:
    factors = [learning_rate_factor(step, 10, 0.2) for step in range(11)]
    assert factors == pytest.approx([1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0])
    assert learning_rate_factor(0, 10, 0.0) == 1
