from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine.reports import Confusion
from engine.strategies.focus import apportion, choose_focuses, spread
from tests.engine.builders import make_report


def test_the_first_round_covers_every_class_alike() -> None:
    focuses = choose_focuses(make_report(f1={"a": 0.1, "b": 0.9, "c": 0.5}), round=1, num_requests=9)
    assert Counter(focus.labels[0] for focus in focuses) == {"a": 3, "b": 3, "c": 3}


def test_later_rounds_lean_towards_the_weak() -> None:
    report = make_report(f1={"a": 0.1, "b": 0.9, "c": 0.5})
    counts = [Counter(focus.labels[0] for focus in choose_focuses(report, round, num_requests=30)) for round in (2, 5)]
    for count in counts:
        assert count["a"] > count["c"] > count["b"] > 0
    assert counts[1]["a"] > counts[0]["a"]


def test_every_second_request_of_a_class_names_what_it_is_mistaken_for() -> None:
    confusions = (Confusion("a", "b", 5), Confusion("c", "a", 4), Confusion("a", "c", 1))
    focuses = choose_focuses(make_report(f1={"a": 0.0, "b": 1.0, "c": 1.0}, confusions=confusions), round=1, num_requests=15)
    assert [focus.labels for focus in focuses if focus.labels[0] == "a"] == [("a",), ("a", "b"), ("a",), ("a", "c"), ("a",)]
    assert {focus.labels for focus in focuses if focus.labels[0] == "b"} == {("b",)}
    assert focuses[1].name == "pair:a>b"


def test_a_perfect_student_is_still_taught() -> None:
    focuses = choose_focuses(make_report(f1={"a": 1.0, "b": 1.0}), round=3, num_requests=4)
    assert len(focuses) == 4


@given(st.integers(0, 200), st.lists(st.floats(0.01, 1), min_size=1, max_size=20))
def test_apportion_gives_out_everything(total: int, weights: list[float]) -> None:
    shares = {str(index): weight / sum(weights) for index, weight in enumerate(weights)}
    counts = apportion(total, shares)
    assert sum(counts.values()) == total
    assert all(abs(counts[key] - total * share) <= 1 for key, share in shares.items())


def test_with_fewer_requests_than_classes_the_rounds_go_on_where_the_last_ended() -> None:
    labels = [f"label {number}" for number in range(7)]
    asked = Counter(focus.labels[0] for round in range(1, 8) for focus in spread(labels, round, 3))
    assert asked == dict.fromkeys(labels, 3)
    report = make_report(f1=dict.fromkeys(labels, 0.5))
    asked = Counter(focus.labels[0] for round in range(1, 8) for focus in choose_focuses(report, round, 3))
    assert set(asked) == set(labels)
