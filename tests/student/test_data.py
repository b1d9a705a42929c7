from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.text import readable
from student.data import collate, num_steps, sorted_batches, tokenise, training_batches
from tests.student.builders import make_tokenizer

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=200)


@given(lengths=LENGTHS, batch_size=st.integers(1, 40), seed=st.integers(0, 3), epoch=st.integers(1, 3))
def test_an_epoch_holds_every_row_once(lengths: list[int], batch_size: int, seed: int, epoch: int) -> None:
    batches = list(training_batches(lengths, batch_size, 0, seed, epoch))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert len(batches) == num_steps(len(lengths), batch_size, 0)
    assert max(map(len, batches)) <= batch_size


@given(lengths=LENGTHS, batch_size=st.integers(1, 40), min_steps=st.integers(1, 30))
def test_few_rows_are_repeated_evenly(lengths: list[int], batch_size: int, min_steps: int) -> None:
    batches = list(training_batches(lengths, batch_size, min_steps, 0, 1))
    assert len(batches) == num_steps(len(lengths), batch_size, min_steps) >= min_steps
    counts = Counter(row for batch in batches for row in batch)
    assert set(counts) == set(range(len(lengths)))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_batches_follow_from_seed_and_epoch() -> None:
    lengths = [length % 13 for length in range(100)]
    batches = {(seed, epoch): list(training_batches(lengths, 8, 0, seed, epoch)) for seed in (0, 1) for epoch in (1, 2)}
    assert batches[0, 1] == list(training_batches(lengths, 8, 0, 0, 1))
    assert len({str(value) for value in batches.values()}) == 4


def test_rows_of_like_length_share_a_batch() -> None:
    lengths = [5, 50] * 32
    for batch in training_batches(lengths, 8, 0, 0, 1):
        assert len({lengths[row] for row in batch}) == 1


@given(lengths=st.lists(st.integers(1, 50), max_size=100), batch_size=st.integers(1, 40))
def test_sorted_batches_hold_every_row_once(lengths: list[int], batch_size: int) -> None:
    batches = list(sorted_batches(lengths, batch_size))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert [lengths[row] for batch in batches for row in batch] == sorted(lengths)


def test_a_batch_is_padded_to_its_longest_row() -> None:
    batch = collate([[2, 9, 3], [2, 3]], 7, torch.device("cpu"))
    assert batch["input_ids"].tolist() == [[2, 9, 3], [2, 3, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_long_texts_are_cut() -> None:
    assert len(tokenise(make_tokenizer(), ["apple " * 500])[0]) == 64


def test_half_a_surrogate_pair_is_a_question_mark() -> None:
    assert readable("an \ud800 apple ü 🍏") == "an ? apple ü 🍏"
    assert tokenise(make_tokenizer(), ["\ud800 apple"]) == tokenise(make_tokenizer(), ["? apple"])


def test_no_texts_are_no_tokens() -> None:
    assert tokenise(make_tokenizer(), []) == []
