from __future__ import annotations

import math

import pytest
import torch

from student.data import Rows
from student.heads import HEADS, Objective, Targets

HEAD = HEADS["classification"]
CPU = torch.device("cpu")
LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]])


def targets(*distributions: list[float] | None) -> Targets:
    return HEAD.targets(Rows([[1], [2], [3]], [2, 0, 1], distributions=[None, *distributions] if distributions else None), [1, 2], CPU)


def test_targets_are_those_of_the_batch() -> None:
    assert targets().labels.tolist() == [0, 1]
    assert targets().distributions is None
    assert targets(None, None).distributions is None
    some = targets(None, [0.2, 0.3, 0.5])
    assert some.has_distribution is not None
    assert some.has_distribution.tolist() == [False, True]


def test_the_loss_of_a_row_is_its_cross_entropy() -> None:
    loss = HEAD.loss(LOGITS, targets(), Objective())
    assert loss.tolist() == pytest.approx([-LOGITS.log_softmax(1)[0, 0].item(), -LOGITS.log_softmax(1)[1, 1].item()])


def test_class_weights_multiply_and_smoothing_spreads() -> None:
    plain = HEAD.loss(LOGITS, targets(), Objective())
    weighed = HEAD.loss(LOGITS, targets(), Objective(class_weights=torch.tensor([2.0, 0.5, 1.0])))
    assert weighed.tolist() == pytest.approx([2 * plain[0].item(), 0.5 * plain[1].item()])
    smooth = HEAD.loss(LOGITS, targets(), Objective(label_smoothing=0.3))
    assert smooth.tolist() == pytest.approx((0.7 * plain - 0.3 * LOGITS.log_softmax(1).mean(1)).tolist())


def test_a_distribution_has_its_share_of_the_loss() -> None:
    taught = [0.2, 0.3, 0.5]
    plain = HEAD.loss(LOGITS, targets(), Objective())
    soft = HEAD.loss(LOGITS, targets(None, taught), Objective(soft_labels=0.25))
    expected = -sum(p * said for p, said in zip(taught, LOGITS.log_softmax(1)[1].tolist(), strict=True))
    assert soft.tolist() == pytest.approx([plain[0].item(), 0.75 * plain[1].item() + 0.25 * expected])


def test_the_loss_is_least_where_student_and_teacher_agree_at_any_temperature() -> None:
    taught = [0.2, 0.3, 0.5]
    agreeing = torch.tensor([[0.0] * 3, [math.log(p) for p in taught]])
    objective = Objective(soft_labels=1.0, temperature=3.0)
    least = HEAD.loss(agreeing, targets(None, taught), objective)[1]
    for change in torch.eye(3):
        moved = agreeing + torch.stack([torch.zeros(3), 0.2 * change])
        assert HEAD.loss(moved, targets(None, taught), objective)[1] > least


def test_answers_are_log_probabilities() -> None:
    assert HEAD.decode(LOGITS, [1] * len(LOGITS)).sum() == pytest.approx(LOGITS.double().log_softmax(1).sum().item())
