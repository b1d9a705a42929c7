"""Those who work off a round's assignments: as many at once as keep the servers busy, refilled one by one.

Invariant: assignments are taken from the plan only when somebody is free for them, so memory follows the number that is open, not the
number that is planned; and a store that takes no more calls stops those who hand them in, then the plan.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from engine.records import Assignment, Call, Completion, RowCounts

SPARE = 64
"""Open assignments beyond twice what is at the servers: they wait for the disk, or for their turn beside others with the same prefix."""


@dataclass(slots=True)
class Tally:
    """What came of the assignments so far."""

    assignments: int = 0
    calls: int = 0
    rows: RowCounts = field(default_factory=RowCounts)
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, calls: list[Call]) -> RowCounts:
        """Counts one assignment; returns its rows."""
        rows = calls[0].rows if len(calls) == 1 else sum((call.rows for call in calls), RowCounts())
        for call in calls:
            if isinstance(call.outcome, Completion):
                self.prompt_tokens += call.outcome.usage.prompt_tokens
                self.completion_tokens += call.outcome.usage.completion_tokens
        self.assignments += 1
        self.calls += len(calls)
        self.rows += rows
        return rows

    def join(self, other: Tally) -> None:
        """Counts what another has counted."""
        self.assignments += other.assignments
        self.calls += other.calls
        self.rows += other.rows
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens


class Crew:
    """Works off one plan after another."""

    def __init__(self, limit: Callable[[], int]) -> None:
        """`limit`: sequences that the servers take at once, by now."""
        self._limit = limit
        self._hire: Callable[[], None] | None = None
        self._most = 0
        self.num_working = 0

    def grow(self) -> None:
        """Call when the limit may have changed: only then are more taken on, or fewer kept."""
        if self._hire is not None:
            self._hire()

    async def work_off(
        self, plan: Iterable[Assignment], carry_out: Callable[[Assignment], Awaitable[list[Call]]], done: Callable[[RowCounts], None]
    ) -> Tally:
        """Returns when all are done; `done` is told of each. The first error ends the others."""
        tally = Tally()
        left = iter(plan)
        is_exhausted = False
        all_gone = asyncio.Event()

        async def work() -> None:
            nonlocal is_exhausted
            try:
                for assignment in left:
                    calls = await carry_out(assignment)
                    done(tally.add(calls))
                    if self.num_working > self._most:
                        return
                is_exhausted = True
            except BaseException:
                self._hire = None  # the group is about to end: it takes nobody new
                raise
            finally:
                self.num_working -= 1
                if self.num_working == 0:
                    all_gone.set()

        try:
            async with asyncio.TaskGroup() as group:

                def hire() -> None:
                    self._most = 2 * self._limit() + SPARE
                    while self.num_working < self._most and not is_exhausted:
                        self.num_working += 1
                        group.create_task(work())

                self._hire = hire
                try:
                    hire()
                    await all_gone.wait()
                finally:
                    self._hire = None
        finally:
            self.num_working = 0  # those who were ended before they began could not say so
        return tally
