"""Which weaknesses a round works on: every class is covered first, then the requests lean towards the weak ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from engine.records import Assignment
from engine.reports import WeaknessReport

CLASS, TYPE, BOUNDARY, PAIR = "class", "type", "boundary", "pair"


class Focus(NamedTuple):
    """What the rows of one request are about: one label or type of entity, or (label, what it is mistaken for)."""

    labels: tuple[str, ...]
    kind: str = CLASS
    """`class` or `type` of one as a whole, `boundary` of a type that is found with a wrong end, `pair` of two."""

    @classmethod
    def of(cls, assignment: Assignment) -> Focus:
        """Of an assignment whose weakness is the name of one, or of which it has none."""
        return cls(assignment.focus, assignment.weakness.partition(":")[0])

    @property
    def name(self) -> str:
        return f"{self.kind}:{'>'.join(self.labels)}"


def choose_focuses(
    report: WeaknessReport,
    round: int,
    num_requests: int,
    *,
    single: str = CLASS,
    prior_rows: float = 0.0,
    resting: Collection[Focus] = (),
) -> list[Focus]:
    """One focus a request. `single`: the kind of those that are about one label as a whole.

    A class's share is uniform in round 1 and then leans towards 1 - F1, by half in round 2, two thirds in round 3 and so on: early
    reports are noise, and following them at once leaves classes uncovered. Every second request of a class names the label it is most
    often mistaken for, going down that list; of a type of entity that is mostly found with a wrong end, that comes first.

    `prior_rows`: believe an F1 by its support, as if so many more rows had scored the macro F1. `resting`: what gets none, unless all
    classes rest.
    """
    mean = report.scores.macro_f1
    weakness = {
        score.label: 1 - ((score.f1 * score.support + mean * prior_rows) / (score.support + prior_rows) if prior_rows else score.f1)
        for score in report.classes
    }
    awake = {label: value for label, value in weakness.items() if Focus((label,), single) not in resting} or weakness
    total = sum(awake.values())
    lean = 1 - 1 / round if total else 0.0
    uniform = 1 / len(awake)
    shares = {label: (1 - lean) * uniform + lean * value / (total or 1.0) for label, value in awake.items()}

    finer: defaultdict[str, list[Focus]] = defaultdict(list)
    for focus in _finer_errors(report):
        if focus not in resting:
            finer[focus.labels[0]].append(focus)
    focuses: list[Focus] = []
    for label, count in apportion(num_requests, _turned(shares, (round - 1) * num_requests)).items():
        others = finer[label]
        whole = Focus((label,), single)
        focuses += [others[number // 2 % len(others)] if number % 2 == 1 and others else whole for number in range(count)]
    return focuses


def _finer_errors(report: WeaknessReport) -> dict[Focus, float]:
    """Kinds of mistakes within a label, with the share of its rows that are mistaken so."""
    support = {score.label: score.support for score in report.classes}
    boundaries = [weakness for weakness in report.weaknesses if weakness.name.startswith(f"{BOUNDARY}:")]
    errors = {Focus(weakness.labels[:1], BOUNDARY): weakness.missed / max(1, weakness.num_rows) for weakness in boundaries}
    for confusion in report.confusions:
        errors[Focus((confusion.label, confusion.predicted), PAIR)] = confusion.count / max(1, support.get(confusion.label, 1))
    return errors


def spread(labels: Sequence[str], round: int, num_requests: int) -> list[Focus]:
    """One class a request, all alike, equal ones beside each other; where there are fewer requests than classes, each round goes on
    where the last one ended.
    """
    shares = dict.fromkeys(labels, 1 / len(labels))
    counts = apportion(num_requests, _turned(shares, (round - 1) * num_requests))
    return sorted(Focus((label,)) for label, count in counts.items() for _ in range(count))


def resting(reports: Sequence[WeaknessReport], patience: int, min_gain: float, *, single: str = CLASS) -> frozenset[Focus]:
    """What has not moved by `min_gain` in `patience` reports, and so rests for as many before it is tried again.

    A class moves when 1 - F1 falls, a finer mistake when the share of the class's rows that are mistaken so does. `reports`: all, in order.
    """
    errors: defaultdict[Focus, list[float]] = defaultdict(list)
    for report in reports:
        now = {Focus((score.label,), single): 1 - score.f1 for score in report.classes} | _finer_errors(report)
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
