"""The front door: the command `reflux`. It checks what it is given, starts the parts, and shows what came of it.

Exit status: 0 done, 1 something broke (the run resumes), 2 wrong input, 130 stopped with Ctrl-C, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import asyncio
import csv
import os
import signal
import sys
import tomllib
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
import typer
import uvloop
from rich.console import Console, Group

from engine.config import RunConfig, TeacherConfig, load_config, resolve_model
from engine.console_progress import console_progress
from engine.display import classes_view, inert, plain_table, print_error, rounds_view, speed_view, summary_view, weakness_view
from engine.endpoint import configured_endpoints
from engine.errors import RefluxError, UserError
from engine.launch import check_model, choose_port
from engine.loop import run_loop
from engine.manifest import Manifest, check_same
from engine.preflight import Machine, check_machine
from engine.records import FinalReport, WeaknessReport
from engine.rundir import RunDir, open_run, read_json
from engine.server import VllmServer
from engine.store import compact, read_rounds, run_query
from engine.summary import Summary
from engine.task import load_task, read_column, read_examples
from engine.teacher import find_models

T = TypeVar("T")

app = typer.Typer(
    name="reflux",
    help="Distil a local open-weight LLM into a small, fast classifier: the student's mistakes steer what the teacher writes next.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
teacher_app = typer.Typer(name="teacher", help="The teacher's server.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(teacher_app)

# Where nobody watches, rich would fold everything to 80 columns.
_output = Console(width=None if sys.stdout.isatty() else 160)
_messages = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value for programs, and nothing else, on standard output.")]
Run = Annotated[Path, typer.Argument(help="Folder of a run, e.g. runs/quickstart.", metavar="RUN")]
Student = Annotated[Path, typer.Argument(help="Folder of a trained student, or of a run (takes its final student).", metavar="MODEL")]


def main() -> None:
    """Run the command; every expected error is one message and its exit status, never a traceback."""
    try:
        app()
    except RefluxError as error:
        print_error(_messages, str(error))
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (`reflux query … | head`); what Python would flush on exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="TOML file of the run.", metavar="CONFIG")],
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/NAME if not given.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the file's seed.")] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="Use a server that already runs, e.g. http://127.0.0.1:8000/v1; several share the work.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE instead of the file's, e.g. --set strategy.rounds=2; may be repeated.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Set a finished or different run aside (NAME.1, …) and start anew.")] = False,
    as_json: Json = False,
) -> None:
    """Teach a student: start a run, or go on with one that was stopped.

    Example: reflux run examples/quickstart/quickstart.toml --seed 2
    """
    overrides: dict[str, Any] = dict(_parse_setting(setting) for setting in settings or [])
    overrides |= {key: value for key, value in (("seed", seed), ("teacher.endpoint", endpoint or None)) if value is not None}
    resolved = load_config(config, overrides)
    place = RunDir(out or Path("runs") / resolved.name)
    if again:
        _set_aside(place, resolved)
    if place.summary.exists():
        check_same(place, read_json(place.run_json, Manifest), resolved)
        _note(f"{place.root} is finished already; --again sets it aside and starts anew")
        summary = read_json(place.summary, Summary)
    else:
        summary = _teach(resolved, place)
    if as_json:
        _print_json(summary)
    else:
        _output.print(summary_view(summary))


def _teach(config: RunConfig, place: RunDir) -> Summary:
    # Everything that can be wrong is looked at before anything is written or started.
    task = load_task(config.task, config.seed)
    from student import check_encoder  # torch and transformers are not loaded for commands that do not need them

    check_encoder(config.student)
    endpoints = configured_endpoints(config.teacher)
    if endpoints:
        asyncio.run(find_models(endpoints, _note))
    else:
        check_model(config.teacher)
        choose_port(config.teacher.port)
    for warning in check_machine(Machine.here(place.root), serve=not endpoints):
        _note(f"note: {warning}")
    if place.run_json.exists():
        check_same(place, read_json(place.run_json, Manifest), config)
        _note(f"going on with {place.root}")
    with console_progress(_messages) as progress:
        return _run_async(run_loop(config, task, place, progress), f"Stopped. The same command goes on with {place.root}.")


@teacher_app.command("serve")
def serve(
    model: Annotated[str, typer.Argument(help="Folder of a model, or its id on a hub.", metavar="MODEL")],
    port: Annotated[int | None, typer.Option(help="A free one if not given.")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Context limit in tokens.")] = None,
    log: Annotated[Path, typer.Option(help="Where the server's output goes.")] = Path("runs/teacher.log"),
    as_json: Json = False,
) -> None:
    """Serve a teacher with vLLM until Ctrl-C, for runs with --endpoint.

    Example: reflux teacher serve examples/quickstart/teacher --port 8000
    """
    config = TeacherConfig(model=resolve_model(model, Path.cwd()), port=port, max_model_len=max_model_len)
    check_machine(Machine.here(log.parent))

    async def serve_until_stopped() -> None:
        with console_progress(_messages) as progress:
            server = VllmServer(config, run=log.parent, log=log, on_phase=progress.phase, on_notice=progress.notice)
            await server.__aenter__()
        try:
            reached = {"endpoint": server.endpoint.base_url, "model": server.endpoint.model, "api_key": server.endpoint.api_key}
            if as_json:
                _print_json(reached)
            else:
                _output.print(plain_table(("", ""), list(reached.items())))
                _output.print(f"\nexport {config.api_key_env}={reached['api_key']}", highlight=False, soft_wrap=True)
                _output.print(f"reflux run CONFIG --endpoint {reached['endpoint']}", highlight=False, soft_wrap=True)
            sys.stdout.flush()
            await server.watch()
        finally:
            await server.__aexit__(None, None, None)

    _run_async(serve_until_stopped(), "Stopped.")


@app.command()
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

    scored = score_rows(Predictor.load(_student_folder(model)), rows, batch_size)
    if as_json:
        _print_json(scored)
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
    _output.print(Group(plain_table(("", ""), headline), "", plain_table(("label", "precision", "recall", "F1", "rows"), classes)))


@app.command()
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

    predictor = Predictor.load(_student_folder(model))
    with out.open("wb") if out else os.fdopen(os.dup(sys.stdout.fileno()), "wb") as file:
        for batch in _batches(texts, batch_size):
            predictions = predictor.predict(batch, batch_size)
            lines = [{"text": text, "label": label, "confidence": round(p, 4)} for text, (label, p) in zip(batch, predictions, strict=True)]
            file.write(msgspec.json.Encoder().encode_lines(lines))


@app.command()
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
        _print_json(rows)
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows(row.values() for row in rows)
    else:
        _output.print(plain_table(table.column_names, [list(row.values()) for row in rows]))
        _messages.print(f"{len(rows)} row{'' if len(rows) == 1 else 's'}", style="dim", highlight=False)


@app.command()
def report(run: Run, as_json: Json = False) -> None:
    """Show what a run has come to, finished or not.

    Example: reflux report runs/quickstart
    """
    place = open_run(run)
    summary = read_json(place.summary, Summary) if place.summary.exists() else None
    if as_json and summary is not None:
        _print_json(summary)
        return
    rounds = read_rounds(place)
    reports = [read_json(path, WeaknessReport) for path in sorted(place.reports.glob("[0-9]*.json"))]
    if as_json:
        _print_json({"finished": False, "rounds": rounds, "reports": reports})
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
    _output.print(Group(*([summary_view(summary), ""] if summary else []), *parts))


@app.command(name="compact")
def compact_tables(run: Run, as_json: Json = False) -> None:
    """Merge the small files of a run's tables into large ones, also while it goes on. Changes no row.

    Example: reflux compact runs/quickstart
    """
    done = compact(open_run(run))
    if as_json:
        _print_json(done)
    else:
        _output.print(plain_table(("table", "files merged", "into"), [(table.table, table.merged, table.into) for table in done]))


def _run_async(work: Coroutine[Any, Any, T], farewell: str) -> T:
    """Run on uvloop; Ctrl-C and SIGTERM cancel the work, which cleans up after itself."""
    terminated = False

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await work

    try:
        return uvloop.run(cancellable())
    except KeyboardInterrupt:
        _leave(farewell, 130)
    except asyncio.CancelledError:
        if not terminated:
            raise
        _leave(farewell, 143)


def _leave(farewell: str, status: int) -> NoReturn:
    _note(farewell)
    sys.exit(status)


def _parse_setting(setting: str) -> tuple[str, Any]:
    key, equals, value = setting.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {setting}: expected KEY=VALUE, e.g. strategy.rounds=2")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value  # a bare word is a string


def _set_aside(place: RunDir, config: RunConfig) -> None:
    """Rename the folder of a run that is finished, or of another configuration; one that was merely stopped stays, to be resumed."""
    if not place.run_json.exists():
        return
    if not place.summary.exists():
        try:
            check_same(place, read_json(place.run_json, Manifest), config)
        except UserError:
            pass
        else:
            return
    number = 1
    while (target := place.root.with_name(f"{place.root.name}.{number}")).exists():
        number += 1
    with place.lock("engine"):
        place.root.rename(target)
    _note(f"the earlier run is now {target}")


def _student_folder(path: Path) -> Path:
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


def _note(text: str) -> None:
    """A line for people, beside what was asked for."""
    _messages.print(inert(text, max_chars=2000), soft_wrap=True)


def _print_json(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


if __name__ == "__main__":
    main()
