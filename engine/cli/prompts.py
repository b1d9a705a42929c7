"""Commands about what is said to the teacher: `prompts show`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli.shell import Json, Settings, note, parse_settings, print_json
from engine.config import METHODS, RunConfig, load_config
from engine.errors import UserError
from engine.rehearsal import as_text, make_up_report, rehearse
from engine.reports import WeaknessReport
from engine.rundir import read_json
from engine.task.task import load_task
from engine.variants import DEFAULT
from engine.views.display import inert


def show(
    method: Annotated[str, typer.Argument(help=f"One of {', '.join(METHODS)}.", metavar="METHOD")],
    task: Annotated[Path, typer.Option(help="TOML file of a run: its task, sampling, prompts, and, if it is of this method, strategy.")],
    report: Annotated[
        Path | None, typer.Option(help="Weakness report of a run (runs/NAME/reports/0001.json); one is made up of seed rows if not given.")
    ] = None,
    assignment: Annotated[int, typer.Option(min=0, help="Which of the round's assignments, counted from 0.")] = 0,
    variant: Annotated[
        str | None, typer.Option(help="Say it in this variant's words, or `default`; as the run would if not given.", metavar="NAME")
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Print exactly what a method would send: all turns of one assignment, how they are sampled, and the schema of the reply.

    Example: reflux prompts show evokd --task examples/quickstart/quickstart.toml
    """
    config = _load(task, method, parse_settings(settings))
    spec = load_task(config.task, config.seed)
    if report is None:
        note("The report is made up of seed rows; give one of a run with --report.")
    answered = make_up_report(config, spec) if report is None else read_json(report, WeaknessReport)
    if variant is not None:
        _require_variant(config, variant)
    rehearsal = rehearse(config, spec, answered, assignment, variant)
    if as_json:
        print_json(rehearsal)
    else:
        sys.stdout.writelines(f"{inert(line, max_chars=len(line)).plain}\n" for line in as_text(rehearsal).splitlines())


def _require_variant(config: RunConfig, variant: str) -> None:
    names = sorted({name for files in config.variants.templates.values() for name in files})
    if variant not in (DEFAULT, *names):
        there = f"there are {DEFAULT}, {', '.join(names)}" if names else "name its file in the configuration, [variants.templates]"
        raise UserError(f"no variant {variant!r}; {there}")


def _load(task: Path, method: str, settings: dict[str, Any]) -> RunConfig:
    """The file's own strategy where it is of this method, its defaults where it is not."""
    if method not in METHODS:
        raise UserError(f"no method {method!r}; there are {', '.join(METHODS)}")
    own = load_config(task)
    section = own.strategy.model_dump() if own.strategy.type == method else {"type": method}
    return load_config(task, {"strategy": section, **settings})
