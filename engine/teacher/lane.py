"""One server, as the batcher sees it: how many sequences are there, how many may be, and whether it can be reached.

Invariants: `taken` is the number of sequences that hold a place, whether sent or about to be. Everything is counted in sequences: a request
for n draws is n. What the controller is told is counted here since it was last told.
"""

from __future__ import annotations

import time
from enum import Enum, auto

from engine.records import Completion
from engine.teacher.concurrency import ConcurrencyController, Observation
from engine.teacher.metrics import ServerGauges, parse_gauges
from engine.teacher.teacher import Teacher

METRICS_MISSES = 20
"""Readings in a row that bring nothing before a server is no longer asked for its metrics."""


class Reach(Enum):
    """Whether requests are sent to a server."""

    OPEN = auto()
    DOUBTED = auto()
    """It dropped a connection, and is asked whether it lives."""
    SUSPENDED = auto()
    """Somebody brings it back, and says when."""
    LOST = auto()
    """It will not serve us again."""


class Lane:
    """A teacher with its limit. Who takes a place gives it back."""

    def __init__(self, teacher: Teacher, controller: ConcurrencyController, *, name: str = "", is_supervised: bool = False) -> None:
        """`is_supervised`: somebody brings this server back when it dies, or ends the run; until then it is waited for."""
        self.teacher = teacher
        self.controller = controller
        self.name = name
        self.is_supervised = is_supervised
        self.reach = Reach.OPEN
        self.takes_draws = True
        """Whether the server answers several draws in one request; false once it refused several that it takes alone."""
        self.taken = 0
        self.in_flight = 0
        self.peak_in_flight = 0
        self.completed = 0
        self.gauges: ServerGauges | None = None
        """As read last."""
        self._busy_s, self._busy_since_s = 0.0, 0.0
        self._misses = 0
        self._begin_observation()

    @property
    def limit(self) -> int:
        return self.controller.limit

    @property
    def room(self) -> int:
        """Sequences that may be sent now. None after a refusal that the controller has not heard of: each would make room for the next."""
        return self.controller.limit - self.taken if self.reach is Reach.OPEN and not self.overloads else 0

    @property
    def load(self) -> float:
        return self.taken / self.controller.limit

    @property
    def shows_metrics(self) -> bool:
        """As far as is known."""
        return self._misses < METRICS_MISSES

    @property
    def busy_s(self) -> float:
        """Seconds by the clock with anything in flight."""
        return self._busy_s + (time.monotonic() - self._busy_since_s if self.in_flight else 0.0)

    def sent(self, num_sequences: int) -> None:
        if not self.in_flight:
            self._busy_since_s = time.monotonic()
        self.in_flight += num_sequences
        if self.in_flight > self._peak:
            self._peak = self.in_flight
            self.peak_in_flight = max(self.peak_in_flight, self._peak)

    def returned(self, num_sequences: int) -> None:
        self.in_flight -= num_sequences
        if not self.in_flight:
            self._busy_s += time.monotonic() - self._busy_since_s

    def answered(self, completions: list[Completion]) -> None:
        self.completed += len(completions)
        self._completed += len(completions)
        for completion in completions:
            self._completed_tokens += completion.usage.completion_tokens

    def overloaded(self, num_sequences: int) -> None:
        self.overloads += num_sequences

    def timed_out(self, num_sequences: int) -> None:
        self._timeouts += num_sequences

    def was_short(self) -> None:
        """Somebody waited because there was no room."""
        self._has_backlog = True

    async def read_gauges(self) -> ServerGauges | None:
        text = await self.teacher.metrics()
        gauges = None if text is None else parse_gauges(text)
        self._misses = self._misses + 1 if gauges is None else 0
        self.gauges = gauges or self.gauges
        return gauges

    def observe(self, now_s: float, gauges: ServerGauges | None = None) -> Observation:
        """Tell the controller what happened since the last time."""
        observation = Observation(
            at_s=now_s,
            peak_in_flight=self._peak,
            in_flight=self.in_flight,
            has_backlog=self._has_backlog,
            completed=self._completed,
            completed_tokens=self._completed_tokens,
            overloads=self.overloads,
            timeouts=self._timeouts,
            gauges=gauges,
        )
        self._begin_observation()
        self.controller.observe(observation)
        return observation

    def _begin_observation(self) -> None:
        self._peak = self.in_flight
        self._has_backlog = False
        self.overloads = 0
        """Refusals since the last observation."""
        self._completed = self._completed_tokens = self._timeouts = 0
