"""Which weaknesses a round works on: every class is covered first, then the requests lean towards the weak ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from engine.reports import WeaknessReport


class Focus(NamedTuple):
    """Labels the rows of one request should come from: one class, or (label, what it is mistaken for)."""

    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"class:{self.labels[0]}" if len(self.labels) == 1 else f"pair:{self.labels[0]}>{self.labels[1]}"


def choose_focuses(
    report: WeaknessReport, round: int, num_requests: int, *, prior_rows: float = 0.0, resting: Collection[tuple[str, ...]] = ()
) -> list[Focus]:
    """One focus a request.

    A class's share is uniform in round 1 and then leans towards 1 - F1, by half in round 2, two thirds in round 3 and so on: early
    reports are noise, and following them at once leaves classes uncovered. Every second request of a class names the label it is most
    often mistaken for, going down that list.

    `prior_rows`: believe an F1 by its support, as if so many more rows had scored the macro F1. `resting`: classes and pairs that get
    none, unless all classes rest.
    """
    mean = report.scores.macro_f1
    weakness = {
        score.label: 1 - ((score.f1 * score.support + mean * prior_rows) / (score.support + prior_rows) if prior_rows else score.f1)
        for score in report.classes
    }
    awake = {label: value for label, value in weakness.items() if (label,) not in resting} or weakness
    total = sum(awake.values())
    lean = 1 - 1 / round if total else 0.0
    uniform = 1 / len(awake)
    shares = {label: (1 - lean) * uniform + lean * value / (total or 1.0) for label, value in awake.items()}

    mistaken_for: defaultdict[str, list[str]] = defaultdict(list)
    for confusion in report.confusions:
        if (confusion.label, confusion.predicted) not in resting:
            mistaken_for[confusion.label].append(confusion.predicted)
    focuses: list[Focus] = []
    for label, count in apportion(num_requests, _turned(shares, (round - 1) * num_requests)).items():
        others = mistaken_for[label]
        for number in range(count):
            pair = number % 2 == 1 and others
            focuses.append(Focus((label, others[number // 2 % len(others)]) if pair else (label,)))
    return focuses


def spread(labels: Sequence[str], round: int, num_requests: int) -> list[Focus]:
    """One class a request, all alike, equal ones beside each other; where there are fewer requests than classes, each round goes on
    where the last one ended.
    """
    shares = dict.fromkeys(labels, 1 / len(labels))
    counts = apportion(num_requests, _turned(shares, (round - 1) * num_requests))
    return sorted(Focus((label,)) for label, count in counts.items() for _ in range(count))


def resting(reports: Sequence[WeaknessReport], patience: int, min_gain: float) -> frozenset[tuple[str, ...]]:
    """Classes and pairs that have not moved by `min_gain` in `patience` reports, and so rest for as many before they are tried again.

    A class moves when 1 - F1 falls, a pair when the share of the class's rows that are mistaken so does. `reports`: all, in order.
    """
    errors: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
    for report in reports:
        support = {score.label: score.support for score in report.classes}
        now: dict[tuple[str, ...], float] = {(score.label,): 1 - score.f1 for score in report.classes}
        for confusion in report.confusions:
            now[confusion.label, confusion.predicted] = confusion.count / max(1, support.get(confusion.label, 1))
        for key in errors.keys() | now.keys():
            errors[key].append(now.get(key, 0.0))
    return frozenset(key for key, series in errors.items() if _rests(series, patience, min_gain))


def _rests(errors: Sequence[float], patience: int, min_gain: float) -> bool:
    best, still = errors[0], 0
    for error in errors[1:]:
        if error <= best - min_gain:
            best, still = error, 0
        else:
            still += 1
    return still // patience % 2 == 1


def apportion(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """`total` whole things by shares that sum to 1: the largest remainders get what rounding left over; ties go by order."""
    exact = {key: share * total for key, share in shares.items()}
    counts = {key: int(value) for key, value in exact.items()}
    left = total - sum(counts.values())
    order: Sequence[str] = sorted(exact, key=lambda key: counts[key] - exact[key])
    for key in order[:left]:
        counts[key] += 1
    return counts


def _turned(shares: Mapping[str, float], by: int) -> dict[str, float]:
    """In another order, which decides ties: else the last labels would never get what rounding leaves."""
    keys = list(shares)
    start = by % len(keys)
    return {key: shares[key] for key in (*keys[start:], *keys[:start])}
