"""What a report says first: which labels the student misses, and which of them have got better since the last one.

Both take luck into account, for a label has often ten validation rows: a weakness is ranked by what it is at least, and a change is tested.
Pure: scores and rows in, values out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, false_discovery_control

from engine.reports import Change, ClassScore, Confusion, MinedRow, Weakness, WeaknessReport
from student.resampling import CONFIDENCE, mcnemar

NUM_EXAMPLES = 3
"""Rows shown of each weakness and confusion."""


def find_weaknesses(classes: Sequence[ClassScore], confusions: Sequence[Confusion]) -> tuple[Weakness, ...]:
    """Of each label with misses one, the surest first. Examples are those of the confusions."""
    by_label: defaultdict[str, list[Confusion]] = defaultdict(list)
    for confusion in confusions:
        by_label[confusion.label].append(confusion)
    support = {row.label: row.support for row in classes}
    weaknesses = [_weakness(label, support[label], found) for label, found in by_label.items()]
    return tuple(sorted(weaknesses, key=lambda weakness: (-weakness.at_least, -weakness.missed, weakness.name)))


def with_examples(confusions: Iterable[Confusion], mined: Iterable[MinedRow]) -> tuple[Confusion, ...]:
    """The same confusions with mined rows that were mistaken so; `mined` may be any rows, right ones too."""
    by_pair: defaultdict[tuple[str, str], list[MinedRow]] = defaultdict(list)
    for row in mined:
        by_pair[row.label, row.predicted].append(row)
    for rows in by_pair.values():
        rows.sort(key=lambda row: -row.confidence)
    return tuple(
        replace(confusion, examples=tuple(by_pair[confusion.label, confusion.predicted][:NUM_EXAMPLES])) for confusion in confusions
    )


def find_changes(
    before: WeaknessReport | None, now: NDArray[np.bool_], labels: Sequence[Iterable[str]], unnamed: str = "class"
) -> tuple[Change, ...]:
    """Since the previous report. `now` says which validation rows are right, `labels` what each is, or which types of entities it has.
    `unnamed`: how a weakness begins that no mistake has named yet.
    """
    if before is None or len(before.hits) != len(now):
        return ()
    then = np.array([hit == "1" for hit in before.hits])
    names = {weakness.labels[0]: weakness.name for weakness in before.weaknesses}
    by_label: defaultdict[str, list[int]] = defaultdict(list)
    for row, own in enumerate(labels):
        for label in own:
            by_label[label].append(row)
    changes = [_change(names.get(label, f"{unnamed}:{label}"), then[rows], now[rows]) for label, rows in by_label.items()]
    changes = [change for change in changes if change.fixed + change.broken]
    adjusted = false_discovery_control([change.p_value for change in changes]) if changes else []
    changes = [replace(change, p_value=float(p_value)) for change, p_value in zip(changes, adjusted, strict=True)]
    return (_change("all", then, now), *sorted(changes, key=lambda change: (change.p_value, change.name)))


def _weakness(label: str, num_rows: int, confusions: Sequence[Confusion]) -> Weakness:
    """Of a label's confusions, most frequent first."""
    missed = sum(confusion.count for confusion in confusions)
    most = confusions[0]
    is_pair = 2 * most.count > missed
    examples = sorted((row for confusion in confusions for row in confusion.examples), key=lambda row: -row.confidence)
    return Weakness(
        name=f"pair:{label}>{most.predicted}" if is_pair else f"class:{label}",
        labels=(label, most.predicted) if is_pair else (label,),
        missed=missed,
        num_rows=num_rows,
        at_least=float(binomtest(missed, num_rows).proportion_ci(CONFIDENCE, method="wilson").low),
        examples=most.examples if is_pair else tuple(examples[:NUM_EXAMPLES]),
    )


def _change(name: str, before: NDArray[np.bool_], now: NDArray[np.bool_]) -> Change:
    fixed, broken = int((now & ~before).sum()), int((before & ~now).sum())
    return Change(name, len(now), float(before.mean()), float(now.mean()), fixed, broken, mcnemar(fixed, broken))
