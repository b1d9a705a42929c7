"""Keeps the teacher's servers busy, and brings each request to exactly one end.

Invariants: every `ask` that returns, returns the request's one Outcome; what was newly learned was recorded before. Of equal requests under
way, one is sent. No server has more sequences than its limit; who waits for a back-off, or for the record, holds no place. An answer that
has come is recorded, also when nobody wants it any more: it was paid for, and who asks again finds it.
`asked = shared + replayed + completed + failed + those under way, cancelled or stopped by an error`.

A Failure is for a request that a server refuses or cannot do. A server that is gone is no failure of a request: its requests go to other
servers, or wait until it is back (`lanes`); when none comes back, an error stops the run, which can be resumed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Any, Protocol

from msgspec.structs import replace

from engine.errors import RefluxError
from engine.records import Completion, Failure, FailureReason, Outcome, Request, Timings
from engine.teacher.backlog import Backlog
from engine.teacher.concurrency import Observation
from engine.teacher.lane import Lane
from engine.teacher.lanes import Clock, Lanes, Observed, Sleep
from engine.teacher.teacher import TeacherError

BACKOFF_S = 1.0
"""Before the second attempt; doubled for each further one."""
MAX_BACKOFF_S = 60.0
MAX_DRAWS = 16
"""Draws of one prompt in one request: with 8 and more, what a request costs a server hardly counts, and fewer wait for the slowest draw."""
OVERLOADS = 20
"""Times a request may be sent away by a busy server before that is its end; they are no attempts, as nothing was tried."""
DROPS = 4
"""Attempts that a request has at least when connections drop under it: nearly always the server is to blame, or had let it lie idle."""
RETRY_PRIORITY = 1_000_000
"""Who was at a server before goes first: above all turns of conversations."""


class Ceiling(Protocol):
    """A limit on requests by time that the user has set."""

    async def acquire(self) -> object: ...


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a batcher has done so far, and is doing now. Requests, as asked; sequences where said."""

    in_flight: int
    """Sequences at servers."""
    peak_in_flight: int
    limit: int
    """Sequences that may be at servers now."""
    waiting: int
    """For a place, for the user's ceiling, for a back-off, or for the record."""
    asked: int
    shared: int
    """Asked while an equal request was under way; got its outcome."""
    replayed: int
    sent: int
    """Attempts."""
    posts: int
    """HTTP requests; draws of one prompt share one."""
    retried: int
    """Attempts after the first."""
    completed: int
    failed: int
    overloads: int
    """Attempts that a busy server refused."""
    prompt_tokens: int
    """Of completions; replays are not counted again."""
    completion_tokens: int


@dataclass(slots=True, eq=False)
class _Entry:
    """One request under way."""

    request: Request
    priority: int
    askers: list[asyncio.Future[Outcome]] = field(default_factory=list)  # pyright: ignore[reportUnknownVariableType] - list[…] would be made anew for each
    is_single: bool = False
    refused_by: Lane | None = None
    """Who refused it together with other draws, and may take it alone."""
    sending: _Sending | None = None
    """Its way to a server, until that has brought it somewhere."""
    pause: asyncio.Task[None] | None = None
    """Its back-off."""
    attempts: int = 0
    overloads: int = 0
    started_at: float = 0.0
    latency_s: float = 0.0
    is_ended: bool = False
    """Its outcome is known, though perhaps not recorded yet."""

    @property
    def times_sent(self) -> int:
        return self.attempts + self.overloads


@dataclass(slots=True, eq=False)
class _Sending:
    """Draws of one prompt on their way to a server, where they hold places."""

    entries: list[_Entry]
    lane: Lane
    task: asyncio.Task[None] | None = None
    is_begun: bool = False


def never(_request_id: str) -> None:
    """For a batcher with nothing to replay."""


def ignore(_lane: Lane, _observation: Observation) -> None:
    """For observations nobody keeps."""


