from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from engine.records import Span
from student.span_decoding import best_tags, decode_spans

PROBABILITIES = arrays(np.float64, st.tuples(st.integers(0, 4), st.just(5)), elements=st.floats(-9, 0, width=16))


def is_valid(tags: tuple[int, ...]) -> bool:
    return all(tag % 2 or not tag or before in (tag, tag - 1) for before, tag in zip((0, *tags), tags, strict=False))


@given(PROBABILITIES)
def test_the_best_of_all_sequences_that_follow_the_scheme(log_probabilities: NDArray[np.float64]) -> None:
    length = len(log_probabilities)

    def total(tags: tuple[int, ...]) -> float:
        return float(log_probabilities[np.arange(length), list(tags)].sum())

    tags = tuple(best_tags(log_probabilities).tolist())
    assert is_valid(tags)
    assert total(tags) == pytest.approx(max(total(other) for other in product(range(5), repeat=length) if is_valid(other)))


def test_a_text_is_as_sure_as_its_least_sure_token() -> None:
    probabilities = np.array(
        [
            [0.2, 0.2, 0.2, 0.2, 0.2],  # a special token, which is not asked
            [0.05, 0.8, 0.05, 0.05, 0.05],
            [0.05, 0.05, 0.7, 0.1, 0.1],
            [0.6, 0.1, 0.1, 0.1, 0.1],
        ]
    )
    places = np.array([(0, 0), (0, 3), (4, 8), (9, 10)], np.int32)
    found = decode_spans(np.log(probabilities), places, ("PER", "ORG"))
    (span,) = found.spans
    assert span.span == Span(0, 8, "PER")
    assert (span.confidence, found.confidence) == (pytest.approx(0.7), pytest.approx(0.6))


def test_a_text_without_tokens_has_no_spans() -> None:
    found = decode_spans(np.log(np.full((2, 3), 1 / 3)), np.zeros((2, 2), np.int32), ("PER",))
    assert found == ((), 1.0)
