"""What a method calls that has texts and wants to know what they are: `Labeller` for labels, `Marker` for entities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from engine.records import Candidate
from engine.strategies.strategy import Ask

Said = TypeVar("Said")
"""What is known of one text."""


class TextLabeller(ABC, Generic[Said]):
    """Asks for the labels, or the entities, of texts that stand already."""

    @abstractmethod
    async def label(self, texts: Sequence[str], ask: Ask) -> list[Said]:
        """In the order of the texts, of which there is at least one."""

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
