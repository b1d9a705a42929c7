"""Which of two students is better on the same rows, by how much, and whether the rows suffice to say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from engine.errors import UserError
from engine.records import Example
from engine.reports import ClassDifference, Comparison, Difference, Disagreement
from engine.text import whole
from student.evaluation import class_scores, overall_scores
from student.inference import LogProbabilities
from student.label_set_comparison import compare_sets
from student.predictions import TextPredictor, labels_only, names_in, sets_only, spans_only
from student.resampling import draw_scores, interval, mcnemar, sign_p_value
from student.span_comparison import compare_spans

NUM_DRAWS = 4000
"""Enough for p-values down to a thousandth."""
NUM_EXAMPLES = 10


def compare_students(first: TextPredictor, second: TextPredictor, rows: Sequence[Example], batch_size: int = 64) -> Comparison:
    """UserError for a row with a label or type that one of them does not know, and for two students of different kinds. What one of them
    says beyond the other's labels is just wrong.
    """
    if first.kind != second.kind:
        what = {
            "classification": "gives a text one label",
            "multi_label": "gives a text any number of labels",
            "ner": "marks spans",
            "pair": "gives two texts one label",
        }
        raise UserError(
            f"one of the students {what[first.kind]} and the other {what[second.kind]}; two students of one kind can be compared"
        )
    for which, predictor in (("first", first), ("second", second)):
        known = set(predictor.labels)
        for number, row in enumerate(rows, start=1):
            unknown = [name for name in names_in(row, first.kind) if name not in known]
            if unknown:
                shown = ", ".join(predictor.labels[:5]) + (", …" if len(predictor.labels) > 5 else "")
                raise UserError(
                    f"row {number} has the label {unknown[0]!r}, which the {which} student does not know (it knows {shown}); "
                    "two students are compared on rows whose labels both know"
                )
    names = tuple(dict.fromkeys((*first.labels, *second.labels)))
    texts = [row.content for row in rows]
    one, other = (student.predict_texts(texts, batch_size) for student in (first, second))
    if first.kind == "multi_label":
        compared = compare_sets(rows, sets_only(one), sets_only(other), names, num_draws=NUM_DRAWS, num_examples=NUM_EXAMPLES)
        return replace(compared, verdict=_verdict(compared.differences[0], len(rows)))
    if first.kind == "ner":
        compared, difference = compare_spans(rows, spans_only(one), spans_only(other), num_draws=NUM_DRAWS, num_examples=NUM_EXAMPLES)
        return replace(compared, verdict=_verdict(difference, len(rows)))
    said = labels_only(one), labels_only(other)
    predicted = [_widen(predictions.log_probabilities, predictions.labels, names) for predictions in said]
    return compare(rows, predicted[0], predicted[1], names)


def compare(rows: Sequence[Example], first: LogProbabilities, second: LogProbabilities, names: Sequence[str]) -> Comparison:
    """Predictions over the same `names`; of one row at least."""
    position = {name: index for index, name in enumerate(names)}
    labels = np.array([position[row.label] for row in rows])
    guesses = [first.argmax(axis=1), second.argmax(axis=1)]
    hits = [guess == labels for guess in guesses]
    only_first, only_second = hits[0] & ~hits[1], hits[1] & ~hits[0]
    broken, fixed = int(only_first.sum()), int(only_second.sum())
    differences = _differences(labels, guesses, len(names))
    return Comparison(
        num_rows=len(rows),
        agreed=int((guesses[0] == guesses[1]).sum()),
        fixed=fixed,
        broken=broken,
        p_value=mcnemar(fixed, broken),
        differences=differences,
        classes=_class_differences(labels, guesses, names),
        gained=_disagreements(rows, np.flatnonzero(only_second), first, second, names, by=first),
        lost=_disagreements(rows, np.flatnonzero(only_first), first, second, names, by=second),
        verdict=_verdict(differences[0], len(rows)),
    )


def _widen(predicted: LogProbabilities, labels: Sequence[str], names: Sequence[str]) -> LogProbabilities:
    """To columns for all names; what a student does not know it never says."""
    wide = np.full((len(predicted), len(names)), -np.inf)
    wide[:, [names.index(label) for label in labels]] = predicted
    return wide


def _differences(labels: NDArray[np.int64], guesses: Sequence[NDArray[np.int64]], num_labels: int) -> tuple[Difference, ...]:
    first, second = (overall_scores(labels, guess, num_labels) for guess in guesses)
    drawn_first, drawn_second = draw_scores(labels, guesses, num_labels, NUM_DRAWS)
    return (
        _difference("macro F1", first.macro_f1, second.macro_f1, drawn_second.macro_f1 - drawn_first.macro_f1),
        _difference("accuracy", first.accuracy, second.accuracy, drawn_second.accuracy - drawn_first.accuracy),
        _difference("weighted F1", first.weighted_f1, second.weighted_f1, drawn_second.weighted_f1 - drawn_first.weighted_f1),
        _difference("MCC", first.mcc, second.mcc, drawn_second.mcc - drawn_first.mcc),
    )


def _difference(name: str, first: float, second: float, drawn: NDArray[np.float64]) -> Difference:
    return Difference(name, first, second, interval(drawn), sign_p_value(drawn))


def _class_differences(
    labels: NDArray[np.int64], guesses: Sequence[NDArray[np.int64]], names: Sequence[str]
) -> tuple[ClassDifference, ...]:
    differences: list[ClassDifference] = []
    first, second = (class_scores(labels, guess, names) for guess in guesses)
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        inside = labels == index
        if not inside.any():
            continue
        hits = [guess[inside] == index for guess in guesses]
        fixed, broken = int((hits[1] & ~hits[0]).sum()), int((hits[0] & ~hits[1]).sum())
        differences.append(ClassDifference(one.label, one.support, one.f1, other.f1, fixed, broken, mcnemar(fixed, broken)))
    adjusted = false_discovery_control([row.p_value for row in differences])
    differences = [replace(row, p_value=float(p_value)) for row, p_value in zip(differences, adjusted, strict=True)]
    return tuple(sorted(differences, key=lambda row: (row.p_value, -abs(row.second - row.first))))


def _disagreements(
    rows: Sequence[Example],
    chosen: NDArray[np.intp],
    first: LogProbabilities,
    second: LogProbabilities,
    names: Sequence[str],
    by: LogProbabilities,
) -> tuple[Disagreement, ...]:
    """The rows of which `by` was surest."""
    order = chosen[np.argsort(-by[chosen].max(axis=1), kind="stable")][:NUM_EXAMPLES] if len(chosen) else chosen
    return tuple(
        Disagreement(
            whole(rows[row].content),
            rows[row].label,
            names[int(first[row].argmax())],
            float(np.exp(first[row].max())),
            names[int(second[row].argmax())],
            float(np.exp(second[row].max())),
        )
        for row in order.tolist()
    )


def _verdict(difference: Difference, num_rows: int) -> str:
    change = difference.second - difference.first
    span = f"{difference.name} {change:+.3f}, 95 % interval {difference.interval.low:+.3f} to {difference.interval.high:+.3f}"
    if difference.is_real:
        better = "second" if change > 0 else "first"
        return (
            f"The {better} student is better ({span}): chance alone gives so large a difference in {difference.p_value:.2g} of all cases."
        )
    return (
        f"These {num_rows} rows do not show which student is better ({span}): chance alone gives as large a difference in "
        f"{difference.p_value:.2g} of all cases. More rows would narrow the interval."
    )
