"""Which of two students marks spans better on the same texts, by how much, and whether the texts suffice to say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from engine.records import Example, Span
from engine.reports import ClassDifference, Comparison, Difference, Disagreement
from student.predictions import SpanPredictions
from student.resampling import interval, mcnemar, sign_p_value
from student.span_decoding import GuessedSpans
from student.span_evaluation import hits, spans_of
from student.span_resampling import draw_span_scores
from student.spans import SpanScores, score_marked

Spans = Sequence[Sequence[Span]]


def compare_spans(
    rows: Sequence[Example], first: SpanPredictions, second: SpanPredictions, *, num_draws: int, num_examples: int
) -> tuple[Comparison, Difference]:
    """Of one row at least; without a verdict, which rests on the difference beside it."""
    types = tuple(dict.fromkeys((*first.labels, *second.labels)))
    guessed = [first.decoded(), second.decoded()]
    truth = [row.spans for row in rows]
    guesses = [[spans_of(guess) for guess in own] for own in guessed]
    scores = [score_marked(truth, own, types) for own in guesses]
    are_right = [hits(rows, own) for own in guessed]
    only_first, only_second = are_right[0] & ~are_right[1], are_right[1] & ~are_right[0]
    broken, fixed = int(only_first.sum()), int(only_second.sum())
    differences = _differences(truth, guesses, are_right, scores, types, num_draws)
    comparison = Comparison(
        num_rows=len(rows),
        agreed=sum(one == other for one, other in zip(*guesses, strict=True)),
        fixed=fixed,
        broken=broken,
        p_value=mcnemar(fixed, broken),
        differences=differences,
        classes=_type_differences(truth, guesses, scores),
        gained=_disagreements(rows, only_second, guessed, by=0)[:num_examples],
        lost=_disagreements(rows, only_first, guessed, by=1)[:num_examples],
        verdict="",
    )
    return comparison, differences[0]


def _differences(
    truth: Spans,
    guesses: Sequence[Spans],
    are_right: Sequence[NDArray[np.bool_]],
    scores: Sequence[SpanScores],
    types: Sequence[str],
    num_draws: int,
) -> tuple[Difference, ...]:
    drawn = draw_span_scores(truth, guesses, types, num_draws)

    def difference(name: str, first: float, second: float, field: str) -> Difference:
        values = getattr(drawn[1], field) - getattr(drawn[0], field)
        return Difference(name, first, second, interval(values), sign_p_value(values))

    one, other = scores
    return (
        difference("macro F1", one.macro_f1, other.macro_f1, "macro_f1"),
        difference("accuracy", float(are_right[0].mean()), float(are_right[1].mean()), "accuracy"),
        difference("weighted F1", one.weighted_f1, other.weighted_f1, "weighted_f1"),
        difference("micro F1", one.f1, other.f1, "micro_f1"),
    )


def _type_differences(truth: Spans, guesses: Sequence[Spans], scores: Sequence[SpanScores]) -> tuple[ClassDifference, ...]:
    """Entities that one finds and the other does not; what is made up shows in F1 only."""
    differences: list[ClassDifference] = []
    for one, other in zip(scores[0].types, scores[1].types, strict=True):
        if not one.support:
            continue
        found = [
            (span in first, span in second)
            for real, first, second in zip(truth, *guesses, strict=True)
            for span in real
            if span.type == one.label
        ]
        fixed, broken = found.count((False, True)), found.count((True, False))
        differences.append(ClassDifference(one.label, one.support, one.f1, other.f1, fixed, broken, mcnemar(fixed, broken)))
    adjusted = false_discovery_control([row.p_value for row in differences]) if differences else []
    differences = [replace(row, p_value=float(p_value)) for row, p_value in zip(differences, adjusted, strict=True)]
    return tuple(sorted(differences, key=lambda row: (row.p_value, -abs(row.second - row.first))))


def _disagreements(
    rows: Sequence[Example], chosen: NDArray[np.bool_], guessed: Sequence[Sequence[GuessedSpans]], by: int
) -> tuple[Disagreement, ...]:
    """The rows of which this student was surest first."""
    order = sorted((row for row, is_chosen in enumerate(chosen) if is_chosen), key=lambda row: -guessed[by][row].confidence)
    return tuple(
        Disagreement(
            rows[row].text,
            _in_words(rows[row].text, rows[row].spans),
            _in_words(rows[row].text, spans_of(guessed[0][row])),
            guessed[0][row].confidence,
            _in_words(rows[row].text, spans_of(guessed[1][row])),
            guessed[1][row].confidence,
        )
        for row in order
    )


def _in_words(text: str, spans: Sequence[Span]) -> str:
    return ", ".join(f"{text[span.start : span.end]} ({span.type})" for span in spans) or "no entity"
