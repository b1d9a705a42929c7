"""The rows of a run that an export writes: chosen, in order, and readable. Memory holds a few batches; what sorting a round needs beyond
`MEMORY` goes to disk.

The order is that of round and id. An id is a hash, so within a round the classes are mixed, and the same rows come in the same order
however their answers came in.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import StoreError, UserError
from engine.records import TaskKind
from engine.rundir import RunDir
from engine.store import SCHEMAS, connect, unescape
from engine.store.text import MARK
from engine.text import readable

BATCH_ROWS = 20_000
"""A batch becomes a row group, which is what readers of the files hold at once."""
MEMORY = "256MB"
FIRST_COLUMNS: Mapping[TaskKind, tuple[str, ...]] = {
    "classification": ("text", "label"),
    "multi_label": ("text", "labels"),
    "ner": ("text", "spans"),
    "pair": ("text", "text_pair", "label"),
}
_EMPTY: Mapping[TaskKind, frozenset[str]] = {
    "classification": frozenset({"spans", "labels", "text_pair"}),
    "multi_label": frozenset({"label", "spans", "label_probabilities", "text_pair"}),
    "ner": frozenset({"label", "label_probabilities", "labels", "text_pair"}),
    "pair": frozenset({"spans", "labels"}),
}
"""Columns in which nothing stands for a task of this kind."""
SPANS = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("type", pa.string())]))
PROBABILITIES = pa.list_(pa.float32())
LABELS = pa.list_(pa.string())
_PLAIN: Mapping[str, pa.DataType] = {"spans": SPANS, "label_probabilities": PROBABILITIES, "labels": LABELS}
"""Types of lists as other programs write them."""
_FOLDERS_BEFORE_NAME = r"^/.*/"


class RowSource:
    """The rows that were committed when it was opened; use it within `open_rows`. One iteration at a time."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, kind: TaskKind, last_round: int | None, where: str | None) -> None:
        self._connection = connection
        self._kind: TaskKind = kind
        self._last_round = last_round
        self._where = where

    def batches(self, table: str) -> Iterator[pa.RecordBatch]:
        """Chosen rows of `samples` or `rejections`, columns as in `schema`, some thousands at a time. `where` is about samples only."""
        written = schema(table, self._kind)
        columns = ", ".join(written.names)
        # Each round for itself, so that no more than one has to be sorted; files say which rounds they hold.
        for round in sorted(round for round, _ in self.count(table, "round")):
            with _explained(self._where):
                for batch in self._chosen(table).filter(f"round = {round}").order("id").project(columns).to_arrow_reader(BATCH_ROWS):
                    yield _readable(batch, written)

    def count(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        """Chosen rows by the values of these columns, which stand before the number; most frequent first."""
        names = ", ".join(columns)
        with _explained(self._where):
            found = self._chosen(table).aggregate(f"{names}, count(*) as num_rows").order(f"num_rows desc, {names}").fetchall()
        return [tuple(unescape(value) if isinstance(value, str) else value for value in row) for row in found]

    def _chosen(self, table: str) -> duckdb.DuckDBPyRelation:
        rows = self._connection.table(table)
        if self._last_round is not None:
            rows = rows.filter(f"round <= {self._last_round}")
        # DuckDB takes one expression here and no statement, and the connection reaches no file: whatever stands in it only chooses.
        return rows.filter(self._where) if self._where is not None and table == "samples" else rows


@contextmanager
def open_rows(run: RunDir, kind: TaskKind, spill: Path, last_round: int | None, where: str | None) -> Generator[RowSource]:
    """`last_round`: of the rows to write; None takes those of a round in progress too. `where`: SQL over the columns of samples."""
    with connect(run, spill=spill, memory=MEMORY) as connection:
        yield RowSource(connection, kind, last_round, where)


def schema(table: str, kind: TaskKind = "classification") -> pa.Schema:
    """Of what is written for a task of this kind: the table's columns, text and what it is first, without version and constraints."""
    fields, first = SCHEMAS[table], FIRST_COLUMNS[kind]
    rest = [name for name in fields.names if name not in first and name not in _EMPTY[kind]]
    return pa.schema([pa.field(name, _PLAIN.get(name, fields.field(name).type)) for name in (*first, *rest)])


def _readable(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [_readable_text(column) if pa.types.is_string(column.type) else column for column in batch.columns]
    rows = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    if "spans" in schema.names:
        # Their types are names of the task, stored escaped like any string.
        spans: list[list[dict[str, Any]] | None] = rows.column("spans").to_pylist()
        plain = [[{**span, "type": readable(unescape(span["type"]))} for span in row or ()] for row in spans]
        rows = rows.set_column(schema.names.index("spans"), "spans", pa.array(plain, SPANS))
    if "labels" in schema.names:
        named: list[list[str] | None] = rows.column("labels").to_pylist()
        readable_names = [None if row is None else [readable(unescape(label)) for label in row] for row in named]
        rows = rows.set_column(schema.names.index("labels"), "labels", pa.array(readable_names, LABELS))
    if "teacher" in schema.names:
        # A server calls a model by its folder where it was given no name; readers of a dataset need not know the folders of this machine.
        names = pc.call_function(
            "replace_substring_regex", [rows.column("teacher")], pc.ReplaceSubstringOptions(pattern=_FOLDERS_BEFORE_NAME, replacement="")
        )
        rows = rows.set_column(schema.names.index("teacher"), "teacher", names)
    return rows.cast(schema)


def _readable_text(column: pa.Array) -> pa.Array:
    """Half surrogate pairs, which are stored escaped and which no other program takes, as question marks."""
    marked = pc.call_function("match_substring", [column], pc.MatchSubstringOptions(MARK))
    if not pc.call_function("any", [marked]).as_py():
        return column
    texts: list[str | None] = column.to_pylist()
    return pa.array([None if text is None else readable(unescape(text)) for text in texts], pa.string())


@contextmanager
def _explained(where: str | None) -> Generator[None]:
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError, UnicodeEncodeError) as error:
        message = str(error).split("\n", 1)[0]
        if where is None:
            raise StoreError(f"the rows cannot be read: {message}") from error
        raise UserError(f"--where {where!r}: {message}; expected a condition on samples such as \"label = 'billing'\"") from error
