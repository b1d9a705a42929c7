"""How many sequences an endpoint should have in flight, found out by a pure state machine (`controller`)."""

from engine.teacher.concurrency.controller import METRICS_LOST_S, QUEUE_S, ConcurrencyController
from engine.teacher.concurrency.observation import OBSERVE_S, READ_METRICS_AT_MOST_S, READ_METRICS_S, Observation
from engine.teacher.concurrency.window import Phase

__all__ = [
    "METRICS_LOST_S",
    "OBSERVE_S",
    "QUEUE_S",
    "READ_METRICS_AT_MOST_S",
    "READ_METRICS_S",
    "ConcurrencyController",
    "Observation",
    "Phase",
]
