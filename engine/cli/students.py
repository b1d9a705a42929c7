"""Commands that use a trained student: `evaluate` and `predict`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group

from engine.cli.shell import Json, output, print_json
from engine.display import plain_table
from engine.errors import UserError
from engine.rundir import RunDir
from engine.task import read_column, read_examples

Student = Annotated[Path, typer.Argument(help="Folder of a trained student, or of a run (takes its final student).", metavar="MODEL")]


def evaluate(
    model: Student,
    data: Annotated[Path, typer.Argument(help="Labelled rows: .jsonl, .csv or .parquet with columns text and label.", metavar="DATA")],
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    as_json: Json = False,
) -> None:
    """Score a student on labelled rows.

    Example: reflux evaluate runs/quickstart examples/quickstart/data/test.jsonl
    """
    rows = read_examples(data)
    from student import Predictor, score_rows

    scored = score_rows(Predictor.load(student_folder(model)), rows, batch_size)
    if as_json:
        print_json(scored)
        return
    scores = scored.scores
    headline = [
        ("accuracy", scores.accuracy),
        ("macro F1", scores.macro_f1),
        ("weighted F1", scores.weighted_f1),
        ("rows", scores.num_rows),
    ]
    classes = [
        (score.label, score.precision, score.recall, score.f1, score.support) for score in sorted(scored.classes, key=lambda c: c.f1)
    ]
    output.print(Group(plain_table(("", ""), headline), "", plain_table(("label", "precision", "recall", "F1", "rows"), classes)))


def predict(
    model: Student,
    data: Annotated[Path, typer.Argument(help="Texts: .jsonl, .csv or .parquet with a column text, or - for lines on standard input.")],
    out: Annotated[Path | None, typer.Option(help="JSONL file to write; standard output if not given.")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
) -> None:
    """Label texts: a JSON line for each, with text, label and confidence.

    Example: echo "my kettle arrived with a crack" | reflux predict runs/quickstart -
    """
    texts: Iterable[str] = (line.rstrip("\n") for line in sys.stdin) if str(data) == "-" else read_column(data, "text")
    from student import Predictor

    predictor = Predictor.load(student_folder(model))
    with out.open("wb") if out else os.fdopen(os.dup(sys.stdout.fileno()), "wb") as file:
        for batch in _batches(texts, batch_size):
            predictions = predictor.predict(batch, batch_size)
            lines = [{"text": text, "label": label, "confidence": round(p, 4)} for text, (label, p) in zip(batch, predictions, strict=True)]
            file.write(msgspec.json.Encoder().encode_lines(lines))


def student_folder(path: Path) -> Path:
    """A run stands for its final student."""
    if (path / "run.json").is_file():
        final = RunDir(path).final_student
        if not final.is_dir():
            raise UserError(f"{path} has no final student yet; finish the run, or give one of {path / 'student'}/round-*")
        return final
    return path


def _batches(texts: Iterable[str], size: int) -> Iterable[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
