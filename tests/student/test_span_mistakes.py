from __future__ import annotations

import pytest

from engine.records import Span
from engine.reports import ClassScore, MinedRow
from student.span_mistakes import Mistake, confusions_of, find_mistakes, find_span_weaknesses

PER, ORG = Span(0, 4, "PER"), Span(6, 9, "ORG")


@pytest.mark.parametrize(
    ("truth", "guesses", "expected"),
    [
        ([PER], [PER], []),
        ([PER], [Span(0, 4, "ORG")], [("PER", "ORG")]),
        ([PER], [Span(1, 4, "PER")], [("PER", "PER")]),
        ([PER], [Span(2, 9, "ORG")], [("PER", "ORG")]),
        ([PER], [], [("PER", "")]),
        ([], [PER], [("", "PER")]),
        # One guess over two entities spoils both, and is none that was made up.
        ([PER, ORG], [Span(0, 9, "PER")], [("PER", "PER"), ("ORG", "PER")]),
        # The same ends say more than the same type elsewhere.
        ([Span(0, 9, "PER")], [Span(0, 3, "PER"), Span(4, 9, "ORG")], [("PER", "PER")]),
        # Spans that touch do not overlap.
        ([PER], [Span(4, 6, "PER")], [("PER", ""), ("", "PER")]),
    ],
)
def test_what_became_of_each_entity(truth: list[Span], guesses: list[Span], expected: list[tuple[str, str]]) -> None:
    assert find_mistakes(truth, guesses) == [Mistake(*mistake) for mistake in expected]


def scores(**support: int) -> list[ClassScore]:
    return [ClassScore(type, 0.0, 0.0, 0.0, count) for type, count in support.items()]


@pytest.mark.parametrize(
    ("mistakes", "name", "labels"),
    [
        ([("PER", "PER")] * 3 + [("PER", "")], "boundary:PER", ("PER",)),
        ([("PER", "ORG")] * 3 + [("PER", "")], "pair:PER>ORG", ("PER", "ORG")),
        ([("PER", "")] * 4, "type:PER", ("PER",)),
        ([("", "PER")] * 4, "type:PER", ("PER",)),
        ([("PER", "ORG")] * 2 + [("PER", "PER")] * 2, "type:PER", ("PER",)),
    ],
)
def test_a_weakness_is_called_after_most_of_its_mistakes(mistakes: list[tuple[str, str]], name: str, labels: tuple[str, ...]) -> None:
    (weakness,) = find_span_weaknesses(scores(PER=10, ORG=10), [Mistake(*mistake) for mistake in mistakes])
    assert (weakness.name, weakness.labels, weakness.missed) == (name, labels, 4)
    assert weakness.num_rows == (14 if mistakes[0][0] == "" else 10)


def test_the_surest_weakness_comes_first() -> None:
    found = find_span_weaknesses(scores(PER=2, ORG=40), [Mistake("PER", "")] + [Mistake("ORG", "")] * 20)
    assert [weakness.name for weakness in found] == ["type:ORG", "type:PER"]


def test_examples_are_mined_rows_with_the_same_mistake() -> None:
    confused = MinedRow("Anna Inc", "", "", 0.7, (PER,), (Span(0, 4, "ORG"),))
    surer = MinedRow("Otto Inc", "", "", 0.9, (PER,), (Span(0, 4, "ORG"),))
    right = MinedRow("Emma Inc", "", "", 0.99, (PER,), (PER,))
    mistakes = [Mistake("PER", "ORG"), Mistake("PER", "ORG"), Mistake("PER", ""), Mistake("PER", "PER"), Mistake("", "ORG")]
    (confusion,) = confusions_of(mistakes, [confused, right, surer])
    assert (confusion.label, confusion.predicted, confusion.count) == ("PER", "ORG", 2)
    assert confusion.examples == (surer, confused)
    (first, _) = find_span_weaknesses(scores(PER=4, ORG=30), mistakes, [confused, right, surer])
    assert first.examples == (surer, confused)
