from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.records import Example
from engine.reports import MinedRow
from student.diagnosis import MAX_FOLDS, MIN_LEARNED_ROWS, Mined, as_predictions, assign_folds, mine, plan_renewal


def make_mined(number: int, label: str, predicted: str, confidence: float = 0.5, learned: int = 0) -> Mined:
    return Mined(0, MinedRow(f"text {number}", label, predicted, confidence), 1 - confidence, learned)


@st.composite
def mined_rows(draw: st.DrawFn) -> list[Mined]:
    labels = st.sampled_from("abc")
    confidences = st.floats(0.34, 1)
    triples = draw(st.lists(st.tuples(labels, labels, confidences, st.integers(0, 3)), max_size=60))
    return [make_mined(number, *triple) for number, triple in enumerate(triples)]


@given(rows=mined_rows(), right=st.integers(0, 8), wrong=st.integers(0, 8), hard=st.integers(0, 8), seed=st.integers(0, 3))
def test_blocks_hold_what_their_names_say(rows: list[Mined], right: int, wrong: int, hard: int, seed: int) -> None:
    blocks = mine(rows, right, wrong, hard, seed, 4)
    assert all(row.label == row.predicted for row in blocks.right)
    assert all(row.label != row.predicted for row in (*blocks.wrong, *blocks.hard))
    texts = [row.text for row in (*blocks.right, *blocks.wrong, *blocks.hard)]
    assert len(set(texts)) == len(texts)
    mistakes = sum(not row.is_right for row in rows)
    assert len(blocks.right) == min(right, len(rows) - mistakes)
    assert len(blocks.hard) == min(hard, mistakes)
    assert len(blocks.wrong) == min(wrong, mistakes - len(blocks.hard))
    assert [row.confidence for row in blocks.hard] == sorted((row.confidence for row in blocks.hard), reverse=True)
    assert blocks == mine(rows, right, wrong, hard, seed, 4)


def test_hard_rows_are_the_most_confident_mistakes() -> None:
    rows = [make_mined(number, "a", "b", confidence) for number, confidence in enumerate((0.5, 0.9, 0.7, 0.8, 0.6))]
    rows.append(make_mined(9, "a", "a", 0.99))
    blocks = mine(rows, right=0, wrong=1, hard=3, seed=0, round=0)
    assert [row.confidence for row in blocks.hard] == [0.9, 0.8, 0.7]
    assert {row.confidence for row in blocks.wrong} <= {0.6, 0.5}


def test_rows_that_the_newest_students_predicted_come_first() -> None:
    rows = [make_mined(10 * age + number, "a", "b", 0.9 - 0.1 * age, 100 * age) for age in range(4) for number in range(3)]
    blocks = mine(rows, right=0, wrong=2, hard=3, seed=0, round=3)
    ages = [int(row.text.removeprefix("text ")) // 10 for row in (*blocks.hard, *blocks.wrong)]
    assert set(ages) == {2, 3}


def test_blocks_are_drawn_evenly_over_the_classes() -> None:
    rows = [make_mined(number, label, "z") for number, label in enumerate("a" * 50 + "b" * 50 + "c")]
    blocks = mine(rows, right=0, wrong=9, hard=0, seed=0, round=0)
    assert Counter(row.label for row in blocks.wrong) == {"a": 4, "b": 4, "c": 1}


def test_the_draw_changes_with_round_and_seed() -> None:
    rows = [make_mined(number, "a", "a") for number in range(50)]
    draws = {mine(rows, 8, 0, 0, seed, round) for seed in (0, 1) for round in (0, 1)}
    assert len(draws) == 4


def test_predictions_carry_the_softmax_confidence() -> None:
    rows = [Example("one", "a"), Example("two", "b")]
    mined = as_predictions(rows, np.log([[0.75, 0.25], [0.6, 0.4]]), ["a", "b"], 3, 40)
    assert [
        (row.row.predicted, round(row.row.confidence, 9), round(row.own, 9), row.is_right, row.round, row.learned) for row in mined
    ] == [
        ("a", 0.75, 0.75, True, 3, 40),
        ("a", 0.6, 0.4, False, 3, 40),
    ]
    assert as_predictions([], np.empty((0, 2)), ["a", "b"], 3, 40) == []


def make_predictions(*learned: tuple[int, int]) -> list[Mined]:
    """So many rows by a student that had learned so many, for each pair; labels alternate."""
    by_row = [rows for count, rows in learned for _ in range(count)]
    return [make_mined(number, "abcd"[number % 4], "a", learned=rows) for number, rows in enumerate(by_row)]


def test_the_oldest_predictions_are_made_again_by_one_that_knows_twice_as_much() -> None:
    predictions = make_predictions((40, 20), (160, 40), (200, 200))
    renewal = plan_renewal(predictions, budget=1000, seed=0)
    assert renewal is not None
    assert renewal.old == tuple(range(200))
    assert {row.text for row in renewal.learn} == {prediction.row.text for prediction in predictions[200:]}


def test_fresh_predictions_stand() -> None:
    assert plan_renewal(make_predictions((400, 101)), budget=1000, seed=0) is None
    assert plan_renewal(make_predictions((99, 20), (301, 101)), budget=1000, seed=0) is None


def test_a_stand_in_learns_no_more_than_the_budget() -> None:
    renewal = plan_renewal(make_predictions((400, 20)), budget=100, seed=0)
    assert renewal is not None
    assert len(renewal.learn) == 100
    assert plan_renewal(make_predictions((400, 20)), budget=MIN_LEARNED_ROWS - 1, seed=0) is None
    assert plan_renewal([], budget=100, seed=0) is None


@given(
    ages=st.lists(st.tuples(st.integers(0, 150), st.integers(0, 300)), max_size=4),
    budget=st.integers(0, 200),
    seed=st.integers(0, 3),
)
def test_no_row_is_predicted_by_a_stand_in_that_has_seen_it(ages: list[tuple[int, int]], budget: int, seed: int) -> None:
    predictions = make_predictions(*ages)
    renewal = plan_renewal(predictions, budget, seed)
    assert renewal == plan_renewal(predictions, budget, seed)
    if renewal is None:
        return
    old = [predictions[index] for index in renewal.old]
    assert not {prediction.row.text for prediction in old} & {row.text for row in renewal.learn}
    assert {prediction.row.label for prediction in old} <= {row.label for row in renewal.learn}
    assert all(2 * prediction.learned <= len(renewal.learn) <= budget for prediction in old)


@given(labels=st.lists(st.sampled_from("abcd"), min_size=1, max_size=60), seed=st.integers(0, 3))
def test_every_row_is_left_out_once_and_its_class_never(labels: list[str], seed: int) -> None:
    folds = assign_folds(labels, seed)
    counts = Counter(labels)
    assert len(folds) == len(labels)
    for label, fold in zip(labels, folds, strict=True):
        assert (fold is None) == (counts[label] == 1)
    for fold in {fold for fold in folds if fold is not None}:
        assert 0 <= fold < MAX_FOLDS
        assert {label for label, number in zip(labels, folds, strict=True) if number != fold} == set(labels)


def test_folds_are_of_like_size() -> None:
    sizes = Counter(assign_folds(["a"] * 10 + ["b"] * 10 + ["c"] * 2 + ["d"] * 2, 0))
    assert max(sizes.values()) - min(sizes.values()) <= 2
    assert set(sizes) == {0, 1, 2, 3}
