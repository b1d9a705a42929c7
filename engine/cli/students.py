"""Commands that use a trained student: `evaluate`, `predict`, `export-student` and `serve-student`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engine.cli.shell import Json, messages, note, output, print_json, run_async
from engine.config import TEXT_PAIR_COLUMN, DataConfig, TaskConfig, restore_config
from engine.errors import UserError
from engine.records import ONE_LABEL, Example, TaskKind
from engine.reports import FinalReport
from engine.rundir import RunDir, read_json
from engine.runs.manifest import Manifest
from engine.task.label_set_files import read_set_examples
from engine.task.row_files import data_files
from engine.task.span_files import read_marked_examples
from engine.task.task import read_contents, read_examples, read_rows
from engine.text import Content
from engine.views.display import plain_table
from engine.views.reports import scores_view

if TYPE_CHECKING:
    from student.labelling import Tally
    from student.predictions import TextPredictor
    from student.row_reader import Chunk
    from student.row_writer import Write

Student = Annotated[Path, typer.Argument(help="Folder of a trained student, or of a run (takes its final student).", metavar="MODEL")]
BackendOption = Annotated[
    Literal["torch", "onnx", "onnx-int8"], typer.Option(help="What computes; the ONNX ones want a folder of `reflux export-student`.")
]
TextColumnOption = Annotated[
    str | None,
    typer.Option("--text-column", help="The column with the texts; as in the student's run if not given, or text.", metavar="NAME"),
]
TextPairColumnOption = Annotated[
    str | None,
    typer.Option(
        "--text-pair-column",
        help="The column with the second texts, for a student of pairs; as in the student's run if not given, or text_pair.",
        metavar="NAME",
    ),
]

LONG_S = 5.0
"""After which a person would like to hear how fast it went."""


def evaluate(
    model: Student,
    data: Annotated[
        Path,
        typer.Argument(
            help="Labelled rows: .jsonl, .csv or .parquet with columns text (and text_pair) and label, or as in the student's run; or "
            "labels, spans, tags.",
            metavar="DATA",
        ),
    ],
    backend: BackendOption = "torch",
    batch_size: Annotated[int, typer.Option(min=1, help="Texts computed at once.")] = 64,
    as_json: Json = False,
) -> None:
    """Score a student on labelled rows, and say how sure the scores are.

    Example: reflux evaluate runs/quickstart examples/quickstart/data/test.jsonl
    """
    data_files(data)  # before the student is loaded, which takes seconds: a mistyped name is told at once
    from student import load_predictor, score_rows

    predictor = load_predictor(student_folder(model), backend)
    scored = score_rows(predictor, rows_for(predictor, data, model), batch_size)
    if as_json:
        print_json(scored)
    else:
        output.print(scores_view(scored.scores, scored.classes, scored.intervals, scored.calibration))


def predict(
    model: Student,
    data: Annotated[
        Path, typer.Argument(help="Texts: .jsonl, .csv or .parquet, the folder of a dataset, or - for standard input.", metavar="DATA")
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write: .jsonl, .csv or .parquet; JSON lines on standard output if not given.")
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Add those of all labels.")] = False,
    backend: BackendOption = "torch",
    text_column: TextColumnOption = None,
    text_pair_column: TextPairColumnOption = None,
    stdin_format: Annotated[
        Literal["lines", "jsonl"],
        typer.Option(help="What comes on standard input: a text a line (of pairs both, with a tab between them), or JSON lines."),
    ] = "lines",
    batch_size: Annotated[int, typer.Option(min=1, help="Texts computed at once.")] = 64,
) -> None:
    """Label texts, or pairs of them, or mark their spans; there may be more than memory holds. Other columns are kept; standard input is
    answered line by line.

    Example: reflux predict runs/quickstart tickets.parquet --out labelled.parquet
    Example: echo "my kettle arrived with a crack" | reflux predict runs/quickstart -
    """
    from student.row_reader import count_rows
    from student.row_writer import check_output

    folder = student_folder(model)
    if out is not None:
        check_output(out)
    # Opened before the student is loaded, which takes seconds: a mistyped name is told at once.
    total = None if str(data) == "-" else count_rows(data)
    from student import load_predictor
    from student.labelling import label_rows

    predictor = load_predictor(folder, backend)
    began = time.perf_counter()
    if probabilities and predictor.kind == "ner":
        raise UserError("--probabilities: this student marks spans, each of which comes with its confidence; leave it out")
    columns = _columns(predictor.kind, _data_of(model), text_column, text_pair_column)
    with _output(out, predictor) as write, _progress(total) as on_rows:
        tally = label_rows(
            predictor,
            _chunks(data, columns, stdin_format),
            write,
            batch_size=batch_size,
            probabilities=probabilities,
            on_rows=on_rows,
        )
    _tell(tally, predictor.max_length, time.perf_counter() - began)


def export_student(
    model: Student,
    folder: Annotated[Path, typer.Argument(help="Folder to write; must not be there yet.", metavar="DIR")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Add a float32 graph for onnxruntime.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Add an int8 graph: smaller, and faster on processors with VNNI or AMX.")] = False,
    data: Annotated[Path | None, typer.Option(help="Texts to compare predictions on; the run's validation rows if not given.")] = None,
    text_column: TextColumnOption = None,
    text_pair_column: TextPairColumnOption = None,
    as_json: Json = False,
) -> None:
    """Write a student to a folder of its own: a Hugging Face folder with a model card, and graphs that run without torch.

    Each graph is compared with the student; where predictions differ nothing is written.

    Example: reflux export-student runs/quickstart exported --onnx --int8
    """
    source, run = student_folder(model), _run_of(model)
    texts: list[Content] = []
    if onnx or int8:
        texts = _texts(data, _columns(_kind_of(source), _data_of(model), text_column, text_pair_column)) if data else _validation_texts(run)
    from student.export import Format, export_student

    formats: list[Format] = [*(["onnx"] if onnx else []), *(["onnx-int8"] if int8 else [])]
    exported = export_student(source, folder, formats, texts, card=_missing_card(source, run))
    if as_json:
        print_json(exported)
        return
    lines = [(graph.file, graph.megabytes, graph.num_rows, f"{graph.same_labels:.2%}", graph.max_difference) for graph in exported.graphs]
    if lines:
        output.print(plain_table(("graph", "MB", "rows compared", "same answer", "largest difference of a probability"), lines))
    output.print(f"written to {exported.folder}", markup=False, highlight=False, soft_wrap=True)


def serve_student(
    model: Student,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Only this machine by default; anybody who reaches it may ask.")] = "127.0.0.1",
    backend: BackendOption = "torch",
    batch_size: Annotated[int, typer.Option(min=1, help="Texts computed at once, at most.")] = 64,
    max_waiting: Annotated[int, typer.Option(min=1, help="Texts that may wait; whoever comes then gets a 503.")] = 4096,
    as_json: Json = False,
) -> None:
    """Serve a student over HTTP until Ctrl-C: POST /predict {"texts": ["..."]}, GET /health, GET /metrics. Of a student of pairs
    each of the texts is a list of both: {"texts": [["...", "..."]]}.

    Example: reflux serve-student runs/quickstart --port 8080
    """
    from student import load_predictor
    from student.serving import ServingLimits, serving

    predictor = load_predictor(student_folder(model), backend)
    limits = ServingLimits(max_waiting=max_waiting)

    async def serve() -> None:
        async with serving(predictor, host=host, port=port, batch_size=batch_size, limits=limits) as url:
            if as_json:
                print_json({"url": url, "labels": predictor.labels})
            else:
                output.print(f"{url}/predict", markup=False, highlight=False, soft_wrap=True)
            sys.stdout.flush()
            await asyncio.Event().wait()

    run_async(serve(), "Stopped; what was taken has been answered.")


def rows_for(predictor: TextPredictor, data: Path, model: Path) -> list[Example]:
    """Real rows as this student answers: with a label, any number of them, or marked entities. `model` is its folder, or its run."""
    if predictor.kind in ONE_LABEL:
        named = _data_of(model)
        text, *second = _columns(predictor.kind, named)
        return read_examples(data, text, named.label_column, text_pair_column=second[0] if second else None)
    if predictor.kind == "multi_label":
        return read_set_examples(data, known=predictor.labels)
    rows = read_marked_examples(data, predictor.labels)
    if not any(row.spans for row in rows):
        raise UserError(
            f"{data}: no entity is marked in any of its {len(rows)} rows, and this student marks entities; expected columns tokens and "
            "tags, a text with spans, or tags such as <place>Bern</place> in the text"
        )
    return rows


def student_folder(path: Path) -> Path:
    """A run stands for its final student."""
    if (path / "run.json").is_file():
        final = RunDir(path).final_student
        if not final.is_dir():
            raise UserError(f"{path} has no final student yet; finish the run, or give one of {path / 'student'}/round-*")
        return final
    return path


def _run_of(model: Path) -> RunDir | None:
    """The run that a folder of a student, or of a run, belongs to."""
    for folder in (model, model.resolve().parent.parent):
        if (folder / "run.json").is_file():
            return RunDir(folder)
    return None


def _data_of(model: Path) -> DataConfig:
    """How the files of the student's run call their columns: more of the same rows mostly call them so, too. Else the usual names."""
    if (run := _run_of(model)) is None:
        return DataConfig(seed=Path(), validation=Path(), test=Path())
    return _task_of(run).data


