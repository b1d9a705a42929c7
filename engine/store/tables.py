"""What anybody may read of a run while its writers work, and the one table that the student writes.

Invariants: durable before trainable (the student is handed committed rows of completed rounds, nothing else); one writer a table: the
engine's tables are written by `engine.store.store`, evaluations by `append_evaluation` in the student.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from engine.errors import StoreError
from engine.records import Call, Message, Rejection, RoundRecord, Sample
from engine.rundir import RunDir
from engine.store.schemas import (
    SCHEMAS,
    Evaluation,
    pack_evaluations,
    unpack_calls,
    unpack_prompts,
    unpack_rejections,
    unpack_rounds,
    unpack_samples,
)
from engine.store.segments import committed, open_table, prepare_folder, read_parts, read_table, retry_moved, write_segment
from engine.store.text import unescape
from engine.text import Content


class NewSamples(NamedTuple):
    """Rows past a watermark, and the watermark behind them."""

    table: pa.Table
    watermark: int
    """Number of the last segment that was read; 0 before the first."""


def read_rounds(run: RunDir) -> list[RoundRecord]:
    """The completed rounds, in order."""
    return sorted(unpack_rounds(read_table(run.table("rounds"), SCHEMAS["rounds"])), key=lambda record: record.round)


def read_samples(run: RunDir, filter: ds.Expression | None = None) -> list[Sample]:
    """Committed samples, in the order written, those of a round in progress included."""
    return unpack_samples(read_table(run.table("samples"), SCHEMAS["samples"], filter=filter))


def read_rejections(run: RunDir, filter: ds.Expression | None = None) -> list[Rejection]:
    """Committed rejections, as above."""
    return unpack_rejections(read_table(run.table("rejections"), SCHEMAS["rejections"], filter=filter))


def read_prompt(run: RunDir, prompt_hash: str) -> tuple[Message, ...]:
    """What a committed row or call was asked with."""
    wanted = pc.field("prompt_hash") == prompt_hash
    return unpack_prompts(read_table(run.table("prompts"), SCHEMAS["prompts"], filter=wanted))[prompt_hash]


def read_texts(run: RunDir) -> Iterator[Content]:
    """Of all committed samples, or the pairs that they are, in the order written; for runs that are larger than memory."""
    samples = open_table(run.table("samples"), SCHEMAS["samples"])
    for batch in samples.to_batches(columns=["text", "text_pair"], batch_readahead=1, fragment_readahead=1):
        texts, others = batch.columns
        if others.null_count == len(others):
            yield from map(unescape, texts.to_pylist())
        else:
            yield from zip(map(unescape, texts.to_pylist()), map(unescape, others.to_pylist()), strict=True)


def read_calls(run: RunDir, filter: ds.Expression | None = None) -> list[Call]:
    """Committed calls with what was sent, in the order written."""
    # Calls first: a committed call has its prompt committed.
    calls = read_table(run.table("calls"), SCHEMAS["calls"], filter=filter)
    wanted = pc.field("prompt_hash").isin(calls.column("prompt_hash").unique())
    return unpack_calls(calls, unpack_prompts(read_table(run.table("prompts"), SCHEMAS["prompts"], filter=wanted)))


def samples_since(run: RunDir, watermark: int, round: int) -> NewSamples:
    """Samples of rounds up to `round` in the segments past the watermark; text as stored (see `engine.store.text`).

    Reading stops before the first segment that holds a later round, so that a student far behind sees each round's rows as they were
    then, merged or not. Round 0 has none. StoreError if the round is not complete: its rows may not be learned from yet.
    """
    if round > 0 and round not in {record.round for record in read_rounds(run)}:
        raise StoreError(f"round {round} of {run.root} is not complete, so its rows may not be learned from yet")
    return retry_moved(lambda: _samples_since(run.table("samples"), watermark, round))


def _samples_since(folder: Path, watermark: int, round: int) -> NewSamples:
    schema = SCHEMAS["samples"]
    tables = [schema.empty_table()]
    for segment in committed(folder, watermark):
        for number, rows in enumerate(read_parts(segment, schema), start=segment.first):
            if number <= watermark:
                continue
            if max(rows.column("round").unique().to_pylist()) > round:
                return NewSamples(pa.concat_tables(tables), watermark)
            tables.append(rows.replace_schema_metadata(schema.metadata))
            watermark = number
    return NewSamples(pa.concat_tables(tables), watermark)


def append_evaluation(run: RunDir, evaluation: Evaluation) -> bool:
    """Commit a row of the evaluations table; False if the round's student was scored on that split already. For the student alone."""
    folder, schema = run.table("evaluations"), SCHEMAS["evaluations"]
    prepare_folder(folder)
    same = (pc.field("round") == evaluation.round) & (pc.field("split") == evaluation.split)
    if read_table(folder, schema, columns=["round"], filter=same).num_rows:
        return False
    write_segment(folder, pack_evaluations([evaluation]))
    return True
