"""Where labelled rows go: JSON lines, CSV or Parquet, each row with the columns it came with.

Invariant: what has its final name is complete. New columns are `predicted` (a label, or the list of a text's labels or
spans), `confidence`,
`probabilities` where they are asked for, and `problem` for what could not be labelled (in JSON lines only where there is one).
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from engine.errors import StoreError, UserError
from engine.records import ONE_LABEL, TaskKind
from student.row_reader import Chunk
from student.span_decoding import GuessedSpan

COLUMNS = ("predicted", "confidence", "probabilities", "problem")
KINDS = (".jsonl", ".csv", ".parquet")
SPANS = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("type", pa.string()), ("confidence", pa.float32())]))


Said: TypeAlias = str | Sequence[str] | Sequence[GuessedSpan]
"""A label, labels, or spans."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What is said of the rows of a chunk; None where nothing is."""

    predicted: Sequence[Said | None]
    confidence: Sequence[float | None]
    probabilities: Sequence[dict[str, float] | None] | None
    problem: Sequence[str | None]


Write: TypeAlias = Callable[[Chunk, Answers], None]


def check_output(path: Path) -> None:
    """UserError if its ending is none that can be written, or its folder is not there."""
    if path.suffix not in KINDS:
        raise UserError(f"--out {path}: unknown kind of file {path.suffix!r}; expected a name that ends in {', '.join(KINDS)}")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: there is no folder {path.parent}")


@contextmanager
def writing(path: Path, labels: Sequence[str], kind: TaskKind = "classification") -> Generator[Write]:
    """A file of the kind its ending says, there only when the block is left without an error; it replaces what is there."""
    check_output(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            if path.suffix == ".jsonl":
                yield JsonWriter(file).write
            else:
                with ExitStack() as stack:
                    yield TableWriter(file, path, labels, stack, kind).write
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


class JsonWriter:
    """JSON lines, each there for the reader as soon as it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._encoder = msgspec.json.Encoder()

    def write(self, chunk: Chunk, answers: Answers) -> None:
        records: Sequence[dict[str, Any]] = chunk.batch.to_pylist() if chunk.batch is not None else chunk.records or ()
        lines: list[dict[str, Any]] = []
        for row, record in enumerate(records):
            _require_free(record)
            line = record | {"predicted": _plain(answers.predicted[row]), "confidence": answers.confidence[row]}
            if answers.probabilities is not None:
                line["probabilities"] = answers.probabilities[row]
            if answers.problem[row] is not None:
                line["problem"] = answers.problem[row]
            lines.append(line)
        self._file.write(self._encoder.encode_lines(lines))
        self._file.flush()


class TableWriter:
    """CSV or Parquet. The first rows fix the columns."""

    def __init__(self, file: IO[bytes], path: Path, labels: Sequence[str], stack: ExitStack, kind: TaskKind = "classification") -> None:
        self._file = file
        self._path = path
        self._stack = stack
        self._schema: pa.Schema | None = None
        self._writer: Any = None
        in_csv = path.suffix == ".csv"
        # A CSV cell holds no structure: there it is JSON.
        self._probabilities = pa.string() if in_csv else pa.struct([(label, pa.float32()) for label in labels])
        self._encode: Callable[[Any], Any] = _as_json if in_csv else _as_is
        self._kind: TaskKind = kind

    def write(self, chunk: Chunk, answers: Answers) -> None:
        try:
            batch = self._columns(chunk)
            columns = {
                "predicted": self._predicted(answers),
                "confidence": pa.array(answers.confidence, pa.float32()),
                "problem": pa.array(answers.problem, pa.string()),
            }
            if answers.probabilities is not None:
                columns["probabilities"] = pa.array([self._encode(row) for row in answers.probabilities], self._probabilities)
            for name, column in columns.items():
                batch = batch.append_column(name, column)
            if self._writer is None:
                make = pa_csv.CSVWriter if self._path.suffix == ".csv" else pq.ParquetWriter
                self._writer = self._stack.enter_context(make(self._file, batch.schema))
            self._writer.write_batch(batch)
        except (pa.ArrowException, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"--out {self._path}: rows do not fit into its columns ({reason}); give a name that ends in .jsonl") from None

    def _predicted(self, answers: Answers) -> pa.Array:
        plain = [_plain(answer) for answer in answers.predicted]
        if self._kind in ONE_LABEL:
            return pa.array(plain, pa.string())
        kept = SPANS if self._kind == "ner" else pa.list_(pa.string())
        return pa.array([self._encode(said) for said in plain], pa.string() if self._path.suffix == ".csv" else kept)

    def _columns(self, chunk: Chunk) -> pa.RecordBatch:
        batch = chunk.batch
        if batch is None:
            batch = pa.RecordBatch.from_pylist(list(chunk.records or ()), self._schema)
            strange = {name for record in chunk.records or () for name in record}.difference(batch.schema.names)
            if strange:
                raise UserError(
                    f"--out {self._path}: the field {min(strange)!r} comes only after the first rows; give a name that ends in .jsonl"
                )
        elif self._schema is not None:
            batch = batch.cast(self._schema)
        self._schema = batch.schema
        _require_free(batch.schema.names)
        return batch


def _require_free(names: Any) -> None:
    for name in COLUMNS:
        if name in names:
            raise UserError(f"the rows have a column {name!r} already, which would be lost; rename or remove it first")


def _plain(answer: Said | None) -> str | list[str | dict[str, Any]] | None:
    """As JSON and Arrow take it."""
    return answer if answer is None or isinstance(answer, str) else [item if isinstance(item, str) else item._asdict() for item in answer]


def _as_json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _as_is(value: Any) -> Any:
    return value
