"""How long the teacher's servers were busy in each round, and how long they were there for it, from the times of the calls.

A round lasts from its first call to the first of the next; the time in which no process worked on the run, as its shifts tell, is not in
it. Calls that were in flight together count once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from engine.cost.cost import Shift
from engine.cost.meter import read_shifts
from engine.rundir import RunDir
from engine.store import run_query

Interval: TypeAlias = tuple[float, float]

_CALLS = """
with spans as (
    select round, epoch(started_at) as began_s, epoch(started_at) + latency_s as ended_s from calls where model <> 'local'
), ahead as (
    select *, max(ended_s) over (partition by round order by began_s, ended_s rows between unbounded preceding and 1 preceding) as before_s
    from spans
)
select round, min(began_s) as began_s, max(ended_s) as ended_s,
    sum(greatest(ended_s - greatest(began_s, coalesce(before_s, began_s)), 0)) as busy_s
from ahead group by round order by began_s
"""


@dataclass(frozen=True, slots=True)
class RoundTimes:
    round: int
    busy_s: float
    """With a call of the round in flight."""
    reserved_s: float
    """With a server up; where rounds follow each other, the student's learning is in it."""


def read_round_times(run: RunDir) -> tuple[RoundTimes, ...]:
    """In the order in which they began; none where no call is there (any more)."""
    lines = run_query(run, _CALLS).to_pylist()
    found = [(line["round"], line["began_s"], line["ended_s"], line["busy_s"]) for line in lines]
    return tuple(round_times(found, read_shifts(run)))


def round_times(rounds: Sequence[tuple[int, float, float, float]], shifts: Sequence[Shift]) -> Iterable[RoundTimes]:
    """`rounds`: number, first call, end of the last, and busy seconds, in the order of their begin."""
    worked = [(shift.began_at, shift.began_at + shift.wall_s) for shift in shifts]
    for place, (round, began_s, ended_s, busy_s) in enumerate(rounds):
        until_s = rounds[place + 1][1] if place + 1 < len(rounds) else ended_s
        reserved_s = sum(_common((began_s, until_s), shift) for shift in worked) if worked else until_s - began_s
        yield RoundTimes(round, busy_s, max(reserved_s, busy_s))


def _common(first: Interval, second: Interval) -> float:
    return max(min(first[1], second[1]) - max(first[0], second[0]), 0.0)
