"""The teachers of a run, each with a batcher of its own: a request goes to the servers of the model it names.

Batchers share nothing but the user's ceilings: one teacher's servers being slow, or away, holds up no request to another.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import fields
from types import TracebackType
from typing import Any

from engine.records import Outcome, Request
from engine.teacher.batcher import Batcher, Statistics
from engine.teacher.lane import Lane


class Switchboard:
    """Inside its block all of them can be asked."""

    def __init__(self, batchers: Mapping[str, Batcher]) -> None:
        """By model, as requests name it."""
        self._batchers = dict(batchers)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Switchboard:
        async with AsyncExitStack() as stack:
            for batcher in self._batchers.values():
                await stack.enter_async_context(batcher)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @property
    def limit(self) -> int:
        """Sequences that may be at all servers together."""
        return sum(batcher.limit for batcher in self._batchers.values())

    def ask(self, request: Request, priority: int = 0) -> Coroutine[Any, Any, Outcome]:
        """As of `Batcher.ask`."""
        return self._batchers[request.model].ask(request, priority)

    def suspend(self, lane: Lane) -> None:
        self._of(lane).suspend(lane)

    def resume(self, lane: Lane) -> None:
        self._of(lane).resume(lane)

    def statistics(self) -> Statistics:
        """Of all together; their peaks may have been at different times."""
        each = [batcher.statistics() for batcher in self._batchers.values()]
        if len(each) == 1:
            return each[0]
        return Statistics(**{field.name: sum(getattr(statistics, field.name) for statistics in each) for field in fields(Statistics)})

    def _of(self, lane: Lane) -> Batcher:
        return next(batcher for batcher in self._batchers.values() if batcher.has(lane))
