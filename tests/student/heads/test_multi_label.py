from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.config import StudentConfig
from student.data import Rows, tokenise
from student.hardware import choose_hardware
from student.heads import HEADS, Objective
from student.heads.multi_label import UNDECIDED, fit_thresholds
from student.inference import predict
from student.model import new_student
from student.trainer import train
from tests.student.builders import LABELS, WORDS

HEAD = HEADS["multi_label"]
ROWS = Rows([[1], [2]], [0, 1], distributions=[[1.0, 0.0], [0.3, 1.0]])
LOGITS = torch.tensor([[2.0, -1.0], [0.0, 3.0]])


def test_the_loss_of_a_row_is_the_mean_over_its_labels() -> None:
    said = LOGITS.sigmoid()
    wanted = torch.tensor([[1.0, 0.0], [0.3, 1.0]])
    expected = -(wanted * said.log() + (1 - wanted) * (1 - said).log()).mean(1)
    targets = HEAD.targets(ROWS, [0, 1], torch.device("cpu"))
    assert HEAD.loss(LOGITS, targets, Objective()).tolist() == pytest.approx(expected.tolist())
    predicted = HEAD.decode(LOGITS, [1, 1])
    assert np.exp(predicted) == pytest.approx(said.numpy())
    assert HEAD.mean_loss(predicted, ROWS) == pytest.approx(expected.mean().item())
    assert HEAD.mean_loss(np.zeros((2, 2)), ROWS) < float("inf")


def test_a_threshold_is_the_one_with_the_best_f1() -> None:
    probabilities = np.array([[0.9, 0.2, 0.3], [0.4, 0.1, 0.3], [0.3, 0.6, 0.3], [0.2, 0.05, 0.3]])
    truth = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]], np.bool_)
    # The second label is had by the second surest row; the third by none.
    assert fit_thresholds(np.log(probabilities), truth) == pytest.approx([0.35, 0.15, UNDECIDED])


def test_rows_that_are_equally_sure_are_not_parted() -> None:
    assert fit_thresholds(np.log([[0.6], [0.6], [0.1]]), np.array([[True], [False], [False]])) == pytest.approx([0.35])


def test_a_student_learns_to_say_two_labels_of_a_text(encoder: Path) -> None:
    pairs = [(first, second) for first in range(3) for second in range(3)]
    texts = [f"the {WORDS[LABELS[first]][n]} again {WORDS[LABELS[second]][(n + 1) % 4]}" for first, second in pairs for n in range(4)]
    truth = [[float(label in pair) for label in range(3)] for pair in pairs for _ in range(4)]
    config = StudentConfig(encoder=str(encoder), batch_size=8, epochs=16, min_steps=12, learning_rate=2e-3, head_learning_rate=5e-2)
    hardware = choose_hardware("cpu", "float32")
    learner = new_student(config, LABELS, 0, "multi_label")
    rows = Rows(tokenise(learner.tokenizer, texts), [pair[0] for pair in pairs for _ in range(4)], distributions=truth)
    train(learner, rows, rows, config, hardware, 0)
    predicted = predict(learner, rows.tokens, hardware, 8)
    said = np.exp(predicted) >= fit_thresholds(predicted, np.array(truth, np.bool_))
    assert (said == np.array(truth, np.bool_)).mean() > 0.9
