from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from engine.errors import UserError
from engine.records import Example, TaskKind
from engine.text import Content
from student.comparison import compare, compare_students
from student.inference import LogProbabilities
from student.predictions import Predictions

NAMES = ("apple", "pear", "plum")


def make_rows(per_class: int) -> list[Example]:
    return [Example(f"{label} {number}", label) for label in NAMES for number in range(per_class)]


def predict(guesses: Sequence[int], confidence: float = 0.8) -> LogProbabilities:
    rest = (1 - confidence) / 2
    return np.log(np.eye(3)[list(guesses)] * (confidence - rest) + rest)


def truth(per_class: int) -> list[int]:
    return [index for index in range(3) for _ in range(per_class)]


def test_a_student_that_learned_one_class_is_better_there() -> None:
    """The first takes half of the pears for plums; the second does not, and misses one apple more."""
    before, after = truth(20), truth(20)
    before[20:30] = [2] * 10
    after[0] = 1
    found = compare(make_rows(20), predict(before), predict(after), NAMES)
    assert (found.num_rows, found.agreed, found.fixed, found.broken) == (60, 49, 10, 1)
    assert found.p_value == pytest.approx(2 * 12 / 2**11)
    macro = found.differences[0]
    assert macro.name == "macro F1"
    assert macro.interval.low > 0
    assert macro.is_real
    assert found.verdict.startswith("The second student is better")
    first = found.classes[0]
    assert (first.label, first.fixed, first.broken, first.is_real) == ("pear", 10, 0, True)
    assert [change.is_real for change in found.classes[1:]] == [False, False]
    assert {(row.label, row.first, row.second) for row in found.gained} == {("pear", "plum", "pear")}
    assert [(row.text, row.first, row.second) for row in found.lost] == [("apple 0", "apple", "pear")]


def test_the_other_way_round() -> None:
    before, after = truth(20), truth(20)
    before[20:30] = [2] * 10
    forth, back = (
        compare(make_rows(20), predict(before), predict(after), NAMES),
        compare(make_rows(20), predict(after), predict(before), NAMES),
    )
    assert back.verdict.startswith("The first student is better")
    assert (back.fixed, back.broken) == (forth.broken, forth.fixed)
    assert back.differences[0].interval.high == pytest.approx(-forth.differences[0].interval.low, abs=0.02)


def test_a_difference_that_chance_gives_is_not_called_one() -> None:
    before, after = truth(10), truth(10)
    before[0] = before[10] = 2
    after[20] = 0
    found = compare(make_rows(10), predict(before), predict(after), NAMES)
    assert found.verdict.startswith("These 30 rows do not show which student is better")
    assert not found.differences[0].is_real
    assert not any(change.is_real for change in found.classes)


def test_the_same_student_twice() -> None:
    found = compare(make_rows(5), predict(truth(5)), predict(truth(5)), NAMES)
    assert (found.agreed, found.p_value, found.differences[0].p_value) == (15, 1.0, 1.0)
    assert (found.gained, found.lost) == ((), ())


def test_the_surest_mistakes_are_shown_first() -> None:
    before = np.concatenate([predict([1], 0.5), predict([1], 0.9), predict([1], 0.7)])
    found = compare([Example(str(number), "apple") for number in range(3)], before, predict([0, 0, 0]), NAMES)
    assert [row.text for row in found.gained] == ["1", "2", "0"]
    assert found.gained[0].first_confidence == pytest.approx(0.9)


@dataclass
class Fixed:
    """A TextPredictor that says the same of every text."""

    labels: tuple[str, ...]
    says: str
    max_length: int = 8
    kind: TaskKind = "classification"

    def predict_texts(self, texts: Sequence[Content], batch_size: int = 64) -> Predictions:
        row = [0.0 if label == self.says else -10.0 for label in self.labels]
        return Predictions(self.labels, np.array([row] * len(texts)), 0)


def test_students_need_not_have_the_same_labels_in_the_same_order() -> None:
    rows = [Example("one", "apple"), Example("two", "pear")]
    found = compare_students(Fixed(("apple", "pear"), "apple"), Fixed(("herb", "pear", "apple"), "herb"), rows)
    assert (found.fixed, found.broken) == (0, 1)
    assert [(row.label, row.second) for row in found.lost] == [("apple", "herb")]


def test_rows_with_a_label_that_one_of_them_does_not_know() -> None:
    rows = [Example("one", "apple"), Example("two", "herb")]
    with pytest.raises(UserError, match=r"row 2 has the label 'herb', which the second student does not know .*knows apple, pear"):
        compare_students(Fixed(("apple", "herb"), "apple"), Fixed(("apple", "pear"), "apple"), rows)
