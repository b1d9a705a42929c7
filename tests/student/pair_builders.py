"""Pairs of the words of `builders`, whose label says which of the two texts has the fruit: a student that does not know which text is which
cannot learn it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from engine.config import RunConfig
from engine.records import Annotation, Example, RoundRecord, RowCounts
from engine.rundir import RunDir
from engine.store.schemas import pack_rounds, pack_samples
from engine.store.segments import write_segment
from tests.student.builders import FILLERS, WORDS, make_config, make_sample

PAIR_LABELS = ("first", "second", "neither")


def make_pairs(count: int, offset: int = 0) -> list[Example]:
    """All labels in turn; different pairs for different numbers."""
    return [_row(number) for number in range(offset, offset + count)]


def _row(number: int) -> Example:
    label, turn = PAIR_LABELS[number % 3], number // 3
    tools, fruit = WORDS["tool"], WORDS["fruit"][turn % 4]
    words = [tools[turn // 2 % 4], tools[turn // 8 % 4]]
    if label != "neither":
        words[PAIR_LABELS.index(label)] = fruit
    texts = [f"{FILLERS[(turn + side) % 8]} {word}" for side, word in enumerate(words)]
    return Example(texts[0], label, text_pair=" ".join([texts[1], FILLERS[turn // 8 % 8], *["again"] * (turn // 64)]))


def make_pair_run_config(folder: Path, encoder: Path, **sections: dict[str, Any]) -> RunConfig:
    """24 seed, 24 validation and 24 test rows."""
    config = make_config(folder, encoder, **sections)
    for name, rows in (("seed", make_pairs(24)), ("validation", make_pairs(24, 300)), ("test", make_pairs(24, 600))):
        write_pairs(folder / f"{name}.jsonl", rows)
    task = config.task.model_dump() | {"kind": "pair", "labels": [{"name": label} for label in PAIR_LABELS]}
    return RunConfig.model_validate(config.model_dump() | {"task": task})


def write_pairs(path: Path, rows: Sequence[Example]) -> None:
    lines = [{"text": row.text, "text_pair": row.text_pair, "label": row.label} for row in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def complete_pair_round(run: RunDir, round: int, rows: Sequence[Example]) -> None:
    samples = [
        replace(make_sample(1000 * round + number, row.text, row.label, round), annotation=Annotation(text_pair=row.text_pair))
        for number, row in enumerate(rows)
    ]
    write_segment(run.table("samples"), pack_samples(samples))
    counts = RowCounts(requested=len(rows), accepted=len(rows))
    write_segment(run.table("rounds"), pack_rounds([RoundRecord(round, round - 1, 1, 1, counts, 10, 10, 0.1)]))
