"""What a replay has set out to do, on disk before it does anything: `replays/0005.json` says what round 5 sends again.

While that round is not complete, no other may be asked, and it can only go on as it began: calls that are committed to it already would
else be missing from its record. A complete round's plan stays, as what its rows were made with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.errors import StoreError, UserError
from engine.rundir import RunDir, read_json, write_json
from engine.store import read_rounds


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """The content of such a file."""

    round: int
    """Its own, into which the rows go."""
    where: str | None
    """SQL condition over rejections and calls; None takes all that could end otherwise."""
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    """What differs from the run's configuration, by dotted key, but for settings of the machine."""
    model: str | None = None
    """In requests; None while nothing has been asked."""
    other_models: tuple[str, ...] = ()
    """Of the run's other teachers; with `model`."""


def open_plan(run: RunDir) -> ReplayPlan | None:
    """The plan of a replay that was stopped; None if none was."""
    paths = sorted(run.replays.glob("[0-9]*.json"))
    if not paths:
        return None
    plan = read_json(paths[-1], ReplayPlan)
    return None if plan.round in {record.round for record in read_rounds(run)} else plan


def save_plan(run: RunDir, plan: ReplayPlan) -> None:
    try:
        run.replays.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot create {run.replays}: {error.strerror}") from error
    write_json(run.replay(plan.round), plan)


def drop_plan(run: RunDir, plan: ReplayPlan) -> None:
    """Of a replay that came to nothing."""
    run.replay(plan.round).unlink(missing_ok=True)


def refuse_open_replay(run: RunDir) -> None:
    """UserError if a replay was stopped in this run."""
    if open_plan(run) is not None:
        raise UserError(
            f"a replay of {run.root} was stopped; `reflux replay {run.root}` goes on with it, with --no-ask it ends with what has been "
            "answered, and then this goes on"
        )
