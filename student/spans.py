"""Scores of spans, such as names in a sentence: a span counts as found when its type and both its ends are right.

By seqeval, in its strict mode: tags that follow no scheme (an `I-` that nothing began) are no spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from seqeval.metrics import classification_report
from seqeval.scheme import IOB2

from engine.records import Span
from engine.reports import ClassScore


@dataclass(frozen=True, slots=True)
class SpanScores:
    precision: float
    recall: float
    f1: float
    """Over all spans together."""
    macro_f1: float
    """Mean over the types."""
    weighted_f1: float
    """The same by how many spans of a type there are."""
    types: tuple[ClassScore, ...]
    """Of the types that stand in the truth or the guesses, by name."""


def score_spans(truth: Sequence[Sequence[str]], guesses: Sequence[Sequence[str]]) -> SpanScores:
    """BIO tags (`B-PER`, `I-PER`, `O`), a sequence for each text, as long in `truth` as in `guesses`. What is 0/0 counts as 0."""
    if not any(tag != "O" for tags in (*truth, *guesses) for tag in tags):
        return SpanScores(0.0, 0.0, 0.0, 0.0, 0.0, ())
    report: Any = classification_report(
        list(map(list, truth)),
        list(map(list, guesses)),
        mode="strict",
        scheme=IOB2,
        output_dict=True,
        zero_division=0,  # pyright: ignore[reportArgumentType] -- annotated with its default, which is a word
    )
    micro, macro, weighted = (report.pop(f"{name} avg") for name in ("micro", "macro", "weighted"))
    types = tuple(_class_score(name, row) for name, row in sorted(report.items()))
    overall = _class_score("", micro)
    return SpanScores(overall.precision, overall.recall, overall.f1, float(macro["f1-score"]), float(weighted["f1-score"]), types)


def score_marked(truth: Sequence[Sequence[Span]], guesses: Sequence[Sequence[Span]], types: Sequence[str]) -> SpanScores:
    """The same of spans of characters, whatever tokens they were guessed from; of all `types`, in their order. The mean is over all."""
    tags = [_tags(*row, types) for row in zip(truth, guesses, strict=True) if any(row)]
    found = score_spans([row for row, _ in tags], [row for _, row in tags])
    by_type = {score.label: score for score in found.types}
    scores = [by_type.get(str(place), ClassScore("", 0.0, 0.0, 0.0, 0)) for place in range(len(types))]
    return SpanScores(
        found.precision,
        found.recall,
        found.f1,
        sum(score.f1 for score in scores) / len(types),
        found.weighted_f1,
        tuple(ClassScore(type, row.precision, row.recall, row.f1, row.support) for type, row in zip(types, scores, strict=True)),
    )


def _tags(truth: Sequence[Span], guesses: Sequence[Span], types: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of the pieces of the text between the ends of all spans. Types are called by their places, for seqeval reads hyphens as its own."""
    cuts = sorted({end for span in (*truth, *guesses) for end in (span.start, span.end)})
    sides: list[list[str]] = []
    for spans in (truth, guesses):
        tags = ["O"] * (len(cuts) - 1)
        for span in spans:
            for place, (start, end) in enumerate(pairwise(cuts)):
                if span.start <= start and end <= span.end:
                    tags[place] = f"{'B' if start == span.start else 'I'}-{types.index(span.type)}"
        sides.append(tags)
    return sides[0], sides[1]


def _class_score(name: str, row: Any) -> ClassScore:
    return ClassScore(name, float(row["precision"]), float(row["recall"]), float(row["f1-score"]), int(row["support"]))
