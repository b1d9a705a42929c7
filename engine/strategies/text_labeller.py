"""What a method calls that has texts and wants to know what they are: `Labeller` for a label, `SetLabeller` for any number, `Marker` for
entities.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Sequence
from typing import Generic, TypeVar

from engine.records import Candidate
from engine.strategies.strategy import Ask

T = TypeVar("T")
Said = TypeVar("Said")
"""What is known of one text."""


class TextLabeller(ABC, Generic[Said]):
    """Asks for the labels, or the entities, of texts that stand already."""

    def __init__(self, texts_per_request: int | None) -> None:
        """None asks about all texts that it is given together."""
        self._texts_per_request = texts_per_request

    async def label(self, texts: Sequence[str], ask: Ask) -> list[Said]:
        """In the order of the texts, of which there is at least one."""
        size = self._texts_per_request or len(texts)
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        return [said for part in await together(self._label_together(part, ask) for part in parts) for said in part]

    @abstractmethod
    async def _label_together(self, texts: Sequence[str], ask: Ask) -> list[Said]:
        """In one request of each teacher."""

    @abstractmethod
    def judge(self, candidate: Candidate, labelled: Said, asked: str | None = None) -> Candidate:
        """The candidate with what is known of it, or with what is wrong with that. `asked`: the label, or the type, that it was to have."""

    async def complete(self, candidates: Sequence[Candidate], ask: Ask, asked: str | None = None) -> tuple[Candidate, ...]:
        """The same candidates, each text judged by what is said of it; what has a problem already is not sent."""
        places = [place for place, candidate in enumerate(candidates) if candidate.problem is None and candidate.text]
        if not places:
            return tuple(candidates)
        completed = list(candidates)
        for place, labelled in zip(places, await self.label([candidates[place].text for place in places], ask), strict=True):
            completed[place] = self.judge(candidates[place], labelled, asked)
        return tuple(completed)


async def together(work: Iterable[Awaitable[T]]) -> list[T]:
    """All at once, begun in their order. The first error ends the others, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_see_through(each)) for each in work]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _see_through(work: Awaitable[T]) -> T:
    return await work
