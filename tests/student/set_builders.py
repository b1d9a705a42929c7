"""The things, tools and beasts of `builders`, several to a text, or none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from engine.config import RunConfig
from engine.records import Annotation, Example, RoundRecord, RowCounts
from engine.rundir import RunDir
from engine.store.schemas import pack_rounds, pack_samples
from engine.store.segments import write_segment
from tests.student.builders import FILLERS, LABELS, WORDS, make_config, make_sample

SETS = [chosen for size in range(len(LABELS) + 1) for chosen in combinations(LABELS, size)]
"""Every set of the labels, in the task's order; the first is none."""


def make_sets(count: int, offset: int = 0) -> list[Example]:
    """Texts with a word of each of their labels; all sets in turn, different texts for different numbers."""
    return [_row(number) for number in range(offset, offset + count)]


def _row(number: int) -> Example:
    labels, turn = SETS[number % len(SETS)], number // len(SETS)
    words = [WORDS[label][(turn + place) % 4] for place, label in enumerate(labels)]
    return Example(" ".join([FILLERS[turn % 8], *words, FILLERS[turn // 8 % 8], *["again"] * (turn // 64)]), "", labels=labels)


def make_set_run_config(folder: Path, encoder: Path, **sections: dict[str, Any]) -> RunConfig:
    """16 seed, 24 validation and 24 test rows."""
    config = make_config(folder, encoder, **sections)
    for name, rows in (("seed", make_sets(16)), ("validation", make_sets(24, 100)), ("test", make_sets(24, 200))):
        write_sets(folder / f"{name}.jsonl", rows)
    return RunConfig.model_validate(config.model_dump() | {"task": config.task.model_dump() | {"kind": "multi_label"}})


def write_sets(path: Path, rows: Sequence[Example]) -> None:
    path.write_text("".join(json.dumps({"text": row.text, "labels": row.labels}) + "\n" for row in rows), encoding="utf-8")


def complete_set_round(run: RunDir, round: int, rows: Sequence[Example]) -> None:
    samples = [
        replace(make_sample(1000 * round + number, row.text, "", round), annotation=Annotation(labels=row.labels))
        for number, row in enumerate(rows)
    ]
    write_segment(run.table("samples"), pack_samples(samples))
    counts = RowCounts(requested=len(rows), accepted=len(rows))
    write_segment(run.table("rounds"), pack_rounds([RoundRecord(round, round - 1, 1, 1, counts, 10, 10, 0.1)]))
