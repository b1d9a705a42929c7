"""What a method calls that has texts and wants to know what they are: `Labeller` for a label, `SetLabeller` for any number, `Marker` for
entities.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from engine.prompting import Opening, Prompt, Prompter
from engine.records import Annotation, Candidate, RejectionReason, content_of
from engine.strategies.strategy import Answer, Ask
from engine.text import Content, parts, whole

TEMPERATURE = 0.0
"""The likeliest answer, not a draw."""
T = TypeVar("T")
Said = TypeVar("Said")
"""What is known of one text."""


class TextLabeller(ABC, Generic[Said]):
    """Asks for the labels, or the entities, of texts (or pairs of them) that stand already."""

    def __init__(self, prompter: Prompter, values: Mapping[str, Any]) -> None:
        """`values`: what every template of the task knows."""
        self._prompter = prompter
        self._values = values
        self._config = prompter.labelling
        self._teachers = prompter.panel.models
        self._openings: dict[tuple[str, int], Opening] = {}

    async def label(self, texts: Sequence[Content], ask: Ask) -> list[Said]:
        """In the order of the texts, of which there is at least one."""
        size = self._config.texts_per_request or len(texts)  # None asks about all of them together
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        return [said for part in await together(self._label_together(part, ask) for part in parts) for said in part]

    @abstractmethod
    async def _label_together(self, texts: Sequence[Content], ask: Ask) -> list[Said]:
        """In one request of each teacher."""

    @abstractmethod
    def judge(self, candidate: Candidate, labelled: Said, asked: str | None = None) -> Candidate:
        """The candidate with what is known of it, or with what is wrong with that. `asked`: the label, or the type, that it was to have."""

    async def complete(self, candidates: Sequence[Candidate], ask: Ask, asked: str | None = None) -> tuple[Candidate, ...]:
        """The same candidates, each text judged by what is said of it; what has a problem already is not sent."""
        places = [place for place, candidate in enumerate(candidates) if candidate.problem is None and all(parts(content_of(candidate)))]
        if not places:
            return tuple(candidates)
        completed = list(candidates)
        for place, labelled in zip(places, await self.label([content_of(candidates[place]) for place in places], ask), strict=True):
            completed[place] = self.judge(candidates[place], labelled, asked)
        return tuple(completed)

    async def _ask_teachers(self, prompt: Prompt, series: str, ask: Ask) -> list[Answer]:
        """What each teacher of the run answers; `series` tells the questions of several from one another."""
        prompt = replace(prompt, temperature=TEMPERATURE)
        if len(self._teachers) == 1:
            return [await ask(prompt)]
        return await together(ask(replace(prompt, model=model, series=series)) for model in self._teachers)

    def _if_sure(self, candidate: Candidate, agreement: float | None) -> Candidate:
        """One on which those who labelled it do not agree as far as is wanted has a problem."""
        least = self._config.min_agreement
        if agreement is None or agreement >= least:
            return candidate
        problem = f"agreement {agreement:.2f}, and at least {least:g} is wanted"
        return replace(candidate, problem=problem, reason=RejectionReason.UNCERTAIN)

    def _opening(self, template: str, count: int) -> Opening:
        """Of prompts about so many texts, rendered once."""
        if (template, count) not in self._openings:
            self._openings[template, count] = self._prompter.open(template, {**self._values_of(template), "num_texts": count})
        return self._openings[template, count]

    def _values_of(self, template: str) -> Mapping[str, Any]:
        """What this template knows, of the texts all are about."""
        del template
        return self._values


def as_shown(content: Content) -> object:
    """What a prompt shows as JSON: a text, or an object with both of a pair."""
    return content if isinstance(content, str) else {"text": content[0], "text_pair": content[1]}


def real_candidate(content: Content, weakness: str = "") -> Candidate:
    """A row that nobody wrote for this run, without white space around its texts."""
    text, *second = map(str.strip, parts(content))
    annotation = Annotation(text_pair=second[0]) if second else None
    return Candidate(whole(content), text=text, weakness=weakness, annotation=annotation)


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
