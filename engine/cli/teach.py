"""Commands that teach: `run`, and `teacher serve`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from engine.api import prepare
from engine.cli.shell import Json, Settings, messages, note, output, parse_settings, print_json, run_async
from engine.config import RunConfig, StudentConfig, TeacherConfig, change_config, load_config, resolve_model
from engine.errors import UserError
from engine.loop import run_loop
from engine.machine.preflight import Machine, check_machine
from engine.records import TaskSpec
from engine.rundir import RunDir, open_run, read_json
from engine.runs.manifest import Manifest, check_same, stored_config
from engine.runs.purpose import refuse_other_purpose
from engine.runs.retention import Use, freed_parts, require
from engine.runs.summary import Summary
from engine.server.server import VllmServer
from engine.views.console import console_progress, run_progress
from engine.views.display import plain_table, summary_view


def run(
    config: Annotated[Path, typer.Argument(help="TOML file of the run, or the folder of a run to go on with.", metavar="CONFIG")],
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/NAME if not given.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the file's seed.")] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(help="Use a server that already runs, e.g. http://127.0.0.1:8000/v1; several share the work.", metavar="URL"),
    ] = None,
    settings: Settings = None,
    again: Annotated[bool, typer.Option("--again", help="Set a finished or different run aside (NAME.1, …) and start anew.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Print lines as to a file, and no dashboard.")] = False,
    as_json: Json = False,
) -> None:
    """Teach a student: start a run, or go on with one that was stopped.

    Example: reflux run examples/quickstart/quickstart.toml --seed 2
    """
    overrides = parse_settings(settings)
    overrides |= {key: value for key, value in (("seed", seed), ("teacher.endpoint", endpoint or None)) if value is not None}
    if (config / "run.json").is_file():
        if out is not None:
            raise UserError(f"{config} is the folder of a run already; leave --out away, or give the run's TOML file")
        place = open_run(config)
        resolved = change_config(stored_config(place, read_json(place.run_json, Manifest)), overrides)
    else:
        resolved = load_config(config, overrides)
        place = RunDir(out or Path("runs") / resolved.name)
    refuse_other_purpose(place)
    if again:
        _set_aside(place, resolved)
    if place.summary.exists():
        check_same(place, read_json(place.run_json, Manifest), resolved)
        note(f"{place.root} is finished already; --again sets it aside and starts anew")
        summary = read_json(place.summary, Summary)
    else:
        summary = _teach(resolved, place, plain)
    if as_json:
        print_json(summary)
    else:
        output.print(summary_view(summary))


def _teach(config: RunConfig, place: RunDir, plain: bool) -> Summary:
    task = check_parts(config)
    for warning in check_machine(
        Machine.here(place.root), serve=not all(teacher.endpoints for teacher in (config.teacher, *config.teachers))
    ):
        note(f"note: {warning}")
    if place.run_json.exists():
        require(place, Use.RESUME)
        check_same(place, read_json(place.run_json, Manifest), config)
        note(f"going on with {place.root}")

    async def teach() -> Summary:
        with run_progress(messages, plain=plain) as progress:
            return await run_loop(config, task, place, progress)

    return run_async(teach(), f"Stopped. The same command goes on with {place.root}.")


def check_parts(config: RunConfig, *, with_student: bool = True) -> TaskSpec:
    """Everything that can be wrong with a task, its teachers and its student, looked at before anything is written or started."""
    if with_student:
        check_student(config.student)
    return prepare(config, note)


def check_student(config: StudentConfig) -> None:
    from student import check_encoder  # torch and transformers are not loaded for commands that do not need them

    check_encoder(config)


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
        with console_progress(messages) as progress:
            server = VllmServer(config, run=log.parent, log=log, on_phase=progress.phase, on_notice=progress.notice)
            await server.__aenter__()
        try:
            reached = {"endpoint": server.endpoint.base_url, "model": server.endpoint.model, "api_key": server.endpoint.api_key}
            if as_json:
                print_json(reached)
            else:
                output.print(plain_table(("", ""), list(reached.items())))
                output.print(f"\nexport {config.api_key_env}={reached['api_key']}", highlight=False, soft_wrap=True)
                output.print(f"reflux run CONFIG --endpoint {reached['endpoint']}", highlight=False, soft_wrap=True)
            sys.stdout.flush()
            await server.watch()
        finally:
            await server.__aexit__(None, None, None)

    run_async(serve_until_stopped(), "Stopped.")


def _set_aside(place: RunDir, config: RunConfig) -> None:
    """Rename the folder of a run that is finished, or of another configuration; one that was merely stopped stays, to be resumed."""
    if not place.run_json.exists():
        return
    if not place.summary.exists() and not freed_parts(place):
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
    note(f"the earlier run is now {target}")
