from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.labels.label_codes import label_codes
from engine.labels.soft_labels import fit_temperature, mean, read_soft_label, read_tables, temper, unexplored
from engine.records import Alternative, Completion, FinishReason, Timings, Usage

TWO = label_codes(2, 20)
MANY = label_codes(150, 20)


def make_completion(*places: dict[str, float]) -> Completion:
    """Each place: the token that was written and its probability, then others."""
    logprobs = tuple(tuple(Alternative(token, math.log(share)) for token, share in place.items()) for place in places)
    text = "".join(next(iter(place)) for place in places)
    return Completion("a", text, FinishReason.LENGTH, Usage(1, len(places)), Timings(0.0, 0.0, 1), logprobs)


def test_one_call_tells_all_of_few_labels() -> None:
    tables = read_tables(TWO, [make_completion({"A": 0.6, "B": 0.2, "The": 0.1})])
    soft = read_soft_label(TWO, tables)
    assert soft is not None
    assert soft.probabilities == pytest.approx((0.75, 0.25))
    assert soft.missing == pytest.approx(0.2)
    assert unexplored(TWO, tables, 0.01) == []


def test_a_token_with_a_space_before_it_is_the_same_label() -> None:
    soft = read_soft_label(TWO, read_tables(TWO, [make_completion({"A": 0.3, " A": 0.3, "B": 0.4})]))
    assert soft is not None
    assert soft.probabilities == pytest.approx((0.6, 0.4))


def test_of_many_labels_those_behind_other_first_letters_take_calls_of_their_own() -> None:
    first = make_completion({"B": 0.5, "C": 0.3, "A": 0.1, "D": 0.01}, {"7": 0.8, "1": 0.2})
    tables = read_tables(MANY, [first])
    assert unexplored(MANY, tables, 0.05) == ["C", "A"]
    half_known = read_soft_label(MANY, tables)
    assert half_known is not None
    assert half_known.probabilities[20:30] == pytest.approx([0.03 / 0.91] * 10)
    # Made to begin with C, the first place tells what it told before, whatever constrained it.
    second = make_completion({"C": 0.3, "B": 0.5}, {"2": 0.9, "3": 0.1})
    tables = read_tables(MANY, [first, second])
    assert unexplored(MANY, tables, 0.05) == ["A"]
    soft = read_soft_label(MANY, tables)
    assert soft is not None
    assert soft.probabilities[17] == pytest.approx(0.5 * 0.8 / 0.91)
    assert soft.probabilities[22] == pytest.approx(0.3 * 0.9 / 0.91)
    assert soft.probabilities[25] == 0.0
    assert soft.missing == pytest.approx(0.09)


def test_a_tokenizer_that_writes_a_code_as_one_token_is_understood() -> None:
    soft = read_soft_label(MANY, read_tables(MANY, [make_completion({"B7": 0.5, "A": 0.3, "B": 0.1})]))
    assert soft is not None
    assert soft.probabilities[17] == pytest.approx((0.5 + 0.01) / 0.9)


def test_words_instead_of_a_code_are_no_distribution() -> None:
    assert read_soft_label(TWO, read_tables(TWO, [make_completion({"The": 0.9, "label": 0.05}, {"A": 1.0})])) is None
    assert read_soft_label(TWO, read_tables(TWO, [])) is None


tokens = st.sampled_from(["A", "B", " C", "O", "Z", "3", "7", "A0", "the", "", " ", "\ud800"])
places = st.dictionaries(tokens, st.floats(1e-9, 0.2), min_size=1, max_size=5)


@given(st.sampled_from([TWO, MANY, label_codes(300, 20)]), st.lists(st.lists(places, max_size=3), max_size=3))
def test_whatever_a_server_tells_makes_a_distribution_or_none(codes: tuple[str, ...], answers: list[list[dict[str, float]]]) -> None:
    soft = read_soft_label(codes, read_tables(codes, [make_completion(*answer) for answer in answers]))
    if soft is not None:
        assert len(soft.probabilities) == len(codes)
        assert sum(soft.probabilities) == pytest.approx(1.0)
        assert min(soft.probabilities) >= 0.0
        assert 0.0 <= soft.missing <= 1.0


def test_a_temperature_moves_how_sure_and_not_which() -> None:
    assert temper((0.9, 0.1, 0.0), 1.0) == (0.9, 0.1, 0.0)
    assert temper((0.9, 0.1, 0.0), 2.0) == pytest.approx((0.75, 0.25, 0.0))
    assert temper((0.75, 0.25, 0.0), 0.5) == pytest.approx((0.9, 0.1, 0.0))


def test_a_teacher_too_sure_of_itself_is_cooled_down() -> None:
    generator = random.Random(0)
    # Says 0.99 and is right in three of four: 0.75 would be honest.
    truths = [0 if generator.random() < 0.75 else 1 for _ in range(400)]
    temperature = fit_temperature([(0.99, 0.01)] * 400, truths)
    assert temper((0.99, 0.01), temperature)[0] == pytest.approx(0.75, abs=0.04)
    honest = fit_temperature([(0.75, 0.25)] * 400, truths)
    assert honest == pytest.approx(1.0, abs=0.2)


def test_a_few_rows_move_a_temperature_little() -> None:
    assert fit_temperature([], []) == 1.0
    assert 0.7 < fit_temperature([(0.9, 0.1)] * 2, [0, 0]) < 1.0
    assert 1.0 < fit_temperature([(0.9, 0.1)] * 2, [0, 1]) < 1.7
    assert math.isfinite(fit_temperature([(1.0, 0.0)] * 50, [1] * 50))


def test_teachers_are_averaged_in_single_precision() -> None:
    averaged = mean([(0.9, 0.1), (0.4, 0.6)])
    assert averaged == pytest.approx((0.65, 0.35))
    assert all(float(np.float32(share)) == share for share in averaged)
