from __future__ import annotations

import json
import math
import shutil
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
from student.heads import Objective, SingleLabel, cross_entropy
from student.inference import predict
from student.model import Student, new_student
from student.optimizer import learning_rate_factor
from student.trainer import Training, _Epochs, train  # pyright: ignore[reportPrivateUsage]
from tests.student.builders import LABELS, make_rows

HARDWARE = choose_hardware("cpu", "float32")
SETTINGS: dict[str, Any] = {"batch_size": 8, "epochs": 4, "learning_rate": 2e-3, "head_learning_rate": 5e-2}


def encode(student: Student, rows: list[Example]) -> Rows:
    return Rows(tokenise(student.tokenizer, [row.text for row in rows]), [LABELS.index(row.label) for row in rows])


def teach(encoder: Path, *, seed: int = 0, num_rows: int = 8, **settings: Any) -> tuple[Student, Training]:
    config = make_settings(encoder, **settings)
    student = new_student(config, LABELS, 0)
    return student, train(student, encode(student, make_rows(num_rows)), encode(student, make_rows(6, 100)), config, HARDWARE, seed)


def make_settings(encoder: Path, **settings: Any) -> StudentConfig:
    return StudentConfig.model_validate({"encoder": str(encoder), **SETTINGS, **settings})


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

    monkeypatch.setattr(SingleLabel, "mean_loss", scripted)


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


def test_the_learning_rate_may_fall_as_a_cosine_or_stay() -> None:
    cosine = [learning_rate_factor(step, 4, 0.0, "cosine") for step in range(5)]
    assert cosine == pytest.approx([1, 0.8535534, 0.5, 0.1464466, 0])
    assert [learning_rate_factor(step, 4, 0.25, "constant") for step in range(5)] == [0.5, 1, 1, 1, 1]


def gradients(encoder: Path, **settings: Any) -> list[torch.Tensor]:
    """Of one batch of eight rows of unlike weights."""
    config = make_settings(encoder, **settings)
    student = new_student(config, LABELS, 0)
    rows = encode(student, make_rows(3))
    weighed = Rows(rows.tokens, rows.labels, weights=[1.0, 0.5, 0.25] * 3)
    training = _Epochs(student, config, HARDWARE, Objective(), None)
    training._compute(weighed, range(8))  # pyright: ignore[reportPrivateUsage]
    return [parameter.grad for parameter in student.model.parameters() if parameter.grad is not None]


def test_batches_in_pieces_teach_the_same(sentence_encoder: Path, tmp_path: Path) -> None:
    encoder = without_dropout(sentence_encoder, tmp_path)
    torch.testing.assert_close(gradients(encoder, micro_batch_size=3), gradients(encoder), rtol=1e-4, atol=1e-6)


def test_out_of_memory_halves_what_is_computed_at_once_and_says_so(
    sentence_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = without_dropout(sentence_encoder, tmp_path)
    whole = gradients(encoder)
    forget_above(3, monkeypatch)
    torch.testing.assert_close(gradients(encoder), whole, rtol=1e-4, atol=1e-6)
    assert "out of memory with 8 rows at once; going on with 4" in caplog.text
    assert "out of memory with 4 rows at once; going on with 2" in caplog.text


def test_out_of_memory_with_one_row_ends_it(sentence_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_above(0, monkeypatch)
    with pytest.raises(StudentError, match="out of memory with a single row; give a smaller encoder"):
        teach(sentence_encoder, epochs=1)


def test_another_error_is_not_taken_for_memory(sentence_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("expected scalar type Float")

    monkeypatch.setattr(student.trainer, "collate", broken)
    with pytest.raises(RuntimeError, match="scalar type"):
        teach(sentence_encoder, epochs=1)


def test_moments_are_kept_and_gone_on_with(sentence_encoder: Path) -> None:
    """Two trainings at a constant rate are one, if the second takes up the first one's moments."""
    settings: dict[str, Any] = {"weights": "continue", "schedule": "constant", "warmup": 0.0, "optimizer": "continue", "epochs": 1}
    steady = make_settings(sentence_encoder, **settings)
    students: dict[str, Student] = {}
    for name, keeps in (("kept", True), ("lost", False)):
        students[name] = learner = new_student(steady, LABELS, 0)
        first, second = encode(learner, make_rows(8)), encode(learner, make_rows(8, 40))
        moments = train(learner, first, first, steady, HARDWARE, 0).moments
        assert moments is not None
        # Fewer tokens than were used before: their moments stay nevertheless.
        again = train(learner, [second], second, steady, HARDWARE, 1, moments if keeps else None).moments
        assert again is not None
        assert again["classifier.weight/step"] == (6 if keeps else 3)
    assert not same(students["kept"], students["lost"])


def test_epochs_may_differ_in_rows(sentence_encoder: Path) -> None:
    config = make_settings(sentence_encoder, epochs=2)
    student = new_student(config, LABELS, 0)
    epochs = [encode(student, make_rows(4, offset)) for offset in (0, 20)]
    assert train(student, epochs, epochs[0], config, HARDWARE, 0).epochs == 2


def test_rows_may_count_differently(sentence_encoder: Path) -> None:
    """A row of no weight teaches nothing, whatever its label says."""
    config = make_settings(sentence_encoder, epochs=1)
    students: list[Student] = []
    for mislabelled in (0, 1):
        student = new_student(config, LABELS, 0)
        rows = encode(student, make_rows(4))
        labels = [mislabelled, *rows.labels[1:]]
        train(student, Rows(rows.tokens, labels, weights=[0.0] + [1.0] * 11), rows, config, HARDWARE, 0)
        students.append(student)
    assert same(*students)


def test_rows_of_one_class_can_be_learned(sentence_encoder: Path) -> None:
    config = make_settings(sentence_encoder, epochs=1, class_weights="balanced")
    student = new_student(config, LABELS, 0)
    rows = encode(student, [row for row in make_rows(4) if row.label == LABELS[1]])
    train(student, rows, rows, config, HARDWARE, 0)
    assert (predict(student, rows.tokens, HARDWARE, 8).argmax(axis=1) == 1).all()


def without_dropout(encoder: Path, folder: Path) -> Path:
    """The same encoder, so that pieces of a batch see what the whole one would."""
    copy = Path(shutil.copytree(encoder, folder / "encoder"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    return copy


def forget_above(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory has room for so many rows at once."""
    original = student.trainer.collate

    def collate(tokens: list[Any], *rest: Any) -> Any:
        if len(tokens) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(tokens, *rest)

    monkeypatch.setattr(student.trainer, "collate", collate)
