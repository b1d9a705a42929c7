"""Brings the teacher's server back when it dies or stalls in the middle of a run.

Knows when a server must be given up, and how often it is worth another try; how one is started and ended is `server`'s.

Invariants: `on_down` and `on_up` alternate. Between them nobody should ask: there is no server, or one that is about to be ended. After
MAX_RESTARTS restarts in a row that brought no answer, or when a server does not come up again, `watch` raises ServerError, and the run ends
in a state that it can be resumed from.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from engine.errors import ServerError
from engine.server.server import VllmServer, ignore
from engine.teacher.endpoint import Endpoint
from engine.teacher.http import HttpClient, HttpError, Limits
from engine.teacher.metrics import parse_gauges

MAX_RESTARTS = 3
PROBE_S = 5.0
"""Between two looks at a server that runs."""
PROBE_TIMEOUT_S = 10.0
SILENCE_LIMIT_S = 60.0
MIN_MISSES = 3
"""So many looks in a row must find no answer, over so long: a server under load answers late, and we may have been stopped ourselves."""


@dataclass(frozen=True, slots=True)
class Restart:
    """One time the server was brought back."""

    at: float
    """Seconds since the epoch when it was found dead or stalled."""
    reason: str
    """Goes on from "the teacher's server"."""
    start_s: float
    """Wall clock from the new process to its first answer."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What one look at a server showed."""

    answers: bool
    tokens: int | None = None
    """Computed since it started, of prompts and replies; None if it does not say."""


class StallJudge:
    """Tells a stalled server from a busy or idle one. Pure: no clock, no client; one per start of a server."""

    def __init__(self, stall_timeout_s: float, now: float) -> None:
        self._stall_timeout_s = stall_timeout_s
        self._answered_at = now
        self._misses = 0
        self._worked_at = now
        self._work: tuple[int, int] | None = None

    def judge(self, now: float, vitals: Vitals, *, in_flight: int, answered: int) -> str | None:
        """Why the server must be given up, or None. `in_flight` requests wait for it, and `answered` were answered in the whole run."""
        if not vitals.answers:
            self._misses += 1
            silent_s = now - self._answered_at
            if self._misses >= MIN_MISSES and silent_s >= SILENCE_LIMIT_S:
                return f"stalled (no answer to /health for {silent_s:.0f} s)"
            return None
        self._misses, self._answered_at = 0, now
        work = None if vitals.tokens is None else (vitals.tokens, answered)
        if in_flight == 0 or work is None or work != self._work:
            self._work, self._worked_at = work, now
        elif (idle_s := now - self._worked_at) >= self._stall_timeout_s:
            return f"stalled (no token for {idle_s:.0f} s, with {in_flight} in flight)"
        return None


async def take_vitals(endpoint: Endpoint) -> Vitals:
    """Never raises for what a server does."""
    # A client of its own each time: vLLM closes connections that lie idle between two looks.
    limits = Limits(PROBE_TIMEOUT_S, PROBE_TIMEOUT_S, connect_s=PROBE_TIMEOUT_S)
    try:
        async with HttpClient(endpoint.root_url, limits, {}) as client:
            if (await client.get("/health")).status != 200:
                return Vitals(answers=False)
            metrics = await client.get("/metrics")
    except HttpError:
        return Vitals(answers=False)
    gauges = parse_gauges(metrics.body.decode(errors="replace")) if metrics.status == 200 else None
    return Vitals(answers=True, tokens=None if gauges is None else gauges.prompt_tokens + gauges.generation_tokens)


class Supervisor:
    """Watches `server`, which has been entered.

    `answered` counts the requests of the run that were answered so far, `in_flight` those that wait for the server. `on_down` gets the
    reason, which goes on from "the teacher's server"; `on_up` gets where the server is now, perhaps another port.
    """

    def __init__(
        self,
        server: VllmServer,
        *,
        stall_timeout_s: float,
        answered: Callable[[], int],
        in_flight: Callable[[], int],
        on_down: Callable[[str], None],
        on_up: Callable[[Endpoint], None],
        on_notice: Callable[[str], None] = ignore,
        look: Callable[[Endpoint], Awaitable[Vitals]] = take_vitals,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._server = server
        self._stall_timeout_s = stall_timeout_s
        self._answered = answered
        self._in_flight = in_flight
        self._on_down = on_down
        self._on_up = on_up
        self._on_notice = on_notice
        self._look = look
        self._clock = clock
        self._sleep = sleep
        self._history: list[Restart] = []
        self._answered_before = answered()
        """When the server was started last."""
        self._fruitless = 0
        """Restarts since the last answer."""

    @property
    def history(self) -> tuple[Restart, ...]:
        """In order. When `on_up` is called, the last one is the restart it speaks of."""
        return tuple(self._history)

    async def watch(self) -> None:
        """As long as the server lives, or can be brought back; returns when others end it. When cancelled, no start is left half done."""
        while (reason := await self._until_down()) is not None:
            await self._bring_back(reason)

    async def _until_down(self) -> str | None:
        """Why it has to be started again; None if it was ended on purpose."""
        ended, stalled = asyncio.create_task(self._until_ended()), asyncio.create_task(self._until_stalled())
        try:
            await asyncio.wait([ended, stalled], return_when=asyncio.FIRST_COMPLETED)
            return ended.result() if ended.done() else stalled.result()
        finally:
            ended.cancel()
            stalled.cancel()
            await asyncio.wait([ended, stalled])

    async def _until_ended(self) -> str | None:
        how = await self._server.ended()
        return None if how is None else f"ended ({how})"

    async def _until_stalled(self) -> str:
        judge = StallJudge(self._stall_timeout_s, self._clock())
        while True:
            await self._sleep(PROBE_S)
            vitals = await self._look(self._server.endpoint)
            reason = judge.judge(self._clock(), vitals, in_flight=self._in_flight(), answered=self._answered())
            if reason is not None:
                return reason

    async def _bring_back(self, reason: str) -> None:
        at = time.time()
        self._on_down(reason)
        if self._answered() > self._answered_before:
            self._fruitless = 0
        if self._fruitless == MAX_RESTARTS:
            tried = f"after {MAX_RESTARTS} restarts that brought no answer"
            raise ServerError(f"the teacher's server {reason}, {tried}; it is not started again{self._server.last_words()}")
        self._fruitless += 1
        self._on_notice(f"the teacher's server {reason}; starting it again")
        await self._server.restart()
        self._answered_before = self._answered()
        self._history.append(Restart(at, reason, self._server.start_s))
        self._on_notice(f"the teacher's server is back after {self._server.start_s:.0f} s")
        self._on_up(self._server.endpoint)
