"""Rows to be labelled, from files and pipes, window by window: memory holds one window, however long the file.

Invariants: every row comes once, in order, with all its columns. A row that cannot be labelled comes too, with the reason; a file that
cannot be read further is a UserError.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from engine.errors import UserError
from engine.task.bad_lines import csv_delimiter
from engine.task.row_files import data_files
from engine.text import Content, joined

WINDOW_ROWS = 4096
"""Rows that are sorted by length together: enough that a batch pads little."""
WINDOW_BYTES = 1 << 22
"""Of lines read at once, so that long ones do not fill the memory."""
MAX_LINE_BYTES = 1 << 26
"""Of a pipe: what has no end of line at all would fill the memory."""
_CSV_BLOCK_BYTES = 1 << 24
"""Of CSV read at once; a longer row cannot be read."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows in their order. Either `records` or `batch` holds their columns, as the file had them."""

    texts: Sequence[Content]
    """What is to be labelled, texts or pairs; empty ones where there is a problem."""
    problems: Mapping[int, str]
    """Why a row cannot be labelled, by its position in `texts`."""
    records: Sequence[dict[str, Any]] | None = None
    batch: pa.RecordBatch | None = None


class Stream(Protocol):
    """Bytes as they come: what `sys.stdin.buffer` can do."""

    def read1(self, size: int = -1, /) -> bytes: ...


def read_chunks(path: Path, *columns: str) -> Iterator[Chunk]:
    """Of a .parquet, .csv or .jsonl file, or a folder with a Hugging Face dataset (`folder:split` chooses a split).

    `columns`: the one that holds the texts, and a second where they are pairs.
    """
    for file in data_files(path):
        if file.suffix == ".jsonl":
            with _explained(file), file.open("rb") as lines:
                yield from read_objects(iter(lambda: lines.readlines(WINDOW_BYTES), []), *columns)
        else:
            yield from _read_batches(file, columns)


def read_objects(windows: Iterable[Sequence[bytes]], *columns: str) -> Iterator[Chunk]:
    """JSON lines. Rows may differ in their fields; `columns` as above."""
    decoder = msgspec.json.Decoder()
    number = 0
    for lines in windows:
        texts: list[Content] = []
        records: list[dict[str, Any]] = []
        problems: dict[int, str] = {}
        for line in lines:
            number += 1
            if not line.strip():
                continue
            record, problem = _decode(decoder, line)
            found = [record.get(column) for column in columns]
            for column, text in zip(columns, found, strict=True):
                if not problem and not isinstance(text, str):
                    has = f"is {type(text).__name__}" if text is not None else "has no text"
                    problem = f"{column!r} {has}, expected a string"
            if problem:
                problems[len(texts)] = f"line {number}: {problem}"
            texts.append(joined([text if isinstance(text, str) else "" for text in found]))
            records.append(record)
        yield from _in_windows(texts, problems, records)


def read_lines(windows: Iterable[Sequence[bytes]], *columns: str) -> Iterator[Chunk]:
    """A text a line, or the two of a pair with a tab between them; an empty line is an empty text."""
    number = 0
    for lines in windows:
        rows = [line.decode(errors="replace").rstrip("\r\n").split("\t", maxsplit=len(columns) - 1) for line in lines]
        problems = {
            place: f"line {number + place + 1}: one text, expected a pair with a tab between its texts"
            for place, row in enumerate(rows)
            if len(row) < len(columns)
        }
        number += len(rows)
        texts = [joined([*row, *[""] * (len(columns) - len(row))]) for row in rows]
        yield from _in_windows(texts, problems, [dict(zip(columns, row, strict=False)) for row in rows])


def lines_at_once(stream: Stream) -> Iterator[list[bytes]]:
    """All whole lines that have come so far, and then those that came meanwhile: one at a time from a person, thousands from a file."""
    rest = b""
    while piece := stream.read1(WINDOW_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise UserError(f"standard input: a line of more than {MAX_LINE_BYTES >> 20} MiB; expected a row a line")
        if lines:
            yield lines
    if rest:
        yield [rest]


def count_rows(path: Path) -> int | None:
    """Where the files say so; None where one would have to read them."""
    files = data_files(path)
    if any(file.suffix != ".parquet" for file in files):
        return None
    total = 0
    for file in files:
        with _explained(file):
            total += pq.read_metadata(file).num_rows
    return total


def _decode(decoder: msgspec.json.Decoder[Any], line: bytes) -> tuple[dict[str, Any], str]:
    try:
        value = decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return {}, f"no JSON: {error}"
    return (value, "") if isinstance(value, dict) else ({}, "a JSON value that is no object")


def _in_windows(texts: Sequence[Content], problems: Mapping[int, str], records: Sequence[dict[str, Any]]) -> Iterator[Chunk]:
    for start in range(0, len(texts), WINDOW_ROWS):
        here = range(start, min(start + WINDOW_ROWS, len(texts)))
        chosen = {row - start: problem for row, problem in problems.items() if row in here}
        yield Chunk(texts[here.start : here.stop], chosen, records=records[here.start : here.stop])


def _read_batches(file: Path, columns: Sequence[str]) -> Iterator[Chunk]:
    with _explained(file):
        schema, batches = _open(file)
        for column, option in zip(columns, ("--text-column", "--text-pair-column"), strict=False):
            if column not in schema.names:
                raise UserError(f"{file}: no column {column!r}; it has {', '.join(schema.names)}; name another with {option}")
        number = 0
        for whole in batches:
            for start in range(0, whole.num_rows, WINDOW_ROWS):
                batch = whole.slice(start, WINDOW_ROWS)
                found: list[list[str | None]] = [batch.column(column).cast(pa.string()).to_pylist() for column in columns]
                problems = {
                    row: f"row {number + row + 1}: {column!r} has no text"
                    for column, texts in zip(columns, found, strict=True)
                    for row, text in enumerate(texts)
                    if text is None
                }
                yield Chunk([joined([text or "" for text in row]) for row in zip(*found, strict=True)], problems, batch=batch)
                number += batch.num_rows


def _open(file: Path) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    match file.suffix:
        case ".parquet":
            parquet = pq.ParquetFile(file, memory_map=True)
            return parquet.schema_arrow, parquet.iter_batches(batch_size=WINDOW_ROWS)
        case ".csv":
            options = {
                "read_options": pa_csv.ReadOptions(block_size=_CSV_BLOCK_BYTES),
                "parse_options": pa_csv.ParseOptions(delimiter=csv_delimiter(file), newlines_in_values=True),
            }
            names = pa_csv.open_csv(file, **options).schema.names
            # Passed through as they stand there: "007" must not become 7.
            strings = pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
            reader = pa_csv.open_csv(file, convert_options=strings, **options)
            return reader.schema, reader
        case ".arrow":
            reader = pa.ipc.open_stream(pa.memory_map(str(file)))
            return reader.schema, reader
        case suffix:
            raise UserError(f"{file}: unknown kind of file {suffix!r}; expected .jsonl, .csv or .parquet, or the folder of a dataset")


@contextmanager
def _explained(file: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from None
    except pa.ArrowException as error:
        raise UserError(f"{file}: not a readable {file.suffix} file: {str(error).splitlines()[0]}") from None
