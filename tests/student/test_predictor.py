from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.config import StudentConfig
from engine.errors import UserError
from engine.records import Example
from student.model import new_student, save_student
from student.predictor import Predictor, score_rows
from tests.student.builders import LABELS

TEXTS = ["the apple", "a small old saw again", "bear", "the old pear"]


@pytest.fixture(scope="module")
def folder(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    student = new_student(StudentConfig(encoder=str(encoder)), LABELS, 0)
    weight = student.head_parameters()[0]
    with torch.no_grad():
        weight.copy_(torch.linspace(-1, 1, weight.numel()).sin().view_as(weight))
    folder = tmp_path_factory.mktemp("trained")
    save_student(student, folder)
    return folder


def test_predictions_come_in_the_order_of_the_texts(folder: Path) -> None:
    predictor = Predictor.load(folder)
    together = predictor.predict(TEXTS, batch_size=2)
    alone = [predictor.predict([text])[0] for text in TEXTS]
    assert [label for label, _ in together] == [label for label, _ in alone]
    assert [confidence for _, confidence in together] == pytest.approx([confidence for _, confidence in alone], abs=0.02)
    assert all(1 / 3 <= confidence <= 1 for _, confidence in together)


def test_no_texts_no_labels(folder: Path) -> None:
    assert Predictor.load(folder).predict([]) == []


def test_odd_texts_are_labelled_too(folder: Path) -> None:
    assert len(Predictor.load(folder).predict(["", "   ", "\ud800", "apple " * 1000])) == 4


def test_rows_are_scored_over_all_labels(folder: Path) -> None:
    predictor = Predictor.load(folder)
    labels = [label for label, _ in predictor.predict(TEXTS)]
    card = score_rows(predictor, [Example(text, label) for text, label in zip(TEXTS, labels, strict=True)])
    assert card.scores.accuracy == 1
    assert tuple(score.label for score in card.classes) == LABELS


def test_a_label_that_the_student_does_not_know(folder: Path) -> None:
    with pytest.raises(UserError, match=r"row 2 has the label 'herb', .* its labels are fruit, tool, beast"):
        score_rows(Predictor.load(folder), [Example("an apple", "fruit"), Example("mint", "herb")])


def test_a_folder_that_is_no_student(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no student"):
        Predictor.load(tmp_path)
