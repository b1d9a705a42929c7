"""Keeps many requests in flight, and brings each to exactly one end.

Invariants: every `ask` that returns, returns the request's one Outcome; what was newly learned was recorded before. Of equal requests under
way, one is sent. At most `concurrency` are at the teacher at once; who waits for a back-off holds no place there.
`asked = shared + replayed + completed + failed + those under way, cancelled or stopped by an error`.

A Failure is for a request that the server refuses or cannot do. A server that is gone is an exception: it stops the run, which can be
resumed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from random import Random

from asyncio_throttle import Throttler  # pyright: ignore[reportPrivateImportUsage] - where its documentation has it

from engine.errors import ServerError
from engine.records import Completion, Failure, FailureReason, Outcome, Request, Timings
from engine.teacher import Teacher, TeacherError

BACKOFF_S = 1.0
"""Before the second attempt; doubled for each further one."""
MAX_BACKOFF_S = 60.0
THROTTLE_POLL_S = 0.05
"""How often a request that waits for the user's ceiling looks again; at most `concurrency` of them do."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a batcher has done so far, and is doing now."""

    in_flight: int
    """At the teacher."""
    peak_in_flight: int
    waiting: int
    """For a place, for the user's ceiling, for a back-off, or for the record."""
    asked: int
    shared: int
    """Asked while an equal request was under way; got its outcome."""
    replayed: int
    sent: int
    """Attempts."""
    retried: int
    """Attempts after the first."""
    completed: int
    failed: int
    prompt_tokens: int
    """Of completions; replays are not counted again."""
    completion_tokens: int


@dataclass(slots=True)
class _Tries:
    """What was tried for one request so far."""

    attempts: int = 0
    started_at: float = 0.0
    latency_s: float = 0.0
    drops: int = 0
    """Attempts that lost their connection since the server last answered this request."""
    signs_before: int = 0
    """Signs of life of the server, in all requests, when those drops began."""


@dataclass(slots=True)
class _Shared:
    """One request under way, and how many wait for its answer."""

    answer: asyncio.Task[Outcome]
    askers: int = 0


def never(_request_id: str) -> None:
    """For a batcher with nothing to replay."""


def assume_alive() -> None:
    """For servers whose process is not ours to look at."""


