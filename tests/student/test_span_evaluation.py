from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.records import Example, Span
from student.bio import begin
from student.predictions import SpanPredictions
from student.span_evaluation import evaluate_spans, span_intervals
from student.spans import score_marked

TYPES = ("PER", "O-RG", "LOC")
NUM_TOKENS = 6
PLACES = np.array([(2 * token, 2 * token + 1) for token in range(NUM_TOKENS)], np.int32)
"""Of a text with a character a token."""


@st.composite
def spans(draw: st.DrawFn) -> tuple[Span, ...]:
    ends = sorted(draw(st.sets(st.integers(0, NUM_TOKENS), max_size=5)))
    pairs = pairwise(ends)
    return tuple(Span(2 * start, 2 * end - 1, draw(st.sampled_from(TYPES))) for start, end in pairs if draw(st.booleans()))


def predicted(guesses: list[tuple[Span, ...]], certainty: float = 0.9) -> SpanPredictions:
    """A student that is as sure of each token."""
    outputs = 1 + 2 * len(TYPES)
    tags = np.zeros((len(guesses), NUM_TOKENS), np.int64)
    for row, own in enumerate(guesses):
        for span in own:
            tag = begin(TYPES.index(span.type))
            tags[row, span.start // 2 : (span.end + 1) // 2] = tag + 1
            tags[row, span.start // 2] = tag
    probabilities = np.full((tags.size, outputs), (1 - certainty) / (outputs - 1))
    probabilities[np.arange(tags.size), tags.ravel()] = certainty
    return SpanPredictions(TYPES, np.log(probabilities), (PLACES,) * len(guesses), 0)


@settings(max_examples=40)
@given(st.lists(st.tuples(spans(), spans()), min_size=1, max_size=6))
def test_scores_are_those_of_exact_spans(rows: list[tuple[tuple[Span, ...], tuple[Span, ...]]]) -> None:
    """Counted here one by one, and by seqeval there."""
    truth, guesses = [row for row, _ in rows], [guess for _, guess in rows]
    card = evaluate_spans(predicted(guesses), [Example("a b c d e f", "", row) for row in truth])
    assert card.scores.accuracy == pytest.approx(np.mean([row == guess for row, guess in rows]))
    for score in card.classes:
        own = [({*row}, {*guess}) for row, guess in rows]
        of_type = [
            ({span for span in row if span.type == score.label}, {span for span in guess if span.type == score.label}) for row, guess in own
        ]
        found, real, named = (
            sum(len(part) for part in parts) for parts in zip(*((row & guess, row, guess) for row, guess in of_type), strict=True)
        )
        assert score.support == real
        assert score.f1 == pytest.approx(2 * found / (real + named) if found else 0.0)
    assert card.scores.macro_f1 == pytest.approx(np.mean([score.f1 for score in card.classes]))
    assert card.calibration is not None or not any(guesses)


def test_confidence_is_held_against_precision() -> None:
    right, wrong = (Span(0, 3, "PER"),), (Span(4, 5, "LOC"),)
    rows = [Example("a b c d e f", "", right)] * 4
    card = evaluate_spans(predicted([right, right, right, wrong]), rows)
    assert card.calibration is not None
    assert card.calibration.precision == pytest.approx(0.75)
    assert card.calibration.confidence == pytest.approx(0.9)
    assert card.calibration.ece == pytest.approx(0.15)
    assert card.calibration.temperature > 1


def test_an_entity_that_no_token_ends_with_is_missed() -> None:
    card = evaluate_spans(predicted([(Span(0, 3, "PER"),)]), [Example("a b c d e f", "", (Span(0, 2, "PER"),))])
    assert card.scores.micro_f1 == 0.0


def test_intervals_hold_the_scores_and_are_narrower_with_more_rows() -> None:
    truth = [(Span(0, 3, "PER"), Span(4, 5, "LOC"))] * 8 + [(Span(0, 1, "O-RG"),)] * 8 + [()] * 4
    guesses = truth[:4] + [(Span(0, 3, "PER"),)] * 4 + truth[8:14] + [()] * 6
    few, many = (span_intervals(truth * times, guesses * times, TYPES) for times in (1, 20))
    found = score_marked(truth, guesses, TYPES)
    for intervals in (few, many):
        assert intervals.micro_f1 is not None
        assert intervals.macro_f1.low < found.macro_f1 < intervals.macro_f1.high
        assert intervals.micro_f1.low < found.f1 < intervals.micro_f1.high
        assert intervals.accuracy.low < 0.7 < intervals.accuracy.high
    assert many.macro_f1.high - many.macro_f1.low < 0.5 * (few.macro_f1.high - few.macro_f1.low)
