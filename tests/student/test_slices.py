from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from student.slices import NUM_SLICES, Entity, Vocabulary, find_entity_slices, find_slices, together


def make_vocabulary(*rows: list[int]) -> Vocabulary:
    vocabulary = Vocabulary()
    vocabulary.add(rows)
    return vocabulary


def test_the_rarest_token_decides() -> None:
    vocabulary = make_vocabulary([1, 2, 2], [1, 3], [1, 3])
    assert [vocabulary.rarest(tokens) for tokens in ([1], [1, 3], [2, 3], [1, 9], [])] == [3, 2, 1, 0, 0]


def test_a_planted_slice_comes_first() -> None:
    """Rows with a word that was never taught are wrong, whatever their length; the others are right."""
    rows = [[1] * (5 + number % 7) + ([99] if number % 4 == 0 else []) for number in range(80)]
    hits = np.array([99 not in row for row in rows])
    first, *others = find_slices(rows, hits, make_vocabulary(*[[1]] * 5))
    assert (first.name, first.num_rows, first.accuracy, first.rest_accuracy) == ("words:unseen", 20, 0.0, 1.0)
    assert first.is_weak
    assert not any(found.is_weak for found in others)


def test_long_rows_that_are_missed() -> None:
    rows = [[1] * (20 if number < 20 else 4 + number % 3) for number in range(80)]
    first = find_slices(rows, np.arange(80) >= 16, make_vocabulary([1]))[0]
    assert first.name == "length:long"
    assert "20 tokens or more" in first.meaning
    assert first.is_weak


def test_chance_is_not_called_a_weakness() -> None:
    generator = np.random.default_rng(0)
    rows = [[1] * int(length) for length in generator.integers(4, 30, 200)]
    weak = [found.is_weak for seed in range(20) for found in find_slices(rows, np.random.default_rng(seed).random(200) < 0.7, Vocabulary())]
    assert sum(weak) <= 1


@pytest.mark.parametrize("rows", [[[1, 2]] * 6, [[1, 2]]])
def test_slices_that_are_empty_or_everything_are_left_out(rows: list[list[int]]) -> None:
    assert find_slices(rows, np.zeros(len(rows), bool), make_vocabulary(*[[1, 2]] * 5)) == ()


def test_entities_with_words_that_were_never_in_one() -> None:
    vocabulary = make_vocabulary([1, 2, 3])
    vocabulary.add_entities([[1, 2]])
    assert [vocabulary.is_unseen(tokens) for tokens in ([1], [2, 1], [3], [1, 9])] == [False, False, True, True]
    entities = [Entity([9] if number % 3 == 0 else [1], number % 2 == 0, number % 3 != 0) for number in range(60)]
    first, *others = find_entity_slices(entities, vocabulary)
    assert (first.name, first.num_rows, first.accuracy, first.rest_accuracy) == ("entity:unseen", 20, 0.0, 1.0)
    assert not any(found.is_weak for found in others)
    assert find_entity_slices([], vocabulary) == ()


def test_the_more_slices_are_looked_at_the_less_one_means() -> None:
    entities = [Entity([1] * (5 if number < 16 else 1), False, number > 5) for number in range(60)]
    (alone,) = [found for found in find_entity_slices(entities, Vocabulary()) if found.name == "entity:long"]
    (among,) = together([replace(alone, p_value=0.002)], [])
    assert (among.of, among.is_weak) == (NUM_SLICES, False)
    assert replace(alone, p_value=0.002).is_weak
