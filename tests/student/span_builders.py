"""Texts with marked entities that the small student of `builders` can learn: runs of words of one kind among fillers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from engine.config import RunConfig
from engine.records import Annotation, Example, RoundRecord, RowCounts, Span
from engine.rundir import RunDir
from engine.store.schemas import pack_rounds, pack_samples
from engine.store.segments import write_segment
from tests.student.builders import FILLERS, LABELS, WORDS, make_config, make_sample


def mark(text: str, *spans: tuple[str, str]) -> Example:
    """Each span is a piece of the text, found behind the one before it, and its type."""
    found: list[Span] = []
    for piece, type in spans:
        start = text.index(piece, found[-1].end if found else 0)
        found.append(Span(start, start + len(piece), type))
    return Example(text, "", tuple(found))


def make_marked(count: int, offset: int = 0) -> list[Example]:
    """Two entities of different types in a text, the first of two words, the second of one."""
    rows: list[Example] = []
    for number in range(offset, offset + count):
        first, second = LABELS[number % 3], LABELS[(number + 1 + number // 3 % 2) % 3]
        words = WORDS[first][number // 3 % 4], WORDS[first][(number // 3 + 1 + number % 2) % 4]
        name, other = " ".join(words), WORDS[second][number // 5 % 4]
        text = f"{FILLERS[number % 8]} {name} {FILLERS[number // 7 % 8]} {other} {FILLERS[number // 2 % 8]}"
        rows.append(mark(text, (name, first), (other, second)))
    return rows


def make_span_config(folder: Path, encoder: Path, **sections: dict[str, Any]) -> RunConfig:
    """6 seed, 18 validation and 18 test rows."""
    config = make_config(folder, encoder, **sections)
    for name, rows in (("seed", make_marked(6)), ("validation", make_marked(18, 100)), ("test", make_marked(18, 200))):
        write_marked(folder / f"{name}.jsonl", rows)
    return RunConfig.model_validate(config.model_dump() | {"task": config.task.model_dump() | {"kind": "ner"}})


def write_marked(path: Path, rows: Sequence[Example]) -> None:
    lines = ({"text": row.text, "spans": [{"start": span.start, "end": span.end, "type": span.type} for span in row.spans]} for row in rows)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def complete_marked_round(run: RunDir, round: int, rows: Sequence[Example]) -> None:
    samples = [
        replace(make_sample(1000 * round + number, row.text, "", round), annotation=Annotation(row.spans))
        for number, row in enumerate(rows)
    ]
    write_segment(run.table("samples"), pack_samples(samples))
    counts = RowCounts(requested=len(rows), accepted=len(rows))
    write_segment(run.table("rounds"), pack_rounds([RoundRecord(round, round - 1, 1, 1, counts, 10, 10, 0.1)]))
