"""Whose turn it is: whether the engine asks a round, waits for the student, or asks no more. Pure: what is known in, decision out.

In lock-step (`max_staleness = 0`, as published) round r is asked when the report on round r - 1 is there. Otherwise the engine asks on
against the newest report while the student learns, as long as no more complete rounds than that wait for a report. What a report says may
end the asking only when it is about all that was asked: a report that lags is waited for before it decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from engine.reports import WeaknessReport
from engine.rundir import RunDir, read_json, write_json


@dataclass(frozen=True, slots=True)
class Asking:
    """The content of asking.json: the newest report when a round began. A resumed round answers the same, so that it asks the same."""

    round: int
    report: int


@dataclass(frozen=True, slots=True)
class Ask:
    """The round is to be asked, and answers the report on that round."""

    round: int
    report: int


@dataclass(frozen=True, slots=True)
class Wait:
    """For the next report."""


@dataclass(frozen=True, slots=True)
class Stop:
    reason: str


Turn: TypeAlias = Ask | Wait | Stop


def next_turn(
    last_round: int,
    reports: Sequence[WeaknessReport],
    max_staleness: int,
    rounds: int,
    reason_to_stop: Callable[[], str | None],
    asking: Asking | None = None,
) -> Turn:
    """`last_round`: complete. `reports`: all there are, at least that on round 0. `rounds`: to be asked at most. `asking`: what asking.json
    says. `reason_to_stop` judges by these reports, and by what has been used up.
    """
    ahead = last_round - reports[-1].round
    if asking is not None and asking.round == last_round + 1:
        return Ask(asking.round, asking.report)  # begun by a process that ended: rows of it may be committed
    if ahead > max_staleness:
        return Wait()
    if (reason := reason_to_stop()) is not None:
        return Wait() if ahead else Stop(reason)
    return Wait() if last_round >= rounds else Ask(last_round + 1, reports[-1].round)


def read_asking(run: RunDir) -> Asking | None:
    return read_json(run.asking, Asking) if run.asking.exists() else None


def note_asking(run: RunDir, turn: Ask) -> None:
    """Before the round's first request."""
    if read_asking(run) != (asking := Asking(turn.round, turn.report)):
        write_json(run.asking, asking)
