"""Commands about whole runs: `report` and `compact`."""

from __future__ import annotations

from typing import Any

from rich.console import Group

from engine.cli.shell import Json, Run, output, print_json
from engine.display import classes_view, inert, plain_table, rounds_view, speed_view, summary_view, weakness_view
from engine.records import FinalReport, WeaknessReport
from engine.rundir import open_run, read_json
from engine.store import compact as merge_segments
from engine.store import read_rounds, run_query
from engine.summary import Summary


def report(run: Run, as_json: Json = False) -> None:
    """Show what a run has come to, finished or not.

    Example: reflux report runs/quickstart
    """
    place = open_run(run)
    summary = read_json(place.summary, Summary) if place.summary.exists() else None
    if as_json and summary is not None:
        print_json(summary)
        return
    rounds = read_rounds(place)
    reports = [read_json(path, WeaknessReport) for path in sorted(place.reports.glob("[0-9]*.json"))]
    if as_json:
        print_json({"finished": False, "rounds": rounds, "reports": reports})
        return
    rejections = run_query(place, "select reason, count(*) as rows, any_value(raw) as example from rejections group by 1 order by 2 desc")
    samples = run_query(
        place, "select weakness, count(*) as rows, any_value(text) as example from samples group by 1 order by 2 desc, 1 limit 12"
    )
    parts: list[Any] = [rounds_view(rounds, reports)]
    if summary is None:
        parts.insert(0, inert(f"{place.root} is not finished; the same `reflux run` goes on with it"))
        parts += ["", speed_view(rounds)] if rounds else []
    else:
        parts += ["", classes_view(read_json(place.final_report, FinalReport))]
    if reports:
        parts += ["", weakness_view(reports[-1])]
    for title, table in (("Rejected rows by reason", rejections), ("Accepted rows by weakness (largest)", samples)):
        if table.num_rows:
            lines = [(name, count, inert(example, 100)) for name, count, example in (row.values() for row in table.to_pylist())]
            parts += ["", plain_table(table.column_names, lines, title=title)]
    output.print(Group(*([summary_view(summary), ""] if summary else []), *parts))


def compact(run: Run, as_json: Json = False) -> None:
    """Merge the small files of a run's tables into large ones, also while it goes on. Changes no row.

    Example: reflux compact runs/quickstart
    """
    done = merge_segments(open_run(run))
    if as_json:
        print_json(done)
    else:
        output.print(plain_table(("table", "files merged", "into"), [(table.table, table.merged, table.into) for table in done]))
