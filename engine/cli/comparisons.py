"""Commands that set two students against each other: `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.shell import Json, output, print_json
from engine.cli.students import BackendOption, student_folder
from engine.report_views import comparison_view
from engine.task import read_examples


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of a trained student, or of a run (takes its final student).", metavar="A")],
    second: Annotated[Path, typer.Argument(help="The one that it is compared with, such as a later one.", metavar="B")],
    data: Annotated[Path, typer.Argument(help="Labelled rows: .jsonl, .csv or .parquet with columns text and label.", metavar="DATA")],
    first_backend: BackendOption = "torch",
    second_backend: BackendOption = "torch",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    as_json: Json = False,
) -> None:
    """Say which of two students is better on the same rows, by how much, and whether that is more than luck.

    Example: reflux compare runs/quickstart/student/round-0000 runs/quickstart examples/quickstart/data/test.jsonl
    """
    rows = read_examples(data)
    from student import compare_students, load_predictor

    predictors = load_predictor(student_folder(first), first_backend), load_predictor(student_folder(second), second_backend)
    comparison = compare_students(*predictors, rows, batch_size)
    if as_json:
        print_json(comparison)
    else:
        output.print(comparison_view(comparison, first, second))
