"""A table as a folder of numbered Parquet files, written once and never changed.

Invariants: what has its final name is complete (temporary name, fsync, rename, fsync of the folder); numbers rise from 1 without gaps; one
writer a table. A temporary name begins with a dot, so that no reader takes it for a segment.

`engine.store.compaction` puts one file `000001-000017.parquet` in the place of those it was merged from, beside a writer and readers. Where
both are there, the merged one counts; it knows how many rows each had, so that a watermark between them stays exact. A reader that catches
the change half-way sees a gap in the numbers, or loses a file, and lists again.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from engine.errors import StoreError
from engine.rundir import write_atomically
from engine.store.schemas import VERSION_KEY, as_present, is_readable

T = TypeVar("T")

PARTS_KEY = b"reflux.parts"
"""Of a merged segment's metadata: the rows of each segment it was merged from, with commas between."""

_NAME = re.compile(r"(\d{6,})(?:-(\d{6,}))?\.parquet")
_ROW_GROUP_ROWS = 16_384
_CALL_ROW_GROUP_ROWS = 4_096
"""Of calls one row is wanted, the answer to a request that is replayed, and its whole row group is read: of these in a quarter of the
time, for a thousandth more bytes.
"""

_ZSTD_LEVEL = 1
_NUM_LISTINGS = 20
_DISTINCT = {"id", "text", "text_pair", "raw", "detail", "request_id", "prompt_hash", "messages", "started_at", "latency_s", "seed"}


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of a table, and the numbers of the segments in it; two only where it was merged."""

    path: Path
    first: int
    last: int


_START = Segment(Path(), 0, 0)


def committed(folder: Path, after: int = 0) -> list[Segment]:
    """The segments with a number above `after`, in order; none where there is no folder yet. StoreError if one is missing."""
    segments: list[Segment] = []
    for _ in range(_NUM_LISTINGS):
        segments = _uncovered(_list(folder))
        if all(segment.first == before.last + 1 for before, segment in pairwise([_START, *segments])):
            return [segment for segment in segments if segment.last > after]
    missing = next(before.last + 1 for before, segment in pairwise([_START, *segments]) if segment.first != before.last + 1)
    raise StoreError(f"segment {missing} is missing in {folder}; the run cannot be read without it")


def retry_moved(read: Callable[[], T]) -> T:
    """Its result; called again when a file it had listed was merged before it was read."""
    for _ in range(_NUM_LISTINGS - 1):
        try:
            return read()
        except FileNotFoundError:
            continue
    return read()


def write_segment(folder: Path, rows: pa.Table) -> int:
    """Commit the rows under the next number, and return it. StoreError if the disk refuses; then nothing of it stays."""
    before = committed(folder)[-1:]
    number = before[0].last + 1 if before else 1
    content = pa.BufferOutputStream()
    with segment_writer(content, rows.schema) as writer:
        writer.write_table(rows, row_group_rows(rows.schema))
    write_atomically(folder / f"{number:06d}.parquet", content.getvalue().to_pybytes())
    return number


def segment_writer(file: Any, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(file, schema, **writer_options(schema))


def row_group_rows(schema: pa.Schema) -> int:
    return _CALL_ROW_GROUP_ROWS if "latency_s" in schema.names else _ROW_GROUP_ROWS


def writer_options(schema: pa.Schema) -> dict[str, Any]:
    """Chosen, like row groups, by `benchmarks.store.layout`. The next levels of zstd save a tenth of the bytes for a tenth to a third more
    time, on the one core that the event loop has too; lz4 and snappy take two thirds more bytes, and no query is quicker for it.
    Dictionaries only where values come again, as they are dear for ids and texts; statistics only of rounds, as nothing else is looked up
    by range. The order of columns makes no difference.
    """
    return {
        "compression": "zstd",
        "compression_level": _ZSTD_LEVEL,
        "use_dictionary": [name for name in schema.names if name not in _DISTINCT],
        "write_statistics": ["round"] if "round" in schema.names else False,
    }


def prepare_folder(folder: Path) -> None:
    """Make it where it is not there, and delete temporaries of a process that died while writing. Only the table's writer may call it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(".*.tmp"):
            path.unlink()
    except OSError as error:
        raise StoreError(f"cannot prepare {folder}: {error.strerror}") from error


def open_table(folder: Path, schema: pa.Schema) -> ds.Dataset:
    """The segments committed by now, as one dataset that reads them when asked; later ones do not join it."""

    def listed() -> ds.Dataset:
        return _open(committed(folder), schema)

    return retry_moved(listed)


def read_table(folder: Path, schema: pa.Schema, columns: list[str] | None = None, filter: ds.Expression | None = None) -> pa.Table:
    """Rows of the committed segments, in the order written. StoreError if a segment is damaged or of another version."""

    def read() -> pa.Table:
        segments = committed(folder)
        try:
            return _open(segments, schema).to_table(columns=columns, filter=filter)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"cannot read the table {folder}: {error}") from error

    return retry_moved(read)


def open_segment(segment: Segment, schema: pa.Schema) -> pq.ParquetFile:
    """StoreError as above; FileNotFoundError if it has been merged meanwhile."""
    path = segment.path
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path} is no Parquet file that can be read: {error}") from error
    found, expected = (file.schema_arrow.metadata or {}).get(VERSION_KEY, b"nothing of ours"), schema.metadata[VERSION_KEY]
    if not is_readable(schema, found):
        raise StoreError(
            f"{path} holds {found.decode(errors='replace')!r}, this Reflux reads {expected.decode()!r}; use the Reflux that wrote this run"
        )
    return file


def read_parts(segment: Segment, schema: pa.Schema) -> list[pa.Table]:
    """The rows of each of the segments in this file. Errors as of `open_segment`."""
    with open_segment(segment, schema) as file:
        counts = part_counts(file)
        try:
            rows = as_present(file.read(), schema)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"cannot read the table {segment.path.parent}: {error}") from error
    return [rows.slice(end - count, count) for end, count in zip(accumulate(counts), counts, strict=True)]


def part_counts(file: pq.ParquetFile) -> list[int]:
    """Rows of each of the segments in a file."""
    parts = (file.schema_arrow.metadata or {}).get(PARTS_KEY)
    return [int(count) for count in parts.split(b",")] if parts else [file.metadata.num_rows]


def covered(folder: Path) -> list[Path]:
    """Files whose rows are in a merged segment too: what a compaction leaves behind that was killed."""
    segments = _list(folder)
    counted = set(_uncovered(segments))
    return [segment.path for segment in segments if segment not in counted]


def _list(folder: Path) -> list[Segment]:
    try:
        names = [(path, _NAME.fullmatch(path.name)) for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read {folder}: {error.strerror}") from error
    return [Segment(path, int(name[1]), int(name[2] or name[1])) for path, name in names if name is not None]


def _uncovered(segments: list[Segment]) -> list[Segment]:
    """Without those that lie within another, in order."""
    kept: list[Segment] = []
    for segment in sorted(segments, key=lambda segment: (segment.first, -segment.last)):
        if not kept or segment.last > kept[-1].last:
            kept.append(segment)
    return kept


def _open(segments: list[Segment], schema: pa.Schema) -> ds.Dataset:
    for segment in segments:
        open_segment(segment, schema).close()
    paths = [str(segment.path) for segment in segments]
    return ds.dataset(paths, schema=schema, format="parquet") if paths else ds.dataset(schema.empty_table())
