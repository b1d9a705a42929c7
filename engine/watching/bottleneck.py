"""What limits the speed of a round, judged from measured times. Pure: ticks in, a Flow out.

A tick is the time between two observations of the servers. In each, one thing was short: a place at the servers (then they are the limit,
by their memory, their queue, or their computing), or requests to fill the places with (then it is who should make them: the client's
processor, parsing, the disk, the user's ceiling, or simply a round that is nearly over).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from engine.records import RoundRecord
from engine.teacher.concurrency import Observation
from engine.teacher.metrics import ServerGauges

BUSY = 0.8
"""Of a tick: an event loop that computes for so much of it keeps others waiting."""
MOSTLY = 0.5
MEMORY_FULL = 0.9
"""Of the KV cache, while sequences wait."""
PEAK_S = 2.0
"""What a server did over so long, it can do."""


class Limit(StrEnum):
    """What was short."""

    COMPUTE = "compute"
    """The server's computing: more at once brought nothing more."""
    QUEUE = "queue"
    """Places in the server's batch: sequences waited there."""
    MEMORY = "memory"
    """The server's KV cache."""
    CONCURRENCY = "concurrency"
    """The number of requests at once that the user fixed."""
    CEILING = "ceiling"
    """The user's limit on requests by time."""
    CLIENT = "client"
    """The processor of the engine's own process."""
    PARSING = "parsing"
    """The same, most of it in parsing and gates."""
    STORAGE = "storage"
    """The disk: calls waited to be stored."""
    SUPPLY = "supply"
    """Requests: there were none left to ask, as at the end of a round."""


@dataclass(frozen=True, slots=True)
class Tick:
    """What happened between two observations of one server."""

    server: str
    observation: Observation
    """What its controller was told."""
    gauges: ServerGauges | None
    """As the server told them last."""
    duration_s: float
    is_fixed: bool
    """Whether the user fixed the number of requests at once."""
    at_ceiling: bool
    """Whether requests waited for the user's limit by time."""
    busy: float
    """Share of the time that the event loop computed, 0 to 1."""
    handling: float
    """Share of the time spent on parsing, gates and records; part of `busy`."""
    storing: float
    """Share of those at work who waited for the store."""


@dataclass(frozen=True, slots=True)
class Flow:
    """How a round went."""

    limited_s: dict[str, float]
    """Seconds that each Limit was what was short."""
    tokens_per_s: float
    """Output tokens, over all of the time."""
    peak_tokens_per_s: float
    """The most over any two seconds: what the servers can do with such requests."""

    @property
    def roofline_share(self) -> float:
        """0 to 1; 1 means that the servers did all the time what they did at their best."""
        return min(self.tokens_per_s / self.peak_tokens_per_s, 1.0) if self.peak_tokens_per_s else 0.0

    @property
    def limit(self) -> str:
        """What was short for most of the time; `supply` if nothing was seen."""
        return max(self.limited_s, key=lambda limit: self.limited_s[limit], default=Limit.SUPPLY.value)


class FlowMeter:
    """Of one round."""

    def __init__(self) -> None:
        self._limited_s: defaultdict[str, float] = defaultdict(float)
        self._recent: list[tuple[float, int]] = []
        """(until when, tokens) of the last ticks."""
        self._counters: dict[str, int] = {}
        """By server, as last read."""
        self._began_s: float | None = None
        self._ended_s = 0.0
        self._tokens = 0
        self._peak = 0.0
        self.tokens_per_s = 0.0
        """Output tokens over the last two seconds."""

    def add(self, tick: Tick) -> None:
        observation = tick.observation
        if self._began_s is None:
            self._began_s = observation.at_s - tick.duration_s
        self._ended_s = observation.at_s
        self._limited_s[judge(tick).value] += tick.duration_s
        self._tokens += observation.completed_tokens
        self._recent.append((observation.at_s, self._written(tick)))
        while self._recent and self._recent[0][0] < observation.at_s - PEAK_S:
            self._recent.pop(0)
        elapsed_s = min(observation.at_s - self._began_s, PEAK_S)
        if elapsed_s > 0:
            self.tokens_per_s = sum(tokens for _, tokens in self._recent) / max(elapsed_s, tick.duration_s)
            self._peak = max(self._peak, self.tokens_per_s)

    def _written(self, tick: Tick) -> int:
        """Tokens since the last tick, by the server's own counter where it shows one: answers come in waves, and count when they end."""
        gauges = tick.observation.gauges
        if gauges is None:
            return 0 if tick.server in self._counters else tick.observation.completed_tokens
        before = self._counters.get(tick.server, gauges.generation_tokens)
        self._counters[tick.server] = gauges.generation_tokens
        return max(gauges.generation_tokens - before, 0)

    def flow(self) -> Flow:
        elapsed_s = 0.0 if self._began_s is None else self._ended_s - self._began_s
        return Flow(
            limited_s={limit: round(seconds, 2) for limit, seconds in self._limited_s.items()},
            tokens_per_s=self._tokens / elapsed_s if elapsed_s else 0.0,
            peak_tokens_per_s=self._peak,
        )


def combine(rounds: Sequence[RoundRecord]) -> Flow:
    """Of several rounds together, as they were recorded."""
    limited_s: defaultdict[str, float] = defaultdict(float)
    for record in rounds:
        for limit, seconds in record.limited_s.items():
            limited_s[limit] += seconds
    generation_s = sum(record.generation_s for record in rounds)
    return Flow(
        limited_s={limit: round(limited_s[limit], 2) for limit in sorted(limited_s, key=lambda limit: -limited_s[limit])},
        tokens_per_s=sum(record.completion_tokens for record in rounds) / generation_s if generation_s else 0.0,
        peak_tokens_per_s=max((record.peak_tokens_per_s for record in rounds), default=0.0),
    )


def judge(tick: Tick) -> Limit:
    """The one thing that was short."""
    gauges = tick.gauges
    if tick.observation.has_backlog:
        if gauges is not None and gauges.waiting > 0:
            return Limit.MEMORY if gauges.kv_cache_use >= MEMORY_FULL else Limit.QUEUE
        return Limit.CONCURRENCY if tick.is_fixed else Limit.COMPUTE
    if tick.at_ceiling:
        return Limit.CEILING
    if tick.storing >= MOSTLY:
        return Limit.STORAGE
    if tick.busy >= BUSY:
        return Limit.PARSING if tick.handling >= MOSTLY * tick.busy else Limit.CLIENT
    return Limit.SUPPLY
