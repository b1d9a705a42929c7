"""Files that labelled rows are written to: JSON lines, CSV or Parquet, by the ending of their name.

Invariant: what has its final name is complete. Memory holds a batch.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from engine.errors import StoreError, UserError
from engine.rundir import sync_folder

KINDS = (".jsonl", ".csv", ".parquet")

Write: TypeAlias = Callable[[list[dict[str, Any]]], None]
"""Takes rows, each with the fields of the schema."""


def check_target(path: Path) -> None:
    """UserError if its ending is none that can be written, or its folder is not there."""
    if path.suffix not in KINDS:
        raise UserError(f"--out {path}: unknown kind of file {path.suffix!r}; expected a name that ends in {', '.join(KINDS)}")
    if not path.parent.is_dir() or path.is_dir():
        raise UserError(f"--out {path}: no file that can be written; give a file in a folder that is there")


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Generator[Write]:
    """The file is there once the block is left without an error, in the place of what was there; of no rows there is none."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    num_rows = 0
    try:
        with temporary.open("wb") as file, _open(file, path.suffix, schema) as put:

            def write(rows: list[dict[str, Any]]) -> None:
                nonlocal num_rows
                num_rows += len(rows)
                if rows:
                    put(rows)

            yield write
        if num_rows:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.rename(path)
        else:
            path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _open(file: IO[bytes], kind: str, schema: pa.Schema) -> Generator[Write]:
    if kind == ".jsonl":
        encoder = msgspec.json.Encoder()
        yield lambda rows: _put(file, encoder.encode_lines(rows))
        return
    is_csv = kind == ".csv"
    # A CSV cell holds no structure: there it is JSON.
    flat = pa.schema([pa.field(field.name, pa.string()) if is_csv and pa.types.is_nested(field.type) else field for field in schema])
    nested = [field.name for field in schema if is_csv and pa.types.is_nested(field.type)]
    with (pa_csv.CSVWriter if is_csv else pq.ParquetWriter)(file, flat) as writer:

        def put(rows: list[dict[str, Any]]) -> None:
            flattened = [row | {name: row[name] and json.dumps(row[name], ensure_ascii=False) for name in nested} for row in rows]
            writer.write_batch(pa.RecordBatch.from_pylist(flattened, flat))

        yield put


def _put(file: IO[bytes], content: bytes) -> None:
    file.write(content)
