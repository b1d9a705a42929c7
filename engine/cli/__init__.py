"""The front door: the command `reflux`. It checks what it is given, starts the parts, and shows what came of it.

Exit status: 0 done, 1 something broke (the run resumes), 2 wrong input, 130 stopped with Ctrl-C, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import os
import sys

import typer

from engine.cli import bulk, comparisons, init, prompts, replays, runs, students, tables, teach, watching
from engine.cli.shell import messages
from engine.display import print_error
from engine.errors import RefluxError

__all__ = ["app", "main"]

app = typer.Typer(
    name="reflux",
    help="Distil a local open-weight LLM into a small, fast classifier: the student's mistakes steer what the teacher writes next.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(init.init)
app.command()(teach.run)
app.command()(bulk.generate)
app.command()(bulk.label)
app.command()(students.evaluate)
app.command()(students.predict)
app.command()(comparisons.compare)
app.command()(students.export_student)
app.command()(students.serve_student)
app.command()(tables.query)
app.command()(tables.show)
app.command()(replays.replay)
app.command()(runs.runs)
app.command()(watching.status)
app.command()(watching.watch)
app.command()(runs.report)
app.command()(runs.export)
app.command()(runs.compact)
app.command()(runs.prune)

teacher_app = typer.Typer(name="teacher", help="The teacher's server.", no_args_is_help=True, rich_markup_mode=None)
teacher_app.command()(teach.serve)
app.add_typer(teacher_app)

prompts_app = typer.Typer(name="prompts", help="What is said to the teacher.", no_args_is_help=True, rich_markup_mode=None)
prompts_app.command()(prompts.show)
app.add_typer(prompts_app)


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
