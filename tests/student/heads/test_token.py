from __future__ import annotations

import numpy as np
import pytest
import torch

from student.bio import UNTAGGED
from student.data import Rows
from student.heads import HEADS, Objective

HEAD = HEADS["ner"]
CPU = torch.device("cpu")
ROWS = Rows([[1, 2], [1, 2, 3], [1]], [0, 0, 1], tags=[[UNTAGGED, 1], [0, 1, 2], [UNTAGGED]])
LOGITS = torch.randn((3, 3, 3), generator=torch.Generator().manual_seed(1))


def losses(objective: Objective) -> list[float]:
    return HEAD.loss(LOGITS, HEAD.targets(ROWS, [0, 1, 2], CPU), objective).tolist()


def test_a_rows_loss_is_the_mean_over_its_tagged_tokens() -> None:
    said = -LOGITS.log_softmax(-1)
    first, second, none = losses(Objective())
    assert first == pytest.approx(said[0, 1, 1].item())
    assert second == pytest.approx((said[1, 0, 0] + said[1, 1, 1] + said[1, 2, 2]).item() / 3)
    assert none == 0.0


def test_a_class_weight_is_of_a_tag() -> None:
    said = -LOGITS.log_softmax(-1)
    weighed = losses(Objective(class_weights=torch.tensor([1.0, 3.0, 0.0])))
    assert weighed[1] == pytest.approx((said[1, 0, 0] + 3 * said[1, 1, 1]).item() / 3)


def test_answers_are_those_of_tokens_text_after_text() -> None:
    found = HEAD.decode(LOGITS, [2, 3, 1])
    expected = LOGITS.double().log_softmax(-1).numpy()
    assert np.array_equal(found, np.concatenate([expected[0, :2], expected[1], expected[2, :1]]))
    assert HEAD.truth(ROWS).tolist() == [UNTAGGED, 1, 0, 1, 2, UNTAGGED]
    assert HEAD.mean_loss(found, ROWS) == pytest.approx(float(np.mean(losses(Objective()))))


def test_outputs_are_tags_and_labels_their_types() -> None:
    assert HEAD.outputs(("PER",)) == ("O", "B-PER", "I-PER")
    assert HEAD.labels(("O", "B-PER", "I-PER")) == ("PER",)