class Batcher:
    """Asks `teacher`; make one per teacher, inside the event loop that uses it.

    `replay` gives the outcome recorded for a request id; `record` returns when an outcome is safe, and may be cancelled; `check` raises if
    the server is known to be dead.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        concurrency: int,
        attempts: int,
        random: Random,
        record: Callable[[Outcome], Awaitable[None]],
        replay: Callable[[str], Outcome | None] = never,
        check: Callable[[], None] = assume_alive,
        requests_per_minute: int | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._teacher = teacher
        self._permits = asyncio.Semaphore(concurrency)
        self._throttler = Throttler(requests_per_minute, 60.0, THROTTLE_POLL_S) if requests_per_minute else None
        self._attempts = attempts
        self._random = random
        self._record = record
        self._replay = replay
        self._check = check
        self._sleep = sleep
        self._under_way: dict[str, _Shared] = {}
        self._pending = 0
        self._in_flight = 0
        self._peak_in_flight = 0
        self._asked = 0
        self._joined = 0
        self._replayed = 0
        self._sent = 0
        self._retried = 0
        self._completed = 0
        self._failed = 0
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._signs_of_life = 0
        """Attempts that a server answered, whatever it said."""

    async def ask(self, request: Request) -> Outcome:
        """Completion or Failure; ServerError if the server is gone. When all who asked for it are cancelled, the request is too."""
        self._asked += 1
        request_id = request.id
        if (shared := self._under_way.get(request_id)) is not None:
            self._joined += 1
        else:
            if (outcome := self._replay(request_id)) is not None:
                self._replayed += 1
                return outcome
            shared = _Shared(asyncio.create_task(self._answer(request)))
            self._under_way[request_id] = shared
        shared.askers += 1
        try:
            # Shielded, because one who gives up does not speak for the others.
            return await asyncio.shield(shared.answer)
        finally:
            shared.askers -= 1
            if shared.askers == 0:
                # Taken out in the same step, so that nobody joins what is being cancelled.
                self._under_way.pop(request_id, None)
                if not shared.answer.done():
                    shared.answer.cancel()
                    await asyncio.wait([shared.answer])

    def statistics(self) -> Statistics:
        return Statistics(
            in_flight=self._in_flight,
            peak_in_flight=self._peak_in_flight,
            waiting=self._pending - self._in_flight,
            asked=self._asked,
            shared=self._joined,
            replayed=self._replayed,
            sent=self._sent,
            retried=self._retried,
            completed=self._completed,
            failed=self._failed,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
        )

    async def _answer(self, request: Request) -> Outcome:
        self._pending += 1
        try:
            outcome = await self._settle(request)
            await self._record(outcome)
        finally:
            self._pending -= 1
        if isinstance(outcome, Completion):
            self._completed += 1
            self._prompt_tokens += outcome.usage.prompt_tokens
            self._completion_tokens += outcome.usage.completion_tokens
        else:
            self._failed += 1
        return outcome

    async def _settle(self, request: Request) -> Outcome:
        """Tries until there is an answer, or no further attempt is allowed."""
        tries = _Tries()
        while True:
            async with self._permits:
                result = await self._try(request, tries)
                if _has_dropped(result) and tries.drops == 1 and tries.attempts < self._attempts:
                    # Perhaps the connection had lain idle for too long: again at once, in the place it has.
                    result = await self._try(request, tries)
            if isinstance(result, Completion):
                return result
            if not result.retryable or tries.attempts >= self._attempts:
                return self._give_up(request, tries, result)
            await self._sleep(self._backoff_s(tries.attempts, result.retry_after_s))

    async def _try(self, request: Request, tries: _Tries) -> Completion | TeacherError:
        if self._throttler is not None:
            await self._throttler.acquire()
        tries.attempts += 1
        tries.started_at = tries.started_at or time.time()
        self._sent += 1
        self._retried += tries.attempts > 1
        self._in_flight += 1
        self._peak_in_flight = max(self._peak_in_flight, self._in_flight)
        sent = time.perf_counter()
        try:
            completion = await self._teacher.complete(request)
        except TeacherError as error:
            tries.latency_s = time.perf_counter() - sent
            if _has_dropped(error):
                tries.signs_before = tries.signs_before if tries.drops else self._signs_of_life
                tries.drops += 1
            elif error.reason is not FailureReason.TIMEOUT:
                self._signs_of_life += 1
                tries.drops = 0
            if error.retryable:
                self._check()
            return error
        finally:
            self._in_flight -= 1
        self._signs_of_life += 1
        return replace(completion, timings=replace(completion.timings, started_at=tries.started_at, attempts=tries.attempts))

    def _give_up(self, request: Request, tries: _Tries, error: TeacherError) -> Failure:
        """A Failure if it is this request that cannot be answered; ServerError if since its connections drop nobody was answered."""
        if _has_dropped(error) and tries.signs_before == self._signs_of_life:
            raise ServerError(
                f"the teacher's server is gone: {error.detail} (after {tries.attempts} attempts, and nobody else was answered)"
            )
        return Failure(request.id, error.reason, error.detail, Timings(tries.started_at, tries.latency_s, tries.attempts))

    def _backoff_s(self, attempts: int, retry_after_s: float | None) -> float:
        """Never less than the server asks for; spread, so that those refused together do not come back together."""
        delay_s = min(BACKOFF_S * 2 ** (attempts - 1), MAX_BACKOFF_S)
        return max(delay_s, retry_after_s or 0.0) * self._random.uniform(1.0, 1.5)


def _has_dropped(result: Completion | TeacherError) -> bool:
    return isinstance(result, TeacherError) and result.reason is FailureReason.CONNECTION
