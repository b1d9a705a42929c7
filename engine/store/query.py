"""SQL over a run's committed segments, beside its writers.

What the SQL can reach: the rows that were committed when it connected, and the files it was allowed to read. DuckDB is handed Arrow
datasets over the segments, so it needs no file of its own, and is locked: no file is read or written, no extension loaded, no Python
variable seen. Not even the run's own folder is allowed, as DuckDB's list of allowed directories allows writing too, and `COPY ... TO` would
overwrite a segment; so beside allowed files only SELECT statements are run, which write nothing.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Literal, TypeAlias, cast

import duckdb
import psutil
import pyarrow as pa

from engine.errors import StoreError, UserError
from engine.rundir import RunDir
from engine.store.schemas import SCHEMAS
from engine.store.segments import committed, open_table
from engine.store.text import MARK
from engine.store.views import VIEWS, named_views

Form: TypeAlias = Literal["arrow", "text", "json"]
"""How each value comes: as Arrow has it; as DuckDB writes it for people, nested ones as JSON; or each as JSON."""

BATCH_ROWS = 10_000
MAX_MEMORY = 4 * 2**30
"""For one query, and never more than half of what is free: teacher and student are beside it."""

_LOCKED_DOWN: dict[str, str | bool | int | float | list[str]] = {
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "allow_persistent_secrets": False,
    # COPY may write to the folder for spilling, external access or not; by default that is `.tmp` in the working directory.
    "temp_directory": "",
}

_NESTED = re.compile(r"STRUCT\(|MAP\(|.*\]$", re.DOTALL)
_NUMBERS = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|BIGNUM|FLOAT|DOUBLE|DECIMAL\(.*\))")
_NOT_IN_FILES = re.compile(r"\b(UHUGEINT|BIGNUM|INTERVAL|BIT|TIME WITH TIME ZONE)\b|\bUNION\(")
"""Types that Arrow or Parquet have no equal for; as DuckDB writes them they lose nothing."""
_NO_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|NaN|-?Inf(?:inity)?')
_STORED = re.compile(f"{MARK}([0-9a-f]{{4}})")
_MAX_MESSAGE = 500
_NUM_TRIES = 5


@dataclass(frozen=True, slots=True)
class Result:
    """The rows of a query, as they are computed; text as stored (see `engine.store.text`)."""

    columns: tuple[str, ...]
    is_number: tuple[bool, ...]
    """Of each column."""
    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    """UserError where a value turns out to be wrong; StoreError where a compaction took away what was being read."""


def connect(
    run: RunDir, spill: Path | None = None, memory: str | None = None, allow: Sequence[Path] = (), sql: str | None = None
) -> duckdb.DuckDBPyConnection:
    """An in-memory database with a view for each table, and those of `engine.store.views`. StoreError if a table cannot be read. A
    compaction deletes files that the connection still reads from: then its statements fail, and one connects again, as `run_query` does.

    What needs more than `memory` (as DuckDB writes it: "512MB") goes to the folder `spill`, where COPY may then write too; without one it
    fails. In the files and folders of `allow`, COPY may read and write: run nothing but SELECT there, as `open_query` does. `sql`: what
    will be asked; views that it does not name are left out, for each takes some milliseconds.
    """
    tables = {name: open_table(run.table(name), SCHEMAS[name]) for name in SCHEMAS}
    room = {"memory_limit": memory or f"{_memory_bytes() // 2**20}MiB", **({"temp_directory": str(spill)} if spill else {})}
    connection = duckdb.connect(":memory:", config={**_LOCKED_DOWN, **room})
    folders, files = ([str(path.resolve()) for path in allow if path.is_dir() == is_folder] for is_folder in (True, False))
    connection.execute("SET allowed_directories = $folders", {"folders": [f"{folder}/" for folder in folders]})
    connection.execute("SET allowed_paths = $files", {"files": files})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET TimeZone = 'UTC'")
    for name, table in tables.items():
        connection.register("round_records" if name == "rounds" else name, table)
    for name in VIEWS if sql is None else named_views(sql):
        connection.execute(f"CREATE TEMP VIEW {name} AS {VIEWS[name]}")
    connection.execute("SET lock_configuration = true")
    return connection


def run_query(run: RunDir, sql: str, parameters: Mapping[str, object] | None = None) -> pa.Table:
    """The rows of the last statement, in which `$name` stands for a parameter.

    UserError if it is wrong, refused, or returns no rows at all.
    """
    for _ in range(_NUM_TRIES - 1):
        files = _files(run)
        try:
            return _run_query(run, sql, parameters)
        except UserError:
            # A compaction may have deleted what the query was reading.
            if _are_there(files):
                raise
    return _run_query(run, sql, parameters)


@contextmanager
def open_query(run: RunDir, sql: str, form: Form = "arrow", allow: Sequence[Path] = ()) -> Generator[Result]:
    """The same, with no more of the rows in memory at once than some thousands; inside the block they can be taken.

    `allow`: files and folders outside the run that the SQL may read, absolute or as the SQL names them.
    """
    for path in allow:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; give one that the SQL shall read")
    tries = _NUM_TRIES
    while True:
        tries -= 1
        files = _files(run)
        with connect(run, allow=allow, sql=sql) as connection:
            try:
                result = _begin(connection, sql, form, files, is_plain=bool(allow))
            except UserError:
                if tries and not _are_there(files):
                    continue
                raise
            yield result
            return


def _begin(connection: duckdb.DuckDBPyConnection, sql: str, form: Form, files: list[Path], *, is_plain: bool) -> Result:
    """The first rows are computed: what is wrong with the SQL is known, and most results are complete."""
    relation = _relation(connection, sql, is_plain=is_plain)
    columns, types = _distinct(relation.columns), [str(kind) for kind in relation.types]
    written = [
        f'{_written(number, kind, form)} as "{name.replace(chr(34), chr(34) * 2)}"'
        for number, (name, kind) in enumerate(zip(columns, types, strict=True), start=1)
    ]
    try:
        reader = relation.select(", ".join(written)).to_arrow_reader(BATCH_ROWS)
        first = next(iter(reader), None)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise _explained(connection, sql, error) from error

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from chain([] if first is None else [first], reader)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if not _are_there(files):
                raise StoreError("files of the run were merged while the query read them; ask again") from error
            raise _explained(connection, sql, error) from error

    is_number = tuple(_NUMBERS.fullmatch(kind) is not None for kind in types)
    return Result(columns, is_number, reader.schema, batches())


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """A name that comes again gets a number, as DuckDB's subqueries give it."""
    distinct: list[str] = []
    for name in names:
        numbered = chain([name], (f"{name}_{number}" for number in count(1)))
        distinct.append(next(candidate for candidate in numbered if candidate not in distinct))
    return tuple(distinct)


