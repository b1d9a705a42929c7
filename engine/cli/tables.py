"""Commands that look into a run's tables: `query`."""

from __future__ import annotations

import csv
import sys
from typing import Annotated, Any

import typer

from engine.cli.shell import Run, messages, output, print_json
from engine.display import plain_table
from engine.rundir import open_run
from engine.store import run_query


def query(
    run: Run,
    sql: Annotated[str, typer.Argument(help="DuckDB SQL over samples, rejections, calls, rounds and evaluations.", metavar="SQL")],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of rows.")] = False,
) -> None:
    """Ask a run's tables, also while it goes on; sees what is committed.

    Example: reflux query runs/quickstart "select label, count(*) from samples group by 1"
    """
    table = run_query(open_run(run), sql)
    rows: list[dict[str, Any]] = table.to_pylist()
    if as_json:
        print_json(rows)
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows(row.values() for row in rows)
    else:
        output.print(plain_table(table.column_names, [list(row.values()) for row in rows]))
        messages.print(f"{len(rows)} row{'' if len(rows) == 1 else 's'}", style="dim", highlight=False)
