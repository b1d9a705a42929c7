"""SQL over a run's committed segments, beside its writers.

What the SQL can reach: the rows that were committed when it connected, and nothing else. DuckDB is handed Arrow datasets over the
segments, so it needs no file of its own, and is locked: no file is read or written, no extension loaded, no Python variable seen. Not
even the run's own folder is allowed, as DuckDB's list of allowed directories allows writing too, and `COPY ... TO` would overwrite a
segment.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

from pathlib import Path
from typing import cast

import duckdb
import pyarrow as pa

from engine.errors import UserError
from engine.rundir import RunDir
from engine.store.schemas import SCHEMAS
from engine.store.segments import committed, open_table

_LOCKED_DOWN: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "allow_persistent_secrets": False,
    # COPY may write to the folder for spilling, external access or not; by default that is `.tmp` in the working directory.
    "temp_directory": "",
}

_MAX_MESSAGE = 500
_NUM_TRIES = 5


def connect(run: RunDir) -> duckdb.DuckDBPyConnection:
    """An in-memory database with a view for each table. `rounds` also has the student's scores and loss on validation, null where it has
    not reported yet. StoreError if a table cannot be read. A compaction deletes files that the connection still reads from: then its
    statements fail, and one connects again, as `run_query` does.
    """
    tables = {name: open_table(run.table(name), SCHEMAS[name]) for name in SCHEMAS}
    connection = duckdb.connect(":memory:", config=_LOCKED_DOWN)
    connection.execute("SET TimeZone = 'UTC'")
    for name, table in tables.items():
        connection.register("round_records" if name == "rounds" else name, table)
    connection.execute(
        "CREATE TEMP VIEW rounds AS SELECT r.*, e.accuracy, e.macro_f1, e.weighted_f1, e.loss "
        "FROM round_records AS r LEFT JOIN evaluations AS e ON e.round = r.round AND e.split = 'validation'"
    )
    connection.execute("SET lock_configuration = true")
    return connection


def run_query(run: RunDir, sql: str) -> pa.Table:
    """The rows of the last statement. UserError if it is wrong, refused, or returns no rows at all."""
    for _ in range(_NUM_TRIES - 1):
        files = _files(run)
        try:
            return _run_query(run, sql)
        except UserError:
            # A compaction may have deleted what the query was reading.
            if all(path.exists() for path in files):
                raise
    return _run_query(run, sql)


def _run_query(run: RunDir, sql: str) -> pa.Table:
    with connect(run) as connection:
        try:
            relation = cast("duckdb.DuckDBPyRelation | None", connection.sql(sql))  # DuckDB's own annotation leaves None out
            rows = None if relation is None else relation.to_arrow_table()
        except duckdb.Error as error:
            message = str(error).split("\n\nLINE ", 1)[0].strip()
            raise UserError(message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}…") from error
    if rows is None:
        raise UserError("the SQL returns no rows; give a query, e.g. 'select label, count(*) from samples group by 1'")
    return rows


def _files(run: RunDir) -> list[Path]:
    return [segment.path for name in SCHEMAS for segment in committed(run.table(name))]
