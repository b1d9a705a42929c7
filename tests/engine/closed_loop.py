"""A client with endless work and a server, in virtual time: what a controller makes of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from engine.teacher.concurrency import OBSERVE_S, READ_METRICS_S, ConcurrencyController, Observation
from engine.teacher.metrics import ServerGauges
from engine.testing.token_rate import TokenRateModel

PROMPT_TOKENS = 100


@dataclass
class Loop:
    """Either a controller or a fixed limit decides how many are in flight."""

    model: TokenRateModel
    controller: ConcurrencyController | None = None
    fixed: int = 0
    tokens: Callable[[random.Random], int] = lambda rng: rng.randint(20, 400)
    shows_metrics: Callable[[float], bool] = lambda now: True
    has_backlog: Callable[[float], bool] = lambda now: True
    events: list[tuple[float, Callable[[Loop], None]]] = field(default_factory=list[tuple[float, Callable[["Loop"], None]]])
    """What happens when; sorted."""
    observations: list[Observation] = field(default_factory=list[Observation])
    limits: list[int] = field(default_factory=list[int])
    generated: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    """The server's counter at each observation."""
    sent: int = 0
    refused: int = 0
    now: float = 0.0

    def __post_init__(self) -> None:
        self._rng = random.Random(7)
        self._keys = count()
        self._under_way: dict[int, int] = {}
        self._strangers: dict[int, int] = {}
        self._next_reading = 0.0
        self._peak = self._completed = self._completed_tokens = self._overloads = 0

    @property
    def limit(self) -> int:
        return self.controller.limit if self.controller else self.fixed

    def run(self, until_s: float) -> Loop:
        next_observation = self.now + OBSERVE_S
        self._fill()
        while self.now < until_s:
            event = self.model.next_event(self.now)
            self.now = min(until_s, next_observation, event if event is not None else until_s)
            for key in self.model.advance(self.now):
                assert isinstance(key, int)
                if key in self._strangers:
                    self.add_strangers(1, replaced=key)
                    continue
                tokens = self._under_way.pop(key)
                self._completed += 1
                self._completed_tokens += tokens
            if self.now >= next_observation:
                next_observation += OBSERVE_S
                self._observe()
                while self.events and self.events[0][0] <= self.now:
                    self.events.pop(0)[1](self)
            self._fill()
        return self

    def throughput(self, from_s: float, to_s: float) -> float:
        inside = [(at_s, tokens) for at_s, tokens in self.generated if from_s <= at_s <= to_s]
        return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])

    def add_strangers(self, number: int, replaced: int | None = None) -> None:
        """Another client, with so many always in flight."""
        if replaced is not None:
            del self._strangers[replaced]
        for _ in range(number):
            key = next(self._keys)
            tokens = self.tokens(self._rng)
            if self.model.submit(key, PROMPT_TOKENS, tokens, self.now):
                self._strangers[key] = tokens

    def _fill(self) -> None:
        if not self.has_backlog(self.now):
            return
        refused = 0
        # A refusal comes back after all that the limit allowed has left.
        while len(self._under_way) + refused < self.limit:
            key, tokens = next(self._keys), self.tokens(self._rng)
            self.sent += 1
            if self.model.submit(key, PROMPT_TOKENS, tokens, self.now):
                self._under_way[key] = tokens
            else:
                refused += 1
        self._peak = max(self._peak, len(self._under_way) + refused)
        if refused:
            self.refused += refused
            self._overloads += refused
            if self.controller:
                self._observe()

    def _observe(self) -> None:
        gauges: ServerGauges | None = None
        if self.shows_metrics(self.now) and self.now >= self._next_reading:
            self._next_reading = self.now + READ_METRICS_S
            gauges = self.model.gauges()
        observation = Observation(
            self.now,
            self._peak,
            len(self._under_way),
            self.has_backlog(self.now),
            self._completed,
            self._completed_tokens,
            self._overloads,
            0,
            gauges,
        )
        self.observations.append(observation)
        if self.controller:
            self.controller.observe(observation)
        self.generated.append((self.now, self.model.gauges().generation_tokens))
        self.limits.append(self.limit)
        self._peak, self._completed, self._completed_tokens, self._overloads = len(self._under_way), 0, 0, 0
