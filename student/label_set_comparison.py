"""Which of two students gives texts the better labels, any number each, by how much, and whether the texts suffice to say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from engine.records import Example
from engine.reports import ClassDifference, ClassScore, Comparison, Difference, Disagreement, Scores
from student.label_set_evaluation import named, set_class_scores, set_scores, truth_matrix
from student.predictions import GuessedLabels, SetPredictions
from student.resampling import interval, mcnemar, sign_p_value
from student.span_resampling import draw_counted

_SCORES = (("macro F1", "macro_f1"), ("accuracy", "accuracy"), ("weighted F1", "weighted_f1"), ("micro F1", "micro_f1"))


def compare_sets(
    rows: Sequence[Example], first: SetPredictions, second: SetPredictions, names: Sequence[str], *, num_draws: int, num_examples: int
) -> Comparison:
    """`names` are the labels of both; of one row at least. Without a verdict, which rests on the first of the differences."""
    there = truth_matrix(rows, names)
    said = [_widen(student, names) for student in (first, second)]
    classes = [set_class_scores(there, own, names) for own in said]
    scores = [set_scores(there, own, by_label) for own, by_label in zip(said, classes, strict=True)]
    are_right = [(own == there).all(axis=1) for own in said]
    only_first, only_second = are_right[0] & ~are_right[1], are_right[1] & ~are_right[0]
    broken, fixed = int(only_first.sum()), int(only_second.sum())
    guesses = [first.decoded(), second.decoded()]
    return Comparison(
        num_rows=len(rows),
        agreed=int((said[0] == said[1]).all(axis=1).sum()),
        fixed=fixed,
        broken=broken,
        p_value=mcnemar(fixed, broken),
        differences=_differences(there, said, scores, num_draws),
        classes=_class_differences(there, said, classes),
        gained=_disagreements(rows, only_second, guesses, by=0)[:num_examples],
        lost=_disagreements(rows, only_first, guesses, by=1)[:num_examples],
        verdict="",
    )


def _widen(student: SetPredictions, names: Sequence[str]) -> NDArray[np.bool_]:
    """To columns for all names; what a student does not know it never says."""
    wide = np.zeros((len(student), len(names)), np.bool_)
    wide[:, [names.index(label) for label in student.labels]] = student.said
    return wide


def _differences(
    there: NDArray[np.bool_], said: Sequence[NDArray[np.bool_]], scores: Sequence[Scores], num_draws: int
) -> tuple[Difference, ...]:
    drawn = draw_counted(there.astype(np.int64), [named(there, own) for own in said], num_draws)
    found: list[Difference] = []
    for name, field in _SCORES:
        values = getattr(drawn[1], field) - getattr(drawn[0], field)
        found.append(Difference(name, getattr(scores[0], field), getattr(scores[1], field), interval(values), sign_p_value(values)))
    return tuple(found)


def _class_differences(
    there: NDArray[np.bool_], said: Sequence[NDArray[np.bool_]], classes: Sequence[Sequence[ClassScore]]
) -> tuple[ClassDifference, ...]:
    """Rows that have the label, and get it from one student only; what is made up shows in F1."""
    differences: list[ClassDifference] = []
    for place, (one, other) in enumerate(zip(*classes, strict=True)):
        has = there[:, place]
        if not has.any():
            continue
        hits = [own[has, place] for own in said]
        fixed, broken = int((hits[1] & ~hits[0]).sum()), int((hits[0] & ~hits[1]).sum())
        differences.append(ClassDifference(one.label, one.support, one.f1, other.f1, fixed, broken, mcnemar(fixed, broken)))
    adjusted = false_discovery_control([row.p_value for row in differences]) if differences else []
    differences = [replace(row, p_value=float(p_value)) for row, p_value in zip(differences, adjusted, strict=True)]
    return tuple(sorted(differences, key=lambda row: (row.p_value, -abs(row.second - row.first))))


def _disagreements(
    rows: Sequence[Example], chosen: NDArray[np.bool_], guesses: Sequence[Sequence[GuessedLabels]], by: int
) -> tuple[Disagreement, ...]:
    """The rows of which this student was surest first."""
    order = sorted((row for row, is_chosen in enumerate(chosen) if is_chosen), key=lambda row: -guesses[by][row].confidence)
    return tuple(
        Disagreement(
            rows[row].text,
            _in_words(rows[row].labels),
            _in_words(guesses[0][row].labels),
            guesses[0][row].confidence,
            _in_words(guesses[1][row].labels),
            guesses[1][row].confidence,
        )
        for row in order
    )


def _in_words(labels: Sequence[str]) -> str:
    return ", ".join(labels) or "no label"
