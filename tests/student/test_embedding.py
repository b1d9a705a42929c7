from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.config import StudentConfig
from student.data import collate, tokenise
from student.embedding import only_used_rows
from student.model import Student, new_student
from tests.student.builders import LABELS

TEXTS = ["the apple", "a saw again"]


@pytest.fixture
def student(encoder: Path) -> Student:
    return new_student(StudentConfig(encoder=str(encoder)), LABELS, 0)


def embedding_of(student: Student) -> Any:
    return student.model.get_input_embeddings()


def test_the_network_says_the_same_and_only_used_rows_change(student: Student) -> None:
    tokens = tokenise(student.tokenizer, TEXTS)
    batch = collate(tokens, student.padding, torch.device("cpu"))
    used = np.unique(np.concatenate([*map(np.asarray, tokens), [student.padding]]))
    model: Any = student.model.eval()
    whole = embedding_of(student)
    before, logits = whole.weight.detach().clone(), model(**batch).logits
    with only_used_rows(model, used) as kept:
        assert kept is not None
        assert kept.tolist() == used.tolist()
        assert torch.equal(model(**batch).logits, logits)
        rows = embedding_of(student)
        assert rows.weight.shape[0] == len(used) < whole.weight.shape[0]
        model(**batch).logits.sum().backward()
        assert rows.weight.grad is not None
        # As in the whole embedding, nothing is learned of what fills a batch up.
        assert not rows.weight.grad[used.tolist().index(student.padding)].any()
        with torch.no_grad():
            rows.weight += 1
    assert model.get_input_embeddings() is whole
    changed = (whole.weight != before).any(dim=1).nonzero().flatten()
    assert changed.tolist() == used.tolist()


def test_rows_are_back_after_an_error(student: Student) -> None:
    whole = embedding_of(student)
    with pytest.raises(KeyError), only_used_rows(student.model, np.array([1, 2])):
        raise KeyError
    assert student.model.get_input_embeddings() is whole


def test_all_rows_stay_where_most_are_used(student: Student) -> None:
    whole = embedding_of(student)
    with only_used_rows(student.model, np.arange(whole.weight.shape[0])) as kept:
        assert kept is None
        assert student.model.get_input_embeddings() is whole


def test_a_token_that_was_not_foreseen_is_an_error(student: Student) -> None:
    with only_used_rows(student.model, np.array([1, 2])), pytest.raises(IndexError):
        student.model(torch.tensor([[5]]))
