"""What a controller is told of one endpoint, and how often; and what can be read off it at once."""

from __future__ import annotations

from dataclasses import dataclass

from engine.teacher.metrics import ServerGauges

OBSERVE_S = 0.1
"""Between two observations. An overload should be observed at once: until then every refusal makes room for the next."""
READ_METRICS_S = 0.25
"""Between two readings of the server's metrics, where they cost it little; observations between them come without."""
READ_METRICS_AT_MOST_S = 0.5
"""Where they cost it much: with fewer, the noise of a window could not be told."""
WAITING_SHARE = 0.05
"""Of those that run: as many may wait, so that a place that becomes free is filled within the step."""
WAITING_LEAST = 2


@dataclass(frozen=True, slots=True)
class Observation:
    """What happened at one endpoint since the last observation; all counts in sequences."""

    at_s: float
    """Monotonic."""
    peak_in_flight: int
    in_flight: int
    has_backlog: bool
    """Whether at any time requests waited for a permit: whether the limit was used."""
    completed: int
    completed_tokens: int
    """Output tokens of those."""
    overloads: int
    """Answers with 429 or 503."""
    timeouts: int
    gauges: ServerGauges | None
    """None: the server shows none, or they could not be read this time."""


def allowed_waiting(gauges: ServerGauges) -> int:
    return max(WAITING_LEAST, round(gauges.running * WAITING_SHARE))


def own_part(observation: Observation, gauges: ServerGauges) -> float:
    """Of the running sequences: those that the others leave, and at least half, or whoever queues more would take all."""
    others = max(gauges.running + gauges.waiting - observation.in_flight, 0)
    return max(gauges.running - others, gauges.running / 2)