def _written(number: int, kind: str, form: Form) -> str:
    """The expression for the column of this number."""
    if form == "json" or (form == "text" and _NESTED.match(kind)):
        return f"cast(to_json(#{number}) as varchar)"
    return f"cast(#{number} as varchar)" if form == "text" or _NOT_IN_FILES.search(kind) else f"#{number}"


def _run_query(run: RunDir, sql: str, parameters: Mapping[str, object] | None) -> pa.Table:
    with connect(run, sql=sql) as connection:
        relation = _relation(connection, sql, parameters)
        try:
            return relation.to_arrow_table()
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise _explained(connection, sql, error) from error


def _relation(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, object] | None = None, *, is_plain: bool = False
) -> duckdb.DuckDBPyRelation:
    try:
        sql.encode()
        if is_plain and any(statement.type != duckdb.StatementType.SELECT for statement in connection.extract_statements(sql)):
            raise UserError("beside files that it is allowed to read, the SQL may only be SELECT: other statements could write there")
        relation = cast("duckdb.DuckDBPyRelation | None", connection.sql(sql, params=parameters))  # DuckDB's own annotation leaves None out
    except UnicodeEncodeError as error:
        raise UserError(f"the SQL is no valid Unicode: {error.reason} at character {error.start + 1}") from error
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise _explained(connection, sql, error) from error
    if relation is None:
        raise UserError("the SQL returns no rows; give a query, e.g. 'select label, count(*) from samples group by 1'")
    return relation


def _explained(connection: duckdb.DuckDBPyConnection, sql: str, error: Exception) -> UserError:
    return UserError(explain_error(connection, sql, error))


def explain_error(connection: duckdb.DuckDBPyConnection, sql: str, error: Exception) -> str:
    """DuckDB's message with its hint, and what there is where a name was not found: the columns of the tables that `sql` names."""
    if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory Error" in str(error):
        limit = _memory_bytes() / 2**30
        return f"the query needs more memory than it may have ({limit:.1f} GiB); ask for fewer columns or rows, or for counts"
    message = str(error).split("\n\nLINE ", 1)[0].strip()
    shown = message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}…"
    if isinstance(error, duckdb.CatalogException) and message.startswith("Catalog Error: Table"):
        return f"{shown}\nTables: {', '.join(dict.fromkeys((*SCHEMAS, *VIEWS)))}"
    if isinstance(error, duckdb.BinderException) and "Referenced" in message:
        named = [name for name in dict.fromkeys((*SCHEMAS, *VIEWS)) if re.search(rf"\b{name}\b", sql, re.IGNORECASE)]
        columns = [f"\nColumns of {name}: {', '.join(connection.table(name).columns)}" for name in named]
        return shown + "".join(columns)
    return shown


def _memory_bytes() -> int:
    return min(MAX_MEMORY, psutil.virtual_memory().available // 2)


def stored_as_json(text: str) -> str:
    """What the form "json" gives, as JSON of the strings that were stored; the numbers that JSON has no word for are null."""
    if "NaN" in text or "Inf" in text:
        text = _NO_NUMBER.sub(lambda found: found[0] if found[0].startswith('"') else "null", text)
    return text if MARK not in text else _STORED.sub(r"\\u\1", text)


def _files(run: RunDir) -> list[Path]:
    return [segment.path for name in SCHEMAS for segment in committed(run.table(name))]


def _are_there(files: list[Path]) -> bool:
    return all(path.exists() for path in files)
