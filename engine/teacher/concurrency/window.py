"""One measurement of a throughput: as short as its noise allows.

A server that shows metrics is measured by its own token counter, one that does not by whole answers.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from enum import Enum

from engine.teacher.concurrency.observation import Observation, allowed_waiting
from engine.teacher.metrics import ServerGauges

SETTLE_S = 0.25
"""With metrics: after the limit is reached, before measuring."""
SETTLE_AT_MOST_S = 2.0
"""With metrics: while the prompts of a rise still wait to be computed, measuring would find the stall and not the gain."""
MEASURE_S = 0.75
"""The shortest window: three observations, since a server reports by steps of up to 0.1 s."""
NOISE = 0.03
"""Relative standard error of a rate that is good enough to judge by."""
MEASURE_AT_MOST_S = 8.0
"""With metrics: a window goes on for so long if its rate is noisier than that."""
TRIAL_S = 1.5
"""The shortest window, with metrics, of a trial while holding: its differences are smaller."""
ANSWER_SPREAD = 0.6
"""Standard deviation of an answer's tokens over their mean; 20 to 400 evenly spread gives 0.52."""
ALONE = 0.9
"""A client with this share of the server's sequences has it to itself: reading and answers are never of quite the same moment."""
RAMP_TURNOVER = 0.75
"""Without metrics, a window of a ramp: more than a half, so that some of the new ones are among the answers, and no more, for speed."""
FRESH = 0.8
"""Part of the lasting throughput that answers show right after a doubling: half of what is in flight has only begun."""
ANSWERS_LEAST = 16
"""Without metrics, in a window."""


class Phase(Enum):
    """What the controller is doing; see the module's docstring."""

    RAMP = "ramp"
    HOLD = "hold"
    UP = "up"
    DOWN = "down"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Level:
    """A limit and what it brought, in tokens per second."""

    limit: int
    total_rate: float
    """Of all clients together, as far as it is known: what a rise is judged by."""
    own_rate: float
    """What a descent is judged by: another client would keep the total up, and take all."""
    noise: float
    """Relative standard error of the rates."""


@dataclass(slots=True)
class Window:
    """One measurement, or the time before it in which the server settles: what is in flight has come down to the limit, and the prompts of
    a rise are computed (by metrics), or a turnover has passed.
    """

    is_settling: bool
    began_s: float
    turnover: int
    """In flight when it began."""
    first: ServerGauges | None
    first_s: float
    is_fresh: bool = False
    """Whether it began right after a rise."""
    last: ServerGauges | None = None
    last_s: float = 0.0
    completed: int = 0
    tokens: int = 0
    share_sum: float = 0.0
    kv_sum: float = 0.0
    num_readings: int = 0
    rates: list[float] = field(default_factory=list[float])
    """Tokens per second from one reading to the next."""

    @classmethod
    def begin(cls, observation: Observation, *, is_settling: bool) -> Window:
        return cls(is_settling, observation.at_s, observation.in_flight, observation.gauges, observation.at_s)

    def add(self, observation: Observation) -> None:
        self.completed += observation.completed
        self.tokens += observation.completed_tokens
        if (gauges := observation.gauges) is None:
            return
        if self.first is None or gauges.generation_tokens < self.first.generation_tokens:
            # The first reading, or the server started again.
            self.first, self.first_s = gauges, observation.at_s
        else:
            before, before_s = (self.first, self.first_s) if self.last is None else (self.last, self.last_s)
            self.rates.append((gauges.generation_tokens - before.generation_tokens) / max(observation.at_s - before_s, 1e-3))
            self.last, self.last_s = gauges, observation.at_s
        share = observation.in_flight / max(gauges.running + gauges.waiting, 1)
        self.share_sum += 1.0 if share > ALONE else share
        self.kv_sum += gauges.kv_cache_use
        self.num_readings += 1

    def is_over(self, observation: Observation, limit: int, phase: Phase, *, by_metrics: bool) -> bool:
        elapsed_s = observation.at_s - self.began_s
        if self.is_settling:
            if observation.in_flight > limit:
                return False
            if not by_metrics:
                return self.completed >= self.turnover
            is_calm = observation.gauges is not None and observation.gauges.waiting <= allowed_waiting(observation.gauges)
            return elapsed_s >= (SETTLE_S if is_calm else SETTLE_AT_MOST_S)
        if by_metrics:
            measured_s = self.last_s - self.first_s if self.last is not None else 0.0
            least_s = MEASURE_S if phase is Phase.RAMP else TRIAL_S
            return measured_s >= least_s and (self.noise() <= NOISE or measured_s >= MEASURE_AT_MOST_S)
        share = RAMP_TURNOVER if phase is Phase.RAMP else 1
        return elapsed_s >= MEASURE_S and self.completed >= max(self.turnover * share, ANSWERS_LEAST)

    def noise(self) -> float:
        """Relative standard error of the server's own rate: sequences end in waves, and while prompts are computed nothing is written."""
        if len(self.rates) < 2:
            return 0.0
        mean = statistics.fmean(self.rates)
        return min(statistics.stdev(self.rates) / math.sqrt(len(self.rates)) / mean, 1.0) if mean > 0 else 1.0

    def level(self, observation: Observation, limit: int, *, by_metrics: bool) -> Level:
        if by_metrics and self.first is not None and self.last is not None:
            rate = (self.last.generation_tokens - self.first.generation_tokens) / (self.last_s - self.first_s)
            return Level(limit, rate, rate * self.share_sum / self.num_readings, self.noise())
        rate = self.tokens / (observation.at_s - self.began_s) / (FRESH if self.is_fresh else 1)
        return Level(limit, rate, rate, ANSWER_SPREAD / math.sqrt(max(self.completed, 1)))
