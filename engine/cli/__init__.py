"""The front door: the command `reflux`. It checks what it is given, starts the parts, and shows what came of it.

Exit status: 0 done, 1 something broke (the run resumes), 2 wrong input, 130 stopped with Ctrl-C, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Annotated

import typer

from engine.cli import bench, bulk, comparisons, init, prompts, replays, runs, students, tables, teach, watching
from engine.cli.helping import add, make_app
from engine.cli.shell import messages
from engine.errors import RefluxError
from engine.views.display import print_error

__all__ = ["app", "main"]


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"reflux {importlib.metadata.version('reflux')}")
        raise typer.Exit


app = make_app(
    "reflux", "Distil a local open-weight LLM into a small, fast classifier: the student's mistakes steer what the teacher writes next."
)


@app.callback()
def front_door(
    version: Annotated[bool, typer.Option("--version", help="Print the version, and end.", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Distil a local open-weight LLM into a small, fast classifier: the student's mistakes steer what the teacher writes next.

    COMMAND --help explains a command, with examples. docs/README.md of the project is where to read on.
    """


teacher_app = make_app("teacher", "The teacher's server.")
add(teacher_app, "Commands", {teach.serve: "Serve a teacher with vLLM until Ctrl-C, for runs with --endpoint."})
bench_app = make_app("bench", "What it costs on this machine.")
add(bench_app, "Commands", {bench.cost: "Set teacher and student side by side: time, money, scores, break-even."})
prompts_app = make_app("prompts", "What is said to the teacher.")
add(prompts_app, "Commands", {prompts.show: "Print exactly what a method would send."})

add(
    app,
    "Teach and write",
    {
        init.init: "Write a task file for your own data.",
        teach.run: "Teach a student, or go on where a run stopped.",
        bulk.generate: "Have the teacher write rows in bulk, without a student.",
        bulk.label: "Have the teacher label texts of yours.",
    },
)
app.add_typer(teacher_app, rich_help_panel="Teach and write", short_help="Keep a teacher running for several runs: teacher serve.")
app.add_typer(prompts_app, rich_help_panel="Teach and write", short_help="See what would be sent to the teacher: prompts show.")
add(
    app,
    "Look at runs",
    {
        watching.watch: "Follow a run that another process works on.",
        watching.status: "Say how it stands with a run now.",
        runs.runs: "List all runs.",
        runs.report: "Show what a run has come to; --html for a page with plots.",
        comparisons.compare: "Set runs side by side, or tell which of two students is better.",
    },
)
app.add_typer(bench_app, rich_help_panel="Look at runs", short_help="Measure what a prediction costs: bench cost.")
add(
    app,
    "Use the student",
    {
        students.evaluate: "Score a student on labelled rows.",
        students.predict: "Label texts, from a file or standard input.",
        students.serve_student: "Serve a student over HTTP.",
        students.export_student: "Write a student to a folder of its own, also as ONNX.",
    },
)
add(
    app,
    "Work with rows",
    {
        tables.query: "Ask a run's tables in SQL.",
        tables.show: "Tell the story of one row.",
        runs.export: "Write the accepted rows as a dataset with a card.",
        replays.replay: "Judge refused rows again, and ask for missing ones.",
        runs.compact: "Merge the small files of a run's tables.",
        runs.prune: "Free disk space.",
    },
)


def main() -> None:
    """Run the command; every expected error is one message and its exit status, never a traceback."""
    try:
        app()
    except RefluxError as error:
        print_error(messages, str(error))
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (`reflux query … | head`); what Python would flush on exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
