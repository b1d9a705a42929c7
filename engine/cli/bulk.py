"""Commands that have the teacher work without a student: `generate`, and `label`."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from engine.bulk import METHODS, BulkSummary, check_method, generate_rows
from engine.cli.shell import Json, Settings, messages, note, output, parse_settings, print_json, run_async
from engine.cli.teach import check_parts
from engine.config import RunConfig, load_config
from engine.machine.preflight import Machine, check_machine
from engine.pool_labels import PoolSummary, label_pool
from engine.progress import Progress, Silent
from engine.records import RoundRecord, RowCounts, TaskSpec
from engine.rundir import RunDir
from engine.runs.retention import Use, require
from engine.store import read_rounds
from engine.task.label_files import check_target
from engine.views.console import console_progress
from engine.views.display import inert, plain_table, row_counts

TaskFile = Annotated[Path, typer.Argument(help="TOML file of a task: its task, teacher, sampling and gates.", metavar="TASK")]
Endpoint = Annotated[list[str] | None, typer.Option(help="Use a server that already runs; several share the work.", metavar="URL")]


def generate(
    task: TaskFile,
    rows: Annotated[int, typer.Option(min=1, help="Accepted rows wanted, all labels alike.")],
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/NAME-rows if not given.")] = None,
    method: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(METHODS)}; by default the file's, if it is one of them, else attrprompt.")
    ] = None,
    endpoint: Endpoint = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Have the teacher write so many rows, without a student; `reflux export` makes a dataset of them.

    Stopped, or killed, the same command goes on; with more --rows, a finished run does.

    Example: reflux generate examples/quickstart/quickstart.toml --rows 10000
    """
    config = _load(task, method, parse_settings(settings), endpoint)
    check_method(config)
    place = RunDir(out or Path("runs") / f"{config.name}-rows")
    spec = _ready(config, place)

    async def write() -> BulkSummary:
        with bulk_progress(messages, rows, _rounds_of(place)) as progress:
            return await generate_rows(config, spec, place, rows, progress)

    summary = run_async(write(), f"Stopped. The same command goes on with {place.root}.")
    if as_json:
        print_json(summary)
        return
    output.print(_summary_view(summary))
    note(f"{place.root}: {summary.reason}")
    note(f"reflux export {place.root} FOLDER makes a dataset of them")


def label(
    task: TaskFile,
    pool: Annotated[Path, typer.Argument(help="Texts without labels: .csv, .jsonl, .parquet, or the folder of a dataset.", metavar="POOL")],
    out: Annotated[Path, typer.Option(help="The labelled rows: a name that ends in .jsonl, .csv or .parquet.")],
    run: Annotated[Path | None, typer.Option(help="Run directory; runs/NAME-labels if not given.")] = None,
    rows_per_call: Annotated[int, typer.Option(min=1, help="Texts labelled in one request.")] = 1,
    endpoint: Endpoint = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Have the teacher label every text of a pool; with labelling.soft also how probable each label is.

    What gets no label stands beside FILE, in FILE.rejected, with the reason. Stopped, or killed, the same command goes on.

    Example: reflux label task.toml texts.csv --out labelled.parquet --set labelling.soft=true
    """
    check_target(out)
    section = {"type": "pool", "pick": "random", "rows_per_call": rows_per_call}
    servers = {"teacher.endpoint": endpoint} if endpoint else {}
    data = {"strategy": section, "task.data.pool": str(pool.absolute())}
    config = load_config(task, {**data, **parse_settings(settings), **servers})
    place = RunDir(run or Path("runs") / f"{config.name}-labels")
    spec = _ready(config, place)

    async def work() -> PoolSummary:
        with bulk_progress(messages, spec.pool.num_rows if spec.pool else 0, _rounds_of(place)) as progress:
            return await label_pool(config, spec, place, out, progress)

    summary = run_async(work(), f"Stopped. The same command goes on with {place.root}.")
    if as_json:
        print_json(summary)
        return
    if summary.classes:
        output.print(_classes_view(summary.classes))
    note(f"{summary.labelled:,} rows in {summary.file}" if summary.file else "no row was labelled")
    if summary.rejections:
        note(f"{summary.rejected:,} rows without a label, and why, in {summary.rejections}")


def _rounds_of(place: RunDir) -> list[RoundRecord]:
    return read_rounds(place) if place.run_json.exists() else []


def _load(task: Path, method: str | None, settings: dict[str, object], endpoint: list[str] | None) -> RunConfig:
    """The file's own strategy where it is of this method, the method's defaults where it is not."""
    own = load_config(task).strategy
    chosen = method or (own.type if own.type in METHODS else METHODS[0])
    section = own.model_dump() if own.type == chosen else {"type": chosen}
    servers = {"teacher.endpoint": endpoint} if endpoint else {}
    return load_config(task, {"strategy": section, **settings, **servers})


def _ready(config: RunConfig, place: RunDir) -> TaskSpec:
    spec = check_parts(config, with_student=False)
    serve = not all(teacher.endpoints for teacher in (config.teacher, *config.teachers))
    for warning in check_machine(Machine.here(place.root), serve=serve):
        note(f"note: {warning}")
    if place.run_json.exists():
        require(place, Use.RESUME)
        note(f"going on with {place.root}")
    return spec


@contextmanager
def bulk_progress(console: Console, wanted: int, rounds: list[RoundRecord]) -> Generator[Progress]:
    """One bar for all rows that are wanted; without a terminal, a line a round. `rounds`: those that are there already."""
    if not console.is_terminal:
        with console_progress(console) as lines:
            yield lines
        return
    text, rows = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[rows]}")
    columns = (SpinnerColumn(), text, BarColumn(32), rows, TimeElapsedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True, refresh_per_second=8) as bars:
        yield _Bar(console, bars, wanted, sum((record.rows for record in rounds), RowCounts()))


class _Bar(Silent):
    def __init__(self, console: Console, bars: Bars, wanted: int, rows: RowCounts) -> None:
        self._console = console
        self._bars = bars
        self._wanted = wanted
        self._rows = rows
        self._bar = bars.add_task("starting", total=wanted, rows="")

    def phase(self, text: str) -> None:
        self._bars.update(self._bar, description=inert(text).plain)

    def notice(self, text: str) -> None:
        self._console.print(inert(f"note: {text}", max_chars=2000))

    def assignment_done(self, rows: RowCounts) -> None:
        self._rows += rows
        told = f"{self._rows.accepted:,} of {self._wanted:,} rows, {self._rows.requested:,} asked for"
        self._bars.update(self._bar, completed=min(self._rows.accepted, self._wanted), rows=told)


def _classes_view(classes: Mapping[str, int]) -> Table:
    return plain_table(("label", "rows"), [(inert(label), count) for label, count in classes.items()])


def _summary_view(summary: BulkSummary) -> Group:
    tokens = summary.prompt_tokens + summary.completion_tokens
    told = f"{summary.rounds} rounds, {summary.calls:,} calls, {tokens:,} tokens, {summary.generation_s:,.1f} s"
    return Group(_classes_view(summary.classes), "", inert(f"{row_counts(summary.rows)}; {told}"))
