"""How busy the teacher was, from the times of its calls alone.

A call counts as in flight from its first attempt for as long as its last one took, and its tokens as written evenly over that time. So the
sum over all time is exact, and what happens within a single call is not seen. Longer pauses, without any call, are cut out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from engine.rundir import RunDir
from engine.store import run_query

Floats: TypeAlias = npt.NDArray[np.float64]

NUM_BINS = 120
PAUSE_S = 900.0
"""Without a call for longer than this the run was not at work, or the student learned for long; the page says that it is cut."""
_SHORTEST_S = 0.001

_CALLS = """
select epoch(started_at) as started_s, latency_s, coalesce(completion_tokens, 0) as tokens from calls where model <> 'local' order by 1
"""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Means over equal stretches of time."""

    at_s: Floats
    """The middle of each stretch, since the first call; pauses do not count."""
    tokens_per_s: Floats
    in_flight: Floats
    pauses_s: tuple[float, ...]
    """Where pauses were cut out."""


def read_timeline(run: RunDir) -> Timeline | None:
    """None where no call is there (any more)."""
    calls = run_query(run, _CALLS)
    if not calls.num_rows:
        return None
    started, latency, tokens = (calls.column(name).to_numpy().astype(np.float64) for name in ("started_s", "latency_s", "tokens"))
    return timeline(started, latency, tokens)


def timeline(started_s: Floats, latency_s: Floats, tokens: Floats) -> Timeline:
    """Calls in the order in which they began, at least one."""
    lasted = np.maximum(latency_s, _SHORTEST_S)
    idle = np.maximum(started_s[1:] - np.maximum.accumulate(started_s + lasted)[:-1], 0)
    cut = np.where(idle > PAUSE_S, idle, 0)
    begin = started_s - started_s[0] - np.concatenate(([0.0], np.cumsum(cut)))
    edges = np.linspace(0, (begin + lasted).max(), NUM_BINS + 1)
    width = edges[1] - edges[0]
    return Timeline(
        at_s=(edges[:-1] + edges[1:]) / 2,
        tokens_per_s=np.diff(_done(edges, begin, lasted, tokens)) / width,
        in_flight=np.diff(_done(edges, begin, lasted, lasted)) / width,
        pauses_s=tuple(float(place) for place in begin[1:][cut > 0]),
    )


def _done(times: Floats, begin: Floats, lasted: Floats, amounts: Floats) -> Floats:
    """How much of all amounts was done at each time, each being done evenly between its begin and its end."""
    return _ramp(times, begin, amounts / lasted) - _ramp(times, begin + lasted, amounts / lasted)


def _ramp(times: Floats, begin: Floats, rates: Floats) -> Floats:
    """The sum of what flows at each rate from its begin on."""
    order = np.argsort(begin)
    flowing = np.concatenate(([0.0], np.cumsum(rates[order])))
    shift = np.concatenate(([0.0], np.cumsum((rates * begin)[order])))
    so_far = np.searchsorted(begin[order], times, side="right")
    return times * flowing[so_far] - shift[so_far]
