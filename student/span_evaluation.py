"""From the spans that a student marks to scores, over all types of the task, whether texts have them or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.records import Example, Span
from engine.reports import Calibration, Interval, Intervals, Scores
from student.bio import UNTAGGED, to_tags
from student.calibration import best_temperature, binned_error, scale
from student.evaluation import ScoreCard
from student.heads import mean_token_loss
from student.predictions import SpanPredictions
from student.resampling import interval
from student.span_decoding import GuessedSpans
from student.span_mistakes import Mistake, confusions_of, find_mistakes
from student.span_resampling import draw_span_scores
from student.spans import score_marked


def evaluate_spans(predictions: SpanPredictions, rows: Sequence[Example]) -> ScoreCard:
    """Of one row at least. Entities that tokens cannot mark, or that stand where a text is cut, count as missed."""
    guessed = predictions.decoded()
    truth, guesses = [row.spans for row in rows], [spans_of(guess) for guess in guessed]
    types = predictions.labels
    found = score_marked(truth, guesses, types)
    tags = [to_tags(row.spans, places, types).tags for row, places in zip(rows, predictions.places, strict=True)]
    return ScoreCard(
        scores=Scores(
            accuracy=float(hits(rows, guessed).mean()),
            macro_f1=found.macro_f1,
            weighted_f1=found.weighted_f1,
            num_rows=len(rows),
            micro_f1=found.f1,
        ),
        classes=found.types,
        confusions=confusions_of(all_mistakes(rows, guessed)),
        loss=mean_token_loss(predictions.log_probabilities, tags),
        intervals=span_intervals(truth, guesses, types),
        calibration=_calibrate(predictions, truth, guessed, np.concatenate([np.asarray(row, np.int64) for row in tags])),
    )


def hits(rows: Sequence[Example], guesses: Sequence[GuessedSpans]) -> NDArray[np.bool_]:
    """Which texts are wholly right."""
    return np.array([spans_of(guess) == row.spans for row, guess in zip(rows, guesses, strict=True)], np.bool_)


def all_mistakes(rows: Sequence[Example], guesses: Sequence[GuessedSpans]) -> list[Mistake]:
    return [mistake for row, guess in zip(rows, guesses, strict=True) for mistake in find_mistakes(row.spans, spans_of(guess))]


def spans_of(guess: GuessedSpans) -> tuple[Span, ...]:
    return tuple(span.span for span in guess.spans)


def span_intervals(truth: Sequence[Sequence[Span]], guesses: Sequence[Sequence[Span]], types: Sequence[str]) -> Intervals:
    """Of the scores of `evaluate_spans`."""
    (draws,) = draw_span_scores(truth, [guesses], types)
    return Intervals(
        accuracy=interval(draws.accuracy),
        macro_f1=interval(draws.macro_f1),
        weighted_f1=interval(draws.weighted_f1),
        mcc=Interval(0.0, 0.0),
        micro_f1=interval(draws.micro_f1),
    )


def _calibrate(
    predictions: SpanPredictions, truth: Sequence[Sequence[Span]], guessed: Sequence[GuessedSpans], tags: NDArray[np.int64]
) -> Calibration | None:
    """Of the spans that are named. The temperature is fitted on all tokens, as the network is trained."""
    confidences, are_right = _outcomes(truth, guessed)
    if not len(confidences):
        return None
    is_tagged = tags != UNTAGGED
    temperature = best_temperature(predictions.log_probabilities[is_tagged], tags[is_tagged])
    scaled = replace(predictions, log_probabilities=scale(predictions.log_probabilities, temperature))
    return Calibration(
        confidence=float(confidences.mean()),
        ece=binned_error(confidences, are_right),
        temperature=temperature,
        ece_scaled=binned_error(*again) if len((again := _outcomes(truth, scaled.decoded()))[0]) else 0.0,
        precision=float(are_right.mean()),
    )


def _outcomes(truth: Sequence[Sequence[Span]], guessed: Sequence[GuessedSpans]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    outcomes = [(span.confidence, span.span in spans) for spans, guess in zip(truth, guessed, strict=True) for span in guess.spans]
    return np.array([confidence for confidence, _ in outcomes]), np.array([is_right for _, is_right in outcomes], np.bool_)
