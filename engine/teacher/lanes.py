"""The servers of a run together: which is asked next, which can be reached, and how many sequences each may have.

Invariants: requests go to open lanes only. A lane that is doubted is probed until it answers, or somebody else decides about it. As long as
a lane is open, or supervised, nobody gives up; when all have been away for too long, or are lost, an error says so.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any

from engine.errors import RefluxError, ServerError
from engine.teacher.concurrency import OBSERVE_S, READ_METRICS_AT_MOST_S, READ_METRICS_S, Observation
from engine.teacher.lane import Lane, Reach
from engine.teacher.metrics import ServerGauges

PROBE_S = 0.1
"""Before a server that dropped a connection, and gave no sign of life, is asked for one again; doubled each time."""
MAX_PROBE_S = 5.0
METRICS_SHARE = 0.02
"""Of a server's time that may go into telling its metrics: vLLM's front end takes 5 to 12 ms each time, in which it does nothing else."""
BURST_S = 0.01
"""From a refusal to the observation of it: of requests sent together, those that are too many are refused together, and cut for once."""

Observed = Callable[[Lane, Observation], None]
Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]


class Lanes:
    """Looks after `lanes` in tasks that `start` begins, and whose errors reach everyone who asks; who began them ends them."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        *,
        start: Callable[[Coroutine[Any, Any, None]], object],
        changed: Callable[[], None],
        observed: Observed,
        patience_s: float,
        sleep: Sleep = asyncio.sleep,
        clock: Clock = time.monotonic,
    ) -> None:
        """`changed` is called when there may be room that was not there before, `observed` with what each controller was told.

        `patience_s` is how long all servers may be away when nobody supervises them.
        """
        self._lanes = lanes
        self._start = start
        self._changed = changed
        self._observed = observed
        self._patience_s = patience_s
        self._sleep = sleep
        self._clock = clock
        self._all_away_since_s: float | None = None

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes)

    @property
    def limit(self) -> int:
        """Sequences that may be at all servers together."""
        return sum(lane.limit for lane in self._lanes if lane.reach is not Reach.LOST)

    def freest(self) -> Lane | None:
        """The one to ask next; None if there is no room anywhere."""
        if len(self._lanes) == 1:
            return self._lanes[0] if self._lanes[0].room > 0 else None
        free = [lane for lane in self._lanes if lane.room > 0]
        return min(free, key=lambda lane: lane.load, default=None)

    def was_short(self) -> None:
        for lane in self._lanes:
            lane.was_short()

    def begin(self) -> None:
        for lane in self._lanes:
            self._start(self._watch(lane))
            self._start(self._read_metrics(lane))

    # Whether they can be reached.

    def doubt(self, lane: Lane) -> None:
        """It dropped a connection: send nothing there until it says that it lives."""
        if lane.reach is Reach.OPEN:
            self._close(lane, Reach.DOUBTED)
            self._start(self._probe(lane))

    def suspend(self, lane: Lane) -> None:
        """Send nothing there until `resume`."""
        if lane.reach is not Reach.LOST:
            self._close(lane, Reach.SUSPENDED)

    def resume(self, lane: Lane) -> None:
        if lane.reach is not Reach.LOST:
            lane.reach = Reach.OPEN
            self._all_away_since_s = None
            self._changed()

    def lose(self, lane: Lane, error: RefluxError) -> None:
        """For good; raises `error` if no other is left."""
        self._close(lane, Reach.LOST)
        if all(other.reach is Reach.LOST for other in self._lanes):
            raise error

    def _close(self, lane: Lane, reach: Reach) -> None:
        lane.reach = reach
        if self._all_away_since_s is None and not any(other.reach is Reach.OPEN for other in self._lanes):
            self._all_away_since_s = self._clock()

    async def _probe(self, lane: Lane) -> None:
        delay_s = PROBE_S
        while lane.reach is Reach.DOUBTED:
            is_alive = await lane.teacher.is_alive()
            if lane.reach is not Reach.DOUBTED:
                return
            if is_alive:
                self.resume(lane)
                return
            self._check_patience(lane)
            await self._sleep(delay_s)
            delay_s = min(2 * delay_s, MAX_PROBE_S)

    def _check_patience(self, lane: Lane) -> None:
        since_s = self._all_away_since_s
        if since_s is None or any(other.is_supervised for other in self._lanes if other.reach is not Reach.LOST):
            return
        if self._clock() - since_s >= self._patience_s:
            raise ServerError(f"the teacher's server {lane.name or 'of this run'} is gone: no answer for {self._patience_s:g} s")

    # How many sequences.

    def overloaded(self, lane: Lane, num_sequences: int) -> None:
        """It refused them; no others go there until its controller has heard of it."""
        if not lane.overloads:
            self._start(self._observe_burst(lane))
        lane.overloaded(num_sequences)

    async def _observe_burst(self, lane: Lane) -> None:
        await asyncio.sleep(BURST_S)
        if lane.overloads:
            self._observe(lane)

    async def _watch(self, lane: Lane) -> None:
        """Keeps the lane's limit where the server is busy, and not more."""
        while True:
            await asyncio.sleep(OBSERVE_S)
            if lane.reach is Reach.OPEN:
                self._observe(lane)

    async def _read_metrics(self, lane: Lane) -> None:
        """Beside the other observations: a server that is slow to tell must not hold those up."""
        fastest_s = math.inf
        interval_s = READ_METRICS_S
        while lane.shows_metrics:
            await asyncio.sleep(interval_s)
            if lane.reach is not Reach.OPEN:
                continue
            asked_s = self._clock()
            gauges = await lane.read_gauges()
            # The fastest so far: a slow one has waited for something else.
            fastest_s = min(fastest_s, self._clock() - asked_s)
            interval_s = max(READ_METRICS_S, min(fastest_s / METRICS_SHARE, READ_METRICS_AT_MOST_S))
            if gauges is not None:
                self._observe(lane, gauges)

    def _observe(self, lane: Lane, gauges: ServerGauges | None = None) -> None:
        self._observed(lane, lane.observe(self._clock(), gauges))
        self._changed()
