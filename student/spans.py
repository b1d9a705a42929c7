"""Scores of spans, such as names in a sentence: a span counts as found when its type and both its ends are right.

By seqeval, in its strict mode: tags that follow no scheme (an `I-` that nothing began) are no spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seqeval.metrics import classification_report
from seqeval.scheme import IOB2

from engine.reports import ClassScore


@dataclass(frozen=True, slots=True)
class SpanScores:
    precision: float
    recall: float
    f1: float
    """Over all spans together."""
    macro_f1: float
    """Mean over the types."""
    types: tuple[ClassScore, ...]
    """Of the types that stand in the truth or the guesses, by name."""


def score_spans(truth: Sequence[Sequence[str]], guesses: Sequence[Sequence[str]]) -> SpanScores:
    """BIO tags (`B-PER`, `I-PER`, `O`), a sequence for each text, as long in `truth` as in `guesses`. What is 0/0 counts as 0."""
    if not any(tag != "O" for tags in (*truth, *guesses) for tag in tags):
        return SpanScores(0.0, 0.0, 0.0, 0.0, ())
    report: Any = classification_report(
        list(map(list, truth)),
        list(map(list, guesses)),
        mode="strict",
        scheme=IOB2,
        output_dict=True,
        zero_division=0,  # pyright: ignore[reportArgumentType] -- annotated with its default, which is a word
    )
    micro, macro = report.pop("micro avg"), report.pop("macro avg")
    del report["weighted avg"]
    types = tuple(_class_score(name, row) for name, row in sorted(report.items()))
    overall = _class_score("", micro)
    return SpanScores(overall.precision, overall.recall, overall.f1, float(macro["f1-score"]), types)


def _class_score(name: str, row: Any) -> ClassScore:
    return ClassScore(name, float(row["precision"]), float(row["recall"]), float(row["f1-score"]), int(row["support"]))
