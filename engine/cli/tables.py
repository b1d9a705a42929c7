"""Commands that look into a run's tables: `query`, and `show`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from engine.cli.shell import Json, Run, messages, note, output, print_json
from engine.errors import StoreError, UserError
from engine.rundir import RunDir, open_run, sync_folder
from engine.runs.provenance import tell
from engine.runs.retention import Use, freed_parts, require
from engine.store import Result, open_query, stored_as_json, unescape
from engine.views.display import inert, inert_json, result_table, story_view

MAX_SHOWN = 1000
"""Rows of a table for people; its widths need all of them at once."""


def query(
    run: Run,
    sql: Annotated[str, typer.Argument(help="DuckDB SQL over samples, rejections, calls, prompts, rounds and evaluations.", metavar="SQL")],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV; nested values as JSON.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of rows.")] = False,
    parquet: Annotated[Path | None, typer.Option(help="Write the rows to this Parquet file.")] = None,
    allow: Annotated[list[Path] | None, typer.Option(help="File or folder outside the run that the SQL may read; may be repeated.")] = None,
) -> None:
    """Ask a run's tables, also while it goes on; sees what is committed.

    Example: reflux query runs/quickstart "select label, count(*) from samples group by 1"
    """
    if as_csv + as_json + (parquet is not None) > 1:
        raise UserError("--csv, --json and --parquet exclude each other; give one of them")
    place = open_run(run)
    if freed := freed_parts(place):
        note(f"note: this run was pruned; what it had of these is gone: {', '.join(sorted(freed))}")
    if parquet is not None:
        _check_target(parquet, place)
    form = "arrow" if parquet else "json" if as_json else "text"
    with open_query(place, sql, form, tuple(allow or ())) as result:
        if parquet is not None:
            note(f"{_count(_write_parquet(result, parquet))} in {parquet}")
        elif as_json:
            _print_json(result)
        elif as_csv:
            _print_csv(result)
        else:
            _print_table(result)


def show(
    run: Run,
    id: Annotated[str, typer.Argument(help="Id of a row or of a request, or the first characters of one.", metavar="ID")],
    as_json: Json = False,
) -> None:
    """Tell the story of a row: what it answers, how it was asked for, what came back, and what stands beside it.

    Example: reflux show runs/quickstart 3f2a91c0-4
    """
    place = open_run(run)
    require(place, Use.SHOW)
    story = tell(place, id)
    if as_json:
        print_json(story)
    else:
        output.print(story_view(story))


def _print_table(result: Result) -> None:
    shown: list[list[str | None]] = []
    num_rows = 0
    for row in _rows(result):
        num_rows += 1
        if num_rows <= MAX_SHOWN:
            shown.append([value and unescape(value) for value in row])
    output.print(result_table(result.columns, result.is_number, shown))
    rest = f"; the first {MAX_SHOWN} are shown, --csv and --json give all" if num_rows > MAX_SHOWN else ""
    messages.print(f"{_count(num_rows)}{rest}", style="dim", highlight=False)


def _print_json(result: Result) -> None:
    """A row a line, each as soon as it is there."""
    names = [json.dumps(name, ensure_ascii=False) for name in result.columns]
    out = sys.stdout.buffer
    out.write(b"[")
    separator = "\n"
    for row in _rows(result):
        values = (f"{name}: {'null' if value is None else stored_as_json(value)}" for name, value in zip(names, row, strict=True))
        out.write(inert_json(f"{separator}  {{{', '.join(values)}}}"))
        separator = ",\n"
    out.write(b"\n]\n")


def _print_csv(result: Result) -> None:
    """On a terminal, control characters are spelt out; elsewhere texts are written as they are, but for half surrogate pairs."""
    out = sys.stdout
    is_watched = out.isatty()

    class Utf8:
        def write(self, text: str) -> int:
            return out.buffer.write(text.encode(errors="backslashreplace"))

    writer = csv.writer(Utf8(), lineterminator="\n")
    writer.writerow(result.columns)
    for row in _rows(result):
        values = [value and unescape(value) for value in row]
        writer.writerow([inert(value, max_chars=sys.maxsize).plain if value and is_watched else value for value in values])


def _rows(result: Result) -> Iterator[tuple[str | None, ...]]:
    for batch in result.batches:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _write_parquet(result: Result, target: Path) -> int:
    temporary = target.with_name(f".{target.name}.tmp")
    num_rows = 0
    try:
        with pq.ParquetWriter(temporary, result.schema, compression="zstd") as writer:
            for batch in result.batches:
                writer.write_batch(batch)
                num_rows += batch.num_rows
        temporary.rename(target)
        sync_folder(target.parent)
    except pa.ArrowException as error:
        raise UserError(f"these columns cannot be written to Parquet: {error}; cast what is odd to varchar") from error
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return num_rows


def _check_target(target: Path, place: RunDir) -> None:
    if target.resolve().is_relative_to(place.root.resolve()):
        raise UserError(f"{target} is within the run, which a query does not change; give a file elsewhere")
    if target.is_dir() or not target.parent.is_dir():
        raise UserError(f"{target} is no file that can be written; give a file in a folder that is there, e.g. rows.parquet")


def _count(num_rows: int) -> str:
    return f"{num_rows:,} row{'' if num_rows == 1 else 's'}"
