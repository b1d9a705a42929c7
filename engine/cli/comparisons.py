"""Commands that set things against each other: `compare`, for runs and for two students."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.shell import HtmlOption, Json, check_html, output, print_json, say_written
from engine.cli.students import BackendOption, rows_for, student_folder
from engine.errors import UserError
from engine.rundir import RunDir
from engine.runs.comparison import compare_runs
from engine.task.row_files import data_files
from engine.views.comparison import run_comparison_view
from engine.views.reports import comparison_view


def compare(
    places: Annotated[
        list[Path],
        typer.Argument(help="Two or more runs; or two students (or runs) A and B, and labelled rows DATA.", metavar="RUN RUN | A B DATA"),
    ],
    first_backend: BackendOption = "torch",
    second_backend: BackendOption = "torch",
    batch_size: Annotated[int, typer.Option(min=1, help="Texts computed at once.")] = 64,
    as_html: HtmlOption = False,
    out: Annotated[Path | None, typer.Option(help="With --html: the file to write, comparison.html if not given.", metavar="FILE")] = None,
    as_json: Json = False,
) -> None:
    """Set runs side by side: what each asked, took and reached. With DATA: say which of two students is better, and whether that is luck.

    Example: reflux compare runs/pgkd runs/unguided --html
    Example: reflux compare runs/quickstart/student/round-0000 runs/quickstart examples/quickstart/data/test.jsonl
    """
    check_html(as_html, out)
    if all(RunDir(place).run_json.is_file() for place in places):
        _compare_runs(places, (out or Path("comparison.html")) if as_html else None, as_json)
    elif len(places) != 3:
        strangers = ", ".join(str(place) for place in places if not RunDir(place).run_json.is_file())
        raise UserError(f"no run (a folder with run.json): {strangers}; give two or more runs, or two students and a file of labelled rows")
    elif as_html:
        raise UserError("a page is written of runs only; leave out --html, or name runs alone")
    else:
        first, second, data = places
        _compare_students(first, second, data, first_backend, second_backend, batch_size, as_json)


def _compare_runs(places: list[Path], page: Path | None, as_json: bool) -> None:
    comparison = compare_runs([RunDir(place) for place in places])
    if page is not None:
        from engine.html_report import comparison_page  # matplotlib takes a second to import

        say_written(comparison_page(comparison), page, as_json)
    elif as_json:
        print_json(comparison)
    else:
        output.print(run_comparison_view(comparison))


def _compare_students(
    first: Path, second: Path, data: Path, first_backend: BackendOption, second_backend: BackendOption, batch_size: int, as_json: bool
) -> None:
    data_files(data)  # before students are loaded, which takes seconds: a mistyped name is told at once
    from student import compare_students, load_predictor

    predictors = load_predictor(student_folder(first), first_backend), load_predictor(student_folder(second), second_backend)
    comparison = compare_students(*predictors, rows_for(predictors[0], data, first), batch_size)
    if as_json:
        print_json(comparison)
    else:
        output.print(comparison_view(comparison, first, second))
