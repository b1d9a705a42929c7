"""What a run directory is for where it is not to teach a student: rows in bulk, or labels for a pool.

Invariant: a run keeps its purpose from its first file on, so that no command goes on with another's run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.errors import UserError
from engine.rundir import RunDir, read_json, write_json


@dataclass(frozen=True, slots=True)
class Purpose:
    """The content of purpose.json."""

    command: Literal["generate", "label"]
    rows: int
    """Wanted in the end."""


def purpose_of(run: RunDir) -> Purpose | None:
    """None for a run that teaches a student, and for a folder that is no run yet."""
    return read_json(run.purpose, Purpose) if run.purpose.exists() else None


def claim(run: RunDir, purpose: Purpose) -> Purpose:
    """Give a new run its purpose, before anything else is in it; of one that has it already, what it was last. UserError where the run
    is another command's.
    """
    found = purpose_of(run)
    if found is None and not run.run_json.exists():
        write_json(run.purpose, purpose)
        return purpose
    if found is None or found.command != purpose.command:
        other = "run" if found is None else found.command
        raise UserError(f"{run.root} is a run of `reflux {other}`; choose another folder with --out")
    return found


def refuse_other_purpose(run: RunDir) -> None:
    """UserError if this run is not one that teaches a student."""
    if (found := purpose_of(run)) is not None:
        raise UserError(f"{run.root} is a run of `reflux {found.command}`, and teaches no student; choose another folder with --out")


def is_done(run: RunDir) -> bool:
    """Whether nothing is left to be done."""
    return run.summary.exists() or (run.purpose.exists() and run.finish.exists())
