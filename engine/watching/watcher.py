"""Measures, from one observation of a server to the next, what the engine itself was busy with: the figures that `bottleneck` judges by."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from engine.crew import Crew
from engine.desk import Desk
from engine.teacher.ceiling import Ceiling
from engine.teacher.concurrency import Observation
from engine.teacher.lane import Lane
from engine.watching.bottleneck import FlowMeter, Tick


class Watcher:
    """Measures what is short, from one observation of a server to the next."""

    def __init__(self, crew: Crew, desk: Desk, ceilings: Sequence[Ceiling], *, is_fixed: bool) -> None:
        self._crew = crew
        self._desk = desk
        self._ceilings = ceilings
        self._is_fixed = is_fixed
        self._seen_s: dict[Lane, float] = {}
        self._busy = _Rate(time.thread_time)
        self._handling = _Rate(lambda: desk.handling_s)
        self._storing = _Rate(lambda: desk.storing_s)
        self.meter: FlowMeter | None = None
        """Of the present round; None between rounds, when nothing is to be done."""

    @property
    def lost(self) -> Mapping[str, int]:
        """Rows that were not accepted, by reason."""
        return self._desk.lost

    def observed(self, lane: Lane, observation: Observation) -> None:
        self._crew.grow()
        now_s = observation.at_s
        duration_s = now_s - self._seen_s.get(lane, now_s)
        self._seen_s[lane] = now_s
        shares = self._busy.since(now_s), self._handling.since(now_s), self._storing.since(now_s)
        if self.meter is None or duration_s <= 0:
            return
        busy, handling, storing = shares
        self.meter.add(
            Tick(
                lane.name,
                observation,
                lane.gauges,
                duration_s,
                is_fixed=self._is_fixed,
                at_ceiling=any(ceiling.num_waiting for ceiling in self._ceilings),
                busy=busy,
                handling=handling,
                storing=storing / max(self._crew.num_working, 1),
            )
        )


class _Rate:
    """By how much a rising figure rises in a second."""

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._last, self._last_s, self._rate = read(), 0.0, 0.0

    def since(self, now_s: float) -> float:
        if now_s > self._last_s:
            value = self._read()
            self._rate = (value - self._last) / (now_s - self._last_s)
            self._last, self._last_s = value, now_s
        return self._rate