class Batcher:
    """Asks the teachers of `lanes`, inside its block, in the event loop that entered it.

    `replay` gives the outcome recorded for a request id; `record` returns when an outcome is safe. `patience_s` is how long a server that
    nobody supervises may be away when there is no other. `observed` is told what each controller is told.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        *,
        attempts: int,
        random: Random,
        record: Callable[[Outcome], Awaitable[None]],
        replay: Callable[[str], Outcome | None] = never,
        ceilings: Sequence[Ceiling] = (),
        patience_s: float = 60.0,
        sleep: Sleep = asyncio.sleep,
        clock: Clock = time.monotonic,
        observed: Observed = ignore,
    ) -> None:
        self._lanes = Lanes(
            lanes, start=self._start, changed=self._dispatch, observed=observed, patience_s=patience_s, sleep=sleep, clock=clock
        )
        self._ceilings = ceilings
        self._attempts = attempts
        self._random = random
        self._record = record
        self._replay = replay
        self._sleep = sleep
        self._backlog: Backlog[_Entry] = Backlog()
        self._under_way: dict[str, _Entry] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._recording: set[asyncio.Task[None]] = set()
        """Of those; they are let finish."""
        self._is_dispatching = self._is_over = False
        self._error: BaseException | None = None
        self._in_flight = self._peak_in_flight = 0
        self._asked = self._joined = self._replayed = self._sent = self._posts = self._retried = 0
        self._completed = self._failed = self._overloads = self._prompt_tokens = self._completion_tokens = 0

    async def __aenter__(self) -> Batcher:
        self._lanes.begin()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_over = True
        while self._tasks:
            for task in self._tasks - self._recording:
                task.cancel()
            await asyncio.wait(self._tasks)
        self._stop(RuntimeError("asked outside the batcher's block"))

    @property
    def limit(self) -> int:
        """Sequences that may be at all servers together."""
        return self._lanes.limit

    async def ask(self, request: Request, priority: int = 0) -> Outcome:
        """The request's outcome, as soon as it is recorded. Higher priorities leave first."""
        if self._error is not None:
            raise self._error.with_traceback(None)  # which would grow with everyone who asks
        self._asked += 1
        entry = self._under_way.get(request.id)
        if entry is not None:
            self._joined += 1
        else:
            if (outcome := self._replay(request.id)) is not None:
                self._replayed += 1
                return outcome
            entry = self._under_way[request.id] = _Entry(request, priority)
            self._backlog.add(entry)
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        entry.askers.append(answer)
        self._dispatch()
        try:
            return await answer
        except asyncio.CancelledError:
            entry.askers.remove(answer)
            if not entry.askers:
                self._abandon(entry)
            raise

    def has(self, lane: Lane) -> bool:
        return lane in self._lanes

    def suspend(self, lane: Lane) -> None:
        """Send nothing there until `resume`: somebody brings it back."""
        self._lanes.suspend(lane)

    def resume(self, lane: Lane) -> None:
        """It answers again."""
        self._lanes.resume(lane)

    def statistics(self) -> Statistics:
        return Statistics(
            in_flight=self._in_flight,
            peak_in_flight=self._peak_in_flight,
            limit=self.limit,
            waiting=max(0, len(self._under_way) - self._in_flight),
            asked=self._asked,
            shared=self._joined,
            replayed=self._replayed,
            sent=self._sent,
            posts=self._posts,
            retried=self._retried,
            completed=self._completed,
            failed=self._failed,
            overloads=self._overloads,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
        )

    # The way to a server.

    def _dispatch(self) -> None:
        """Fill every free place, after all that happens at this moment: of draws asked for one after another, the first waits for the last,
        and places that become free together are filled together.
        """
        if not self._is_dispatching:
            self._is_dispatching = True
            asyncio.get_running_loop().call_soon(self._fill)

    def _fill(self) -> None:
        self._is_dispatching = False
        while len(self._backlog) and not self._is_over:
            lane = self._lanes.freest()
            if lane is None:
                self._lanes.was_short()
                return
            entries = self._backlog.take(min(lane.room, MAX_DRAWS) if lane.takes_draws else 1)
            lane.taken += len(entries)
            sending = _Sending(entries, lane)
            for entry in entries:
                entry.sending = sending
            sending.task = self._start(self._send(sending))

    async def _send(self, sending: _Sending) -> None:
        sending.is_begun = True
        lane, entries = sending.lane, sending.entries
        completions: list[Completion] = []
        error: TeacherError | RefluxError | None = None
        try:
            for ceiling in self._ceilings:
                await ceiling.acquire()
            sent = self._note_sent(lane, entries)
            try:
                completions = await lane.teacher.complete([entry.request for entry in entries])
            except (TeacherError, RefluxError) as caught:
                error = caught
                latency_s = time.perf_counter() - sent
                for entry in entries:
                    entry.latency_s = latency_s
            finally:
                lane.returned(len(entries))
                self._in_flight -= len(entries)
        finally:
            lane.taken -= len(entries)
            self._dispatch()  # once what follows here has come to where it waits
        if isinstance(error, RefluxError):
            self._lanes.lose(lane, error)
            self._return(self._take_back(sending))
        elif error is not None:
            await self._refused(sending, error)
        else:
            lane.answered(completions)
            if entries[0].refused_by is lane:
                lane.takes_draws = False
            await self._end(sending, list(zip(entries, completions, strict=True)))

    def _note_sent(self, lane: Lane, entries: list[_Entry]) -> float:
        """The moment, by the clock that latencies are measured with."""
        count = len(entries)
        self._posts += 1
        self._sent += count
        lane.sent(count)
        self._in_flight += count
        if self._in_flight > self._peak_in_flight:
            self._peak_in_flight = self._in_flight
        now = time.time()
        for entry in entries:
            entry.attempts += 1
            if entry.started_at:
                self._retried += 1
            else:
                entry.started_at = now
        return time.perf_counter()

    def _take_back(self, sending: _Sending) -> list[_Entry]:
        """Those of the draws that somebody still wants."""
        for entry in sending.entries:
            entry.sending = None
            if not entry.askers:
                self._forget(entry)
        return [entry for entry in sending.entries if entry.askers]

    async def _refused(self, sending: _Sending, error: TeacherError) -> None:
        """Each of the draws again, or to its end."""
        lane, num_draws = sending.lane, len(sending.entries)
        entries = self._take_back(sending)
        most_attempts = self._attempts
        match error.reason:
            case FailureReason.CONNECTION:
                # Perhaps the connection had lain idle for too long, perhaps the server is gone: it is asked, then again at once.
                self._lanes.doubt(lane)
                most_attempts = max(self._attempts, DROPS)
                for entry in entries:
                    entry.is_single = entry.is_single or entry.attempts > 1
                again = [entry for entry in entries if entry.attempts < most_attempts]
                self._return(again)
            case FailureReason.OVERLOADED:
                self._lanes.overloaded(lane, num_draws)
                self._overloads += num_draws
                for entry in entries:
                    entry.attempts -= 1
                    entry.overloads += 1
                again = [entry for entry in entries if entry.overloads < OVERLOADS]
                self._pause(again, error)
            case _ if error.retryable:
                if error.reason is FailureReason.TIMEOUT:
                    lane.timed_out(num_draws)
                for entry in entries:
                    entry.is_single = entry.is_single or num_draws > 1
                again = [entry for entry in entries if entry.attempts < self._attempts]
                self._pause(again, error)
            case _ if num_draws > 1:
                # What is refused may be that they are several; or one of them is to blame. Each alone will tell.
                for entry in entries:
                    entry.is_single, entry.refused_by = True, lane
                    entry.attempts -= 1
                again = entries
                self._return(again)
            case _:
                again = []
        self._dispatch()
        if ended := [entry for entry in entries if entry not in again]:
            await self._end(sending, [(entry, _failure(entry, error)) for entry in ended])

    def _return(self, entries: list[_Entry]) -> None:
        """To those who wait, in front."""
        for entry in entries:
            entry.priority = RETRY_PRIORITY
            self._backlog.add(entry)
        self._dispatch()

    def _pause(self, entries: list[_Entry], error: TeacherError) -> None:
        for entry in entries:
            entry.pause = self._start(self._back_off(entry, error.retry_after_s))

    async def _back_off(self, entry: _Entry, retry_after_s: float | None) -> None:
        """Never less than the server asks for; spread, so that those refused together do not come back together."""
        delay_s = min(BACKOFF_S * 2 ** (entry.times_sent - 1), MAX_BACKOFF_S)
        await self._sleep(max(delay_s, retry_after_s or 0.0) * self._random.uniform(1.0, 1.5))
        entry.pause = None
        self._return([entry])

    # The end of a request.

    async def _end(self, sending: _Sending, ends: list[tuple[_Entry, Outcome]]) -> None:
        """Each by itself, so that one who waits for the disk does not hold up another."""
        for entry, _ in ends:
            entry.is_ended = True
        assert sending.task is not None
        self._recording.add(sending.task)
        for entry, outcome in ends[1:]:
            self._recording.add(self._start(self._conclude(entry, outcome)))
        await self._conclude(*ends[0])

    async def _conclude(self, entry: _Entry, outcome: Outcome) -> None:
        if isinstance(outcome, Completion) and entry.times_sent > 1:
            timings = replace(outcome.timings, started_at=entry.started_at, attempts=entry.times_sent)
            outcome = replace(outcome, timings=timings)
        await self._record(outcome)
        self._forget(entry)
        if isinstance(outcome, Completion):
            self._completed += 1
            self._prompt_tokens += outcome.usage.prompt_tokens
            self._completion_tokens += outcome.usage.completion_tokens
        else:
            self._failed += 1
        for answer in entry.askers:
            if not answer.done():
                answer.set_result(outcome)

    def _abandon(self, entry: _Entry) -> None:
        """Nobody wants it any more: taken back wherever it is, unless its end is known or others share its way."""
        if entry.is_ended:
            return
        sending = entry.sending
        if sending is None:
            self._backlog.discard(entry)
            if entry.pause is not None:
                entry.pause.cancel()
            self._forget(entry)
        elif not any(other.askers for other in sending.entries):
            for other in sending.entries:
                self._forget(other)
            assert sending.task is not None
            sending.task.cancel()
            if not sending.is_begun:  # and will not begin: who gives the places back?
                sending.lane.taken -= len(sending.entries)
                self._dispatch()

    def _forget(self, entry: _Entry) -> None:
        if self._under_way.get(entry.request.id) is entry:
            del self._under_way[entry.request.id]

    def _stop(self, error: BaseException) -> None:
        """Everyone who waits, or will ask, gets the error; nothing more is sent. What was answered is recorded still."""
        self._is_over = True
        self._error = self._error or error
        for entry in self._under_way.values():
            for answer in entry.askers:
                if not answer.done():
                    answer.set_exception(self._error)
        self._under_way.clear()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._recording.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop(error)


def _failure(entry: _Entry, error: TeacherError) -> Failure:
    timings = Timings(entry.started_at, entry.latency_s, entry.times_sent)
    return Failure(entry.request.id, error.reason, error.detail, timings)
