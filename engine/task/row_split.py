"""One file of labelled rows, cut into the parts that a run needs: the same rows and seed give the same parts.

Invariants: each part has rows of every label; no text, or pair of texts, is in two parts, also not in other case, spacing or punctuation.
Where rows have several labels they are cut by the rarest that each has, and what has too few rows of its own for all parts is left to the
seed: then each label is in the seed, and in the other parts if it has rows enough.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from engine.errors import UserError
from engine.gates.gates import comparable
from engine.records import Example

PartName: TypeAlias = str
"""`seed`, `validation` or `test`."""

HELD_OUT_SHARE = 0.3
"""Of a label's rows, for validation and again for test."""
MOST_HELD_OUT = 200
"""Rows of a label in validation, and in test: more would make each round's scoring longer, and no score much surer."""
_MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Parts:
    """What became of the rows."""

    rows: Mapping[PartName, tuple[Example, ...]]
    """The seed holds what the others left."""
    num_copies: int
    """Rows left out because their text was there already, in this file or in one that holds another part."""


def split_rows(rows: Sequence[Example], parts: Collection[PartName], seed: int, apart_from: Collection[Example] = ()) -> Parts:
    """Cut `rows` into these parts, label by label. `apart_from`: rows that are another part already; their texts are left out.

    UserError if some label has fewer different texts than there are parts.
    """
    known = {comparable(row.content) for row in apart_from}
    by_label: defaultdict[str, list[Example]] = defaultdict(list)
    num_rows = 0
    frequent = Counter(label for row in rows for label in row.labels)
    counts: Counter[str] = Counter()
    for row in rows:
        labels = row.labels or (row.label,)
        rarest = min(labels, key=lambda label: frequent[label])
        by_label[rarest]  # a label whose texts are all copies is one with too few rows
        counts.update(dict.fromkeys(labels, 0))
        if (text := comparable(row.content)) not in known:
            known.add(text)
            by_label[rarest].append(row)
            counts.update(labels)
            num_rows += 1
    _require_rows({label: count for label, count in counts.items() if label or not frequent}, len(parts))
    held_out = [name for name in ("validation", "test") if name in parts]
    cut: dict[PartName, list[Example]] = {name: [] for name in ("seed", *held_out)}
    for label in sorted(by_label):
        drawn = random.Random(f"{seed} split {label}").sample(by_label[label], len(by_label[label]))
        for name in held_out if len(drawn) >= len(parts) else ():
            count = min(max(1, round(HELD_OUT_SHARE * len(by_label[label]))), MOST_HELD_OUT)
            cut[name] += drawn[:count]
            drawn = drawn[count:]
        cut["seed"] += drawn
    mixed = {name: tuple(random.Random(f"{seed} order").sample(part, len(part))) for name, part in cut.items()}
    return Parts(mixed, num_copies=len(rows) - num_rows)


def _require_rows(counts: Mapping[str, int], at_least: int) -> None:
    few = {label: count for label, count in sorted(counts.items()) if count < at_least}
    if few:
        shown = ", ".join(f"{label!r} has {count}" for label, count in [*few.items()][:_MAX_SHOWN]) + (
            " …" if len(few) > _MAX_SHOWN else ""
        )
        raise UserError(
            f"too few rows to split: each label needs at least {at_least} different texts, one for each part; {shown}. "
            "Label some more, leave these labels out, or give files of your own with --validation and --test"
        )


def scarce_labels(rows: Sequence[Example], at_least: int) -> list[str]:
    """Those that some row has, and fewer rows than that."""
    counts = Counter(label for row in rows for label in row.labels or (row.label,))
    return sorted(label for label, count in counts.items() if label and count < at_least)
