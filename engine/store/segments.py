"""A table as a folder of numbered Parquet files, written once and never changed.

Invariants: what has its final name is complete (temporary name, fsync, rename, fsync of the folder); numbers rise without gaps; one
writer a table. A temporary name begins with a dot, so that no reader takes it for a segment.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from engine.errors import StoreError
from engine.rundir import write_atomically
from engine.store.schemas import VERSION_KEY

_NAME = re.compile(r"\d{6,}\.parquet")


def segment_number(path: Path) -> int:
    return int(path.stem)


def committed(folder: Path, after: int = 0) -> list[Path]:
    """The segments numbered above `after`, in order; none where there is no folder yet."""
    try:
        paths = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read {folder}: {error.strerror}") from error
    return sorted((path for path in paths if segment_number(path) > after), key=segment_number)


def write_segment(folder: Path, table: pa.Table) -> Path:
    """Commit the rows under the next number. StoreError if the disk refuses; then nothing of it stays."""
    last = committed(folder)[-1:]
    path = folder / f"{segment_number(last[0]) + 1 if last else 1:06d}.parquet"
    content = pa.BufferOutputStream()
    pq.write_table(table, content, compression="zstd")
    write_atomically(path, content.getvalue().to_pybytes())
    return path


def remove_leftovers(folder: Path) -> None:
    """Delete temporaries of a process that died while writing. Only the table's writer may call it."""
    try:
        for path in folder.glob(".*.tmp"):
            path.unlink()
    except OSError as error:
        raise StoreError(f"cannot clean up {folder}: {error.strerror}") from error


def open_table(folder: Path, schema: pa.Schema) -> ds.Dataset:
    """The segments committed by now, as one dataset that reads them when asked; later ones do not join it."""
    return _open(committed(folder), schema)


def read_table(folder: Path, schema: pa.Schema, columns: list[str] | None = None, filter: ds.Expression | None = None) -> pa.Table:
    """Rows of the committed segments, in the order written. StoreError if a segment is damaged or of another version."""
    return _read(committed(folder), schema, columns, filter)


def read_segment(path: Path, schema: pa.Schema) -> pa.Table:
    """The rows of one segment. StoreError as above."""
    return _read([path], schema)


def _open(paths: list[Path], schema: pa.Schema) -> ds.Dataset:
    for path in paths:
        _check_version(path, schema)
    return ds.dataset([str(path) for path in paths], schema=schema, format="parquet") if paths else ds.dataset(schema.empty_table())


def _read(paths: list[Path], schema: pa.Schema, columns: list[str] | None = None, filter: ds.Expression | None = None) -> pa.Table:
    try:
        return _open(paths, schema).to_table(columns=columns, filter=filter)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"cannot read the table {paths[0].parent}: {error}") from error


def _check_version(path: Path, schema: pa.Schema) -> None:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path} is no Parquet file that can be read: {error}") from error
    found, expected = metadata.get(VERSION_KEY, b"nothing of ours"), schema.metadata[VERSION_KEY]
    if found != expected:
        raise StoreError(
            f"{path} holds {found.decode(errors='replace')!r}, this Reflux reads {expected.decode()!r}; use the Reflux that wrote this run"
        )
