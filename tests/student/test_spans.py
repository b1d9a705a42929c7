from __future__ import annotations

import pytest

from engine.reports import ClassScore
from student.spans import score_spans


def test_a_span_counts_when_type_and_both_ends_are_right() -> None:
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC"]]
    guesses = [["B-PER", "O", "O", "B-LOC"], ["O", "B-PER"]]
    found = score_spans(truth, guesses)
    third = pytest.approx(1 / 3)
    assert (found.precision, found.recall, found.f1) == (third, third, third)
    assert found.types == (
        ClassScore("LOC", 1.0, 0.5, pytest.approx(2 / 3), 2),  # pyright: ignore[reportArgumentType]
        ClassScore("PER", 0.0, 0.0, 0.0, 1),
    )
    assert found.macro_f1 == third


def test_neighbours_of_one_type_are_two_spans() -> None:
    assert score_spans([["B-PER", "B-PER"]], [["B-PER", "I-PER"]]).f1 == 0


@pytest.mark.parametrize("tags", [[], [[]], [["O", "O"]]])
def test_texts_without_spans(tags: list[list[str]]) -> None:
    assert score_spans(tags, tags).types == ()


def test_a_tag_that_nothing_began_is_no_span() -> None:
    found = score_spans([["B-PER", "O"]], [["B-PER", "I-LOC"]])
    assert (found.precision, found.recall) == (1, 1)