def _task_of(run: RunDir) -> TaskConfig:
    return restore_config(read_json(run.run_json, Manifest).config).task


def _columns(kind: TaskKind, data: DataConfig, text_column: str | None = None, text_pair_column: str | None = None) -> tuple[str, ...]:
    """That hold what this student reads. UserError for a second one where it reads no pairs."""
    first = text_column or data.text_column
    if kind == "pair":
        return first, text_pair_column or data.text_pair_column or TEXT_PAIR_COLUMN
    if text_pair_column is not None:
        raise UserError(f"--text-pair-column {text_pair_column}: this student reads one text at a time; leave it out")
    return (first,)


def _kind_of(source: Path) -> TaskKind:
    from student.predictions import kind_in

    try:
        return kind_in(json.loads((source / "config.json").read_bytes()))
    except (OSError, ValueError):
        return "classification"  # what is wrong with the folder is said by who loads it


def _texts(data: Path, columns: Sequence[str]) -> list[Content]:
    return [content for contents in read_contents(data, *columns) for content in contents]


def _validation_texts(run: RunDir | None) -> list[Content]:
    if run is None:
        raise UserError("a graph is compared with the student on real texts, and this folder belongs to no run; give a file as --data")
    task = _task_of(run)
    return [row.content for row in read_rows(task, task.data.validation)]


