"""Which weaknesses a round works on: every class is covered first, then the requests lean towards the weak ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from engine.records import WeaknessReport


class Focus(NamedTuple):
    """Labels the rows of one request should come from: one class, or (label, what it is mistaken for)."""

    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"class:{self.labels[0]}" if len(self.labels) == 1 else f"pair:{self.labels[0]}>{self.labels[1]}"


def choose_focuses(report: WeaknessReport, round: int, num_requests: int) -> list[Focus]:
    """One focus a request.

    A class's share is uniform in round 1 and then leans towards 1 - F1, by half in round 2, two thirds in round 3 and so on: early
    reports are noise, and following them at once leaves classes uncovered. Every second request of a class names the label it is most
    often mistaken for, going down that list.
    """
    weakness = {score.label: 1 - score.f1 for score in report.classes}
    total = sum(weakness.values())
    lean = 1 - 1 / round if total else 0.0
    uniform = 1 / len(weakness)
    shares = {label: (1 - lean) * uniform + lean * value / (total or 1.0) for label, value in weakness.items()}

    mistaken_for: defaultdict[str, list[str]] = defaultdict(list)
    for confusion in report.confusions:
        mistaken_for[confusion.label].append(confusion.predicted)
    focuses: list[Focus] = []
    for label, count in apportion(num_requests, shares).items():
        others = mistaken_for[label]
        for number in range(count):
            pair = number % 2 == 1 and others
            focuses.append(Focus((label, others[number // 2 % len(others)]) if pair else (label,)))
    return focuses


def apportion(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """`total` whole things by shares that sum to 1: the largest remainders get what rounding left over; ties go by order."""
    exact = {key: share * total for key, share in shares.items()}
    counts = {key: int(value) for key, value in exact.items()}
    left = total - sum(counts.values())
    order: Sequence[str] = sorted(exact, key=lambda key: counts[key] - exact[key])
    for key in order[:left]:
        counts[key] += 1
    return counts
