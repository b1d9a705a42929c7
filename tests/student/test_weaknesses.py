from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.reports import ClassScore, Confusion, MinedRow, WeaknessReport
from student.evaluation import score
from student.weaknesses import find_changes, find_weaknesses, with_examples
from tests.engine.builders import make_report

NAMES = ("apple", "pear", "plum", "cherry")


def make_classes(**support: int) -> list[ClassScore]:
    return [ClassScore(label, 0.0, 0.0, 0.0, rows) for label, rows in support.items()]


def test_a_planted_confusion_is_the_first_weakness() -> None:
    """Ten rows a class; some are missed everywhere, but most pears are taken for plums."""
    labels = [index for index in range(4) for _ in range(10)]
    guesses = list(labels)
    for row, guess in ((0, 2), (1, 3), (25, 0), (39, 0), *((row, 2) for row in range(10, 17)), (17, 0)):
        guesses[row] = guess
    card = score(np.log(np.eye(4)[guesses] * 0.6 + 0.1), labels, NAMES)
    weaknesses = find_weaknesses(card.classes, card.confusions)
    assert (weaknesses[0].name, weaknesses[0].labels, weaknesses[0].missed, weaknesses[0].num_rows) == (
        "pair:pear>plum",
        ("pear", "plum"),
        8,
        10,
    )
    assert [weakness.name for weakness in weaknesses[1:]] == ["class:apple", "pair:cherry>apple", "pair:plum>apple"]


def test_a_label_whose_mistakes_are_scattered_is_a_class() -> None:
    confusions = [Confusion("apple", "pear", 3), Confusion("apple", "plum", 3), Confusion("apple", "cherry", 2)]
    (weakness,) = find_weaknesses(make_classes(apple=10), confusions)
    assert (weakness.name, weakness.missed) == ("class:apple", 8)


def test_one_miss_in_two_rows_is_less_sure_than_forty_in_a_hundred() -> None:
    confusions = [Confusion("pear", "plum", 40), Confusion("apple", "plum", 1)]
    weaknesses = find_weaknesses(make_classes(apple=2, pear=100, plum=0), confusions)
    assert [weakness.labels[0] for weakness in weaknesses] == ["pear", "apple"]
    assert weaknesses[0].at_least < 0.4


def test_nothing_missed_is_no_weakness() -> None:
    assert find_weaknesses(make_classes(apple=3, pear=0), ()) == ()


def test_examples_are_mined_rows_of_the_same_mistake() -> None:
    mined = [MinedRow(f"text {number}", "pear", "plum", number / 10) for number in range(1, 6)]
    mined += [MinedRow("right", "pear", "pear", 0.9), MinedRow("other", "plum", "pear", 0.9)]
    confusions = with_examples([Confusion("pear", "plum", 7), Confusion("apple", "plum", 1)], mined)
    assert [row.text for row in confusions[0].examples] == ["text 5", "text 4", "text 3"]
    assert confusions[1].examples == ()
    assert find_weaknesses(make_classes(pear=10, apple=10), confusions)[0].examples == confusions[0].examples


def report_with(hits: str, missed: dict[str, str]) -> WeaknessReport:
    confusions = [Confusion(label, taken_for, 5) for label, taken_for in missed.items()]
    weaknesses = find_weaknesses(make_classes(**dict.fromkeys(missed, 10)), confusions)
    return make_report(confusions=tuple(confusions), weaknesses=weaknesses, hits=hits)


def hits(*shares: float) -> str:
    """Of ten rows a class, the first ones right."""
    return "".join("1" * round(10 * share) + "0" * (10 - round(10 * share)) for share in shares)


def as_array(text: str) -> np.ndarray:
    return np.array([hit == "1" for hit in text])


def labels(num_labels: int) -> Sequence[tuple[str]]:
    return [(label,) for label in NAMES[:num_labels] for _ in range(10)]


def test_a_weakness_that_got_better_is_named_as_it_was() -> None:
    before = report_with(hits(1.0, 0.0, 0.8), {"pear": "plum"})
    overall, first, *others = find_changes(before, as_array(hits(1.0, 1.0, 0.7)), labels(3))
    assert (overall.name, overall.num_rows, overall.fixed, overall.broken) == ("all", 30, 10, 1)
    assert (first.name, first.before, first.after, first.fixed, first.is_real) == ("pair:pear>plum", 0.0, 1.0, 10, True)
    assert [(change.name, change.is_real) for change in others] == [("class:plum", False)]


def test_one_of_many_labels_may_change_by_chance() -> None:
    """Six rows fixed and none broken are rare for one label (p = .03), and nothing special among a hundred."""
    names = [(f"label {number}",) for number in range(100) for _ in range(10)]
    then = "".join("0000001111" if number == 0 else "0111111111" for number in range(100))
    now = "".join("1111111111" if number % 2 == 0 else "0111111110" for number in range(100))
    alone = find_changes(report_with(then[:10], {}), as_array(now[:10]), names[:10])
    among = find_changes(report_with(then, {}), as_array(now), names)
    assert [change.is_real for change in alone if change.name == "class:label 0"] == [True]
    assert [change.is_real for change in among if change.name == "class:label 0"] == [False]


def test_without_a_report_on_the_same_rows_nothing_is_told() -> None:
    assert find_changes(None, as_array("01"), [("a",), ("b",)]) == ()
    assert find_changes(report_with("", {}), as_array("01"), [("a",), ("b",)]) == ()


def test_nothing_changed() -> None:
    (overall,) = find_changes(report_with("01", {}), as_array("01"), [("a",), ("b",)])
    assert (overall.fixed, overall.broken, overall.p_value) == (0, 0, 1.0)