def _missing_card(source: Path, run: RunDir | None) -> str | None:
    """For a student of a finished run that came without one."""
    if run is None or (source / "README.md").exists() or source.resolve() != run.final_student.resolve() or not run.final_report.exists():
        return None
    from student.card import render_card
    from student.model import load_student

    return render_card(run, read_json(run.final_report, FinalReport), load_student(source).max_length)


def _chunks(data: Path, columns: Sequence[str], stdin_format: str) -> Iterator[Chunk]:
    from student.row_reader import lines_at_once, read_chunks, read_lines, read_objects

    if str(data) != "-":
        return read_chunks(data, *columns)
    windows = lines_at_once(cast(BufferedReader, sys.stdin.buffer))
    return read_lines(windows, *columns) if stdin_format == "lines" else read_objects(windows, *columns)


@contextmanager
def _output(out: Path | None, predictor: TextPredictor) -> Generator[Write]:
    from student.row_writer import JsonWriter, writing

    if out is not None:
        with writing(out, predictor.labels, predictor.kind) as write:
            yield write
    else:
        with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as file:
            yield JsonWriter(file).write


@contextmanager
def _progress(total: int | None) -> Generator[Callable[[int], None]]:
    """Where somebody watches, and not where the answers themselves are watched."""
    if not messages.is_terminal or sys.stdout.isatty():
        yield lambda _: None
        return
    columns = (TextColumn("rows"), MofNCompleteColumn(), TextColumn("{task.speed:,.0f}/s"), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True) as progress:
        task = progress.add_task("rows", total=total)
        yield lambda rows: progress.advance(task, rows)


def _tell(tally: Tally, max_length: int, took_s: float) -> None:
    if took_s > LONG_S:
        note(f"{tally.rows:,} rows in {took_s:,.1f} s: {tally.rows / took_s:,.0f} rows/s")
    if tally.cut:
        note(f"{tally.cut:,} of {tally.rows:,} texts are longer than the {max_length} tokens that the student reads; they were cut")
    if tally.empty:
        note(f"{tally.empty:,} texts are empty; their label says nothing")
    if tally.problems:
        note(f"{tally.problems:,} rows could not be labelled, and say why under `problem`; the first is {tally.first_problem}")
