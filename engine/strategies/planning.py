"""What the plans of most methods are made of: a round split into requests, and the real rows to show or to vary."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from engine.records import Assignment, Example
from engine.reports import WeaknessReport
from engine.strategies.focus import spread
from engine.task.task import labels_of


def num_requests(rows_per_round: int, rows_per_call: int) -> int:
    return math.ceil(rows_per_round / rows_per_call)


def assign(
    round: int, report: WeaknessReport, work: Iterable[tuple[str, tuple[str, ...]]], rows_per_round: int, rows_per_call: int
) -> Iterator[Assignment]:
    """An assignment for each (weakness, focus), until the round's rows are given out."""
    left = rows_per_round
    for number, (weakness, focus) in enumerate(work):
        if left <= 0:
            return
        yield Assignment(
            id=f"r{round:04d}-a{number:04d}",
            number=number,
            round=round,
            report=report.round,
            weakness=weakness,
            focus=focus,
            num_rows=min(left, rows_per_call),
        )
        left -= rows_per_call


def has_focus(focus: bool | None, requests: int, num_labels: int) -> bool:
    """Whether each request names a weakness or label of its own: see `focus` in PgkdConfig."""
    return requests >= num_labels if focus is None else focus


def assign_by_class(
    round: int, report: WeaknessReport, labels: Sequence[str], rows_per_round: int, rows_per_call: int
) -> Iterator[Assignment]:
    """Requests about one class each, all classes alike, whatever the student says."""
    focuses = spread(labels, round, num_requests(rows_per_round, rows_per_call))
    return assign(round, report, [("none", focus.labels) for focus in focuses], rows_per_round, rows_per_call)


def feedback_blocks(examples: int, seed: Sequence[Example], report: WeaknessReport) -> dict[str, int]:
    """Rows in each block of a prompt that shows the report, and as many seed rows as there are of `examples`."""
    return {"examples": min(examples, len(seed)), "right": len(report.right), "wrong": len(report.wrong), "hard": len(report.hard)}


def draw_examples(rows: Sequence[Example], count: int, seed: int, round: int) -> list[Example]:
    """Rows for the round, from as many classes (types of entities) as there is room for: one of each, then a second of each."""
    generator = random.Random(f"{seed} examples {round}")
    seen: Counter[str] = Counter()
    turns: list[tuple[int, Example]] = []
    for row in generator.sample(rows, len(rows)):
        labels = {*labels_of(row)} or {""}  # those without any are a class of their own
        turns.append((min(seen[label] for label in labels), row))
        seen.update(labels)
    return [row for _, row in sorted(turns, key=lambda turn: turn[0])][:count]


class Turns:
    """Real rows one after another, in an order drawn by the seed: each comes as often as any other, over all rounds."""

    def __init__(self, rows: Sequence[Example], per_round: int, seed: int) -> None:
        self._order = random.Random(f"{seed} turns").sample(rows, len(rows))
        self._per_round = per_round

    def row(self, round: int, number: int) -> Example:
        return self._order[((round - 1) * self._per_round + number) % len(self._order)]

    def rows(self, round: int) -> list[Example]:
        return [self.row(round, number) for number in range(self._per_round)]
