"""Commands about whole runs: `runs`, `report`, `compact`, `export` and `prune`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Group
from rich.filesize import decimal

from engine.cli.shell import HtmlOption, Json, Run, check_html, note, output, print_json, say_written
from engine.errors import UserError
from engine.export import Options
from engine.export import export as export_rows
from engine.reports import Audit, FinalReport, WeaknessReport
from engine.rundir import RunDir, open_run, read_json
from engine.runs.figures import read_figures
from engine.runs.inventory import RunInfo, list_runs
from engine.runs.retention import Part, Plan, Use, allows, freed_parts, plan
from engine.runs.retention import prune as prune_run
from engine.runs.summary import Summary
from engine.store import compact as merge_segments
from engine.store import read_rounds, run_query
from engine.views.display import classes_view, cost_view, inert, plain_table, rounds_view, speed_view, summary_view
from engine.views.reports import audit_view, weakness_page
from engine.views.variants import compared, read_variants, variants_view


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder that holds runs.", metavar="DIR")] = Path("runs"), as_json: Json = False
) -> None:
    """List runs: state, rows, score and size on disk. May be asked while they go on.

    Example: reflux runs
    """
    found = list_runs(folder)
    if as_json:
        print_json(found)
    elif not found:
        note(f"no runs in {folder}")
    else:
        columns = ("run", "state", "rounds", "rows", "macro F1", "size", "of it samples", "last activity (UTC)", "")
        output.print(plain_table(columns, [_run_line(info) for info in found]))
        for info in found:
            if info.problem:
                output.print(inert(f"{info.name}: {info.problem}", max_chars=1000), style="yellow", soft_wrap=True)


def report(
    run: Run,
    as_html: HtmlOption = False,
    out: Annotated[Path | None, typer.Option(help="With --html: the file to write, RUN/report.html if not given.", metavar="FILE")] = None,
    as_json: Json = False,
) -> None:
    """Show what a run has come to, finished or not; with --html as a page with plots, in one file that opens offline.

    Example: reflux report runs/quickstart --html
    """
    place = open_run(run)
    check_html(as_html, out)
    if as_html:
        from engine.html_report import report_page  # matplotlib takes a second to import

        say_written(report_page(place), out or place.root / "report.html", as_json)
        return
    summary = read_json(place.summary, Summary) if place.summary.exists() else None
    audit = read_json(place.audit, Audit) if place.audit.exists() else None
    freed = freed_parts(place)
    rounds = read_rounds(place)
    reports = [read_json(place.report(number), WeaknessReport) for number in place.reported_rounds()]
    variants = compared(read_variants(place))
    cost = read_figures(place).cost if summary is None else summary.cost
    if as_json and summary is not None:
        kept = [report for report in reports if report.round == summary.student.after.round]
        more = {"report": kept[0] if kept else None, "audit": audit, "freed": sorted(freed), "variants": variants}
        print_json(msgspec.to_builtins(summary) | more)
        return
    if as_json:
        print_json({"finished": False, "rounds": rounds, "reports": reports, "freed": sorted(freed), "variants": variants, "cost": cost})
        return
    rejections = run_query(place, "select reason, count(*) as rows, any_value(raw) as example from rejections group by 1 order by 2 desc")
    samples = run_query(
        place, "select weakness, count(*) as rows, any_value(text) as example from samples group by 1 order by 2 desc, 1 limit 12"
    )
    parts: list[Any] = [rounds_view(rounds, reports)]
    if freed:
        parts.insert(0, inert(f"{place.root} was pruned: it has no {', '.join(sorted(freed))} any more"))
    if summary is None:
        parts.insert(0, inert(_how_it_goes_on(place)))
        parts += ["", speed_view(rounds)] if rounds else []
    else:
        parts += ["", classes_view(read_json(place.final_report, FinalReport))]
    if reports:
        parts += ["", weakness_page(reports[-1] if summary is None else next(r for r in reports if r.round == summary.student.after.round))]
    if audit:
        parts += ["", audit_view(audit)]
    if cost:
        parts += ["", cost_view(cost)]
    if variants:
        parts += ["", variants_view(variants)]
    for title, table in (("Rejected rows by reason", rejections), ("Accepted rows by weakness (largest)", samples)):
        if table.num_rows:
            lines = [(name, count, inert(example, 100)) for name, count, example in (row.values() for row in table.to_pylist())]
            parts += ["", plain_table(table.column_names, lines, title=title)]
    output.print(Group(*([summary_view(summary), ""] if summary else []), *parts))


def _how_it_goes_on(place: RunDir) -> str:
    """Of a run that is not finished."""
    if "engine" in place.holders():
        return f"{place.root} is at work: what follows is as far as it has come; `reflux watch {place.root}` follows it"
    rest = "; the same `reflux run` goes on with it" if allows(place, Use.RESUME) else ", and can no longer be resumed"
    return f"{place.root} is not finished{rest}"


def compact(run: Run, as_json: Json = False) -> None:
    """Merge the small files of a run's tables into large ones, also while it goes on. Changes no row.

    Example: reflux compact runs/quickstart
    """
    done = merge_segments(open_run(run))
    if as_json:
        print_json(done)
    else:
        output.print(plain_table(("table", "files merged", "into"), [(table.table, table.merged, table.into) for table in done]))


def export(
    run: Run,
    folder: Annotated[Path, typer.Argument(help="A new folder for the dataset.", metavar="DIR")],
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Write JSON lines instead of Parquet.")] = False,
    where: Annotated[str | None, typer.Option(help="Only rows of samples for which this SQL condition holds.", metavar="SQL")] = None,
    with_rejections: Annotated[bool, typer.Option("--with-rejections", help="Refused rows too, as a configuration of their own.")] = False,
    with_unfinished: Annotated[bool, typer.Option("--with-unfinished", help="Rows of a round in progress too.")] = False,
    license: Annotated[str | None, typer.Option(help="As the hub names it, e.g. cc-by-4.0.", metavar="ID")] = None,
    language: Annotated[list[str] | None, typer.Option(help="Of the texts, e.g. en; may be repeated.", metavar="CODE")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    as_json: Json = False,
) -> None:
    """Write the accepted rows as a dataset folder with a card, as the Hugging Face hub expects it.

    Example: reflux export runs/quickstart quickstart-rows --license cc-by-4.0 --language en
    """
    options = Options(
        format="jsonl" if jsonl else "parquet",
        where=where,
        with_rejections=with_rejections,
        with_unfinished=with_unfinished,
        license=license.lower() if license else None,
        languages=tuple(language or ()),
        overwrite=overwrite,
    )
    done = export_rows(open_run(run), folder, options)
    if as_json:
        print_json(done)
        return
    output.print(plain_table(("label", "rows"), Counter(done.classes).most_common()))
    note(f"{done.rows:,} rows, {decimal(done.num_bytes)}: datasets.load_dataset({str(folder)!r})")


def prune(
    run: Run,
    keep: Annotated[list[Part] | None, typer.Option(help="A part to keep; may be repeated. All others are freed.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be freed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Free disk space: delete all of a run but what is kept. Its figures and the finished student always stay.

    Example: reflux prune runs/quickstart --keep samples --dry-run
    """
    if not keep:
        raise UserError(f"say what is to stay, e.g. --keep samples; parts: {', '.join(Part)}")
    place = open_run(run)
    freeing = plan(place, keep)
    if not as_json:
        _show_plan(freeing, dry_run)
    if dry_run or not freeing.parts:
        if as_json:
            print_json({"freed": False, "parts": freeing.parts, "num_bytes": freeing.num_bytes, "lost": freeing.lost})
        return
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise UserError("nothing was deleted: say --yes to delete, or look with --dry-run at what would go")
        typer.confirm("Delete?", abort=True)
    freeing = prune_run(place, keep)
    if as_json:
        print_json({"freed": True, "parts": freeing.parts, "num_bytes": freeing.num_bytes, "lost": freeing.lost})
    else:
        note(f"freed {decimal(freeing.num_bytes)}")


def _run_line(info: RunInfo) -> list[object]:
    remarks = [f"at work: {', '.join(info.holders)}"] if info.holders else []
    if info.freed:
        remarks.append(f"pruned: {', '.join(info.freed)}")
    score = f"{info.score.macro_f1:.3f} on {info.score.split}" if info.score else ""
    samples = decimal(info.sizes.get(Part.SAMPLES, 0))
    return [info.name, info.state, info.rounds, info.rows, score, decimal(info.num_bytes), samples, info.last_activity, "; ".join(remarks)]


def _show_plan(freeing: Plan, is_dry: bool) -> None:
    if not freeing.parts:
        note("nothing to free")
        return
    output.print(
        plain_table(("would free" if is_dry else "frees", "size"), [(part, decimal(size)) for part, size in freeing.parts.items()])
    )
    output.print(f"in all {decimal(freeing.num_bytes)}", highlight=False)
    for use in freeing.lost:
        output.print(f"afterwards the run can no longer {use}", style="yellow", highlight=False)
