"""Merges the small segments of a run's tables into large ones, also while an engine writes and a student reads.

Invariants: at every moment each row is in exactly one segment that counts. A merged segment is committed by one rename, and only then the
files it was merged from are deleted; killed in between, the next compaction deletes them. A table's last segment is left alone: its
number tells the writer the next one, and readers that the listing they took is whole.

The rows keep their order, so that what knows a row by its place in the table still finds it.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from engine.errors import StoreError
from engine.rundir import RunDir, sync_folder
from engine.store.schemas import SCHEMAS, as_present
from engine.store.segments import PARTS_KEY, Segment, committed, covered, open_segment, part_counts, row_group_rows, segment_writer

MAX_MERGED_BYTES = 256 * 2**20
"""Segments are merged up to this size."""
SMALL_BYTES = 64 * 2**20
"""Larger segments stay as they are, so that no row is copied again and again as the table grows."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What became of one table."""

    table: str
    merged: int
    """Files that were merged."""
    into: int
    """Files they became."""


def compact(run: RunDir) -> list[Compacted]:
    """All tables of the run. UserError if another compaction is at work; StoreError if the disk refuses, and then no row is lost."""
    with run.lock("compaction"):
        return [_compact(run.table(name), name) for name in SCHEMAS]


def _compact(folder: Path, name: str) -> Compacted:
    merged = into = 0
    try:
        for leftover in (*folder.glob(".*.merging"), *covered(folder)):
            leftover.unlink()
        for group in _groups(committed(folder)[:-1]):
            _merge(group, name)
            merged += len(group)
            into += 1
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"cannot merge segments in {folder}: {error}") from error
    return Compacted(name, merged, into)


def _groups(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Neighbours that are worth merging."""
    group: list[Segment] = []
    group_bytes = 0
    for segment in segments:
        size = segment.path.stat().st_size
        if size > SMALL_BYTES or group_bytes + size > MAX_MERGED_BYTES:
            if len(group) > 1:
                yield group
            group, group_bytes = [], 0
        if size <= SMALL_BYTES:
            group.append(segment)
            group_bytes += size
    if len(group) > 1:
        yield group


def _merge(group: Sequence[Segment], name: str) -> None:
    schema = SCHEMAS[name]
    folder = group[0].path.parent
    path = folder / f"{group[0].first:06d}-{group[-1].last:06d}.parquet"
    temporary = path.with_name(f".{path.name}.merging")
    counts: list[int] = []
    for segment in group:
        with open_segment(segment, schema) as file:
            counts += part_counts(file)
    parts = ",".join(map(str, counts)).encode()
    with temporary.open("wb") as file:
        with segment_writer(file, schema.with_metadata({**schema.metadata, PARTS_KEY: parts})) as writer:
            for rows in _row_groups(group, schema):
                writer.write_table(rows, row_group_rows(schema))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_folder(folder)
    for segment in group:
        segment.path.unlink()


def _row_groups(group: Sequence[Segment], schema: pa.Schema) -> Iterator[pa.Table]:
    """All rows in order, in tables of whole row groups."""
    held = schema.empty_table()
    for segment in group:
        with open_segment(segment, schema) as file:
            for number in range(file.num_row_groups):
                held = pa.concat_tables([held, as_present(file.read_row_group(number), schema)])
                whole = held.num_rows - held.num_rows % row_group_rows(schema)
                if whole:
                    yield held.slice(0, whole)
                    held = held.slice(whole).combine_chunks()
    if held.num_rows:
        yield held
