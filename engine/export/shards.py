"""Data files of one split, named as on the Hugging Face hub: `train-00000-of-00002.parquet`. Each is on disk when it is closed."""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Literal, Protocol, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from engine.rundir import sync_folder

Format: TypeAlias = Literal["parquet", "jsonl"]

SHARD_BYTES = 256 * 2**20
"""A file that has reached this is followed by the next: large enough to be few, small enough to be sent again when a transfer breaks."""
_ZSTD_LEVEL = 3


class _Writer(Protocol):
    """Writes batches to a file that is open."""

    def write(self, batch: pa.RecordBatch) -> None: ...
    def close(self) -> None: ...


class _ParquetWriter:
    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(file, schema, compression="zstd", compression_level=_ZSTD_LEVEL)

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class _JsonlWriter:
    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._file = file
        self._encoder = msgspec.json.Encoder()

    def write(self, batch: pa.RecordBatch) -> None:
        self._file.write(self._encoder.encode_lines(batch.to_pylist()))

    def close(self) -> None:
        pass


def write_shards(folder: Path, split: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], format: Format) -> list[Path]:
    """The files, in order; none for no rows. Batches are written as they come, each as a row group, and none is held."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    remaining = iter(batches)
    while (first := next(remaining, None)) is not None:
        path = folder / f"{split}-{len(files):05d}.{format}"
        _write_shard(path, schema, first, remaining, format)
        files.append(path)
    named = [path.rename(folder / f"{split}-{number:05d}-of-{len(files):05d}.{format}") for number, path in enumerate(files)]
    sync_folder(folder)
    return named


def _write_shard(path: Path, schema: pa.Schema, first: pa.RecordBatch, more: Iterable[pa.RecordBatch], format: Format) -> None:
    with path.open("wb") as file:
        writer: _Writer = (_ParquetWriter if format == "parquet" else _JsonlWriter)(file, schema)
        writer.write(first)
        if file.tell() < SHARD_BYTES:
            for batch in more:
                writer.write(batch)
                if file.tell() >= SHARD_BYTES:
                    break
        writer.close()
        file.flush()
        os.fsync(file.fileno())
