"""Labels for texts, asked for in a request of their own: what wrote a text is the worst judge of what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from engine.parsing import parse_labels
from engine.prompting import Opening, Prompter, label_schema, labels_schema
from engine.records import Candidate, Completion, RejectionReason, TaskSpec
from engine.strategies.strategy import Answer, Ask

ONE = "labelling/label"
SEVERAL = "labelling/batch"
TEMPERATURE = 0.0
"""The likeliest label, not a draw."""


class Labels(NamedTuple):
    """One a text, None where there is none; and the answer that says so."""

    answer: Answer
    labels: list[str | None]


class Labeller:
    """Asks for one label a text, with what each label means. The prompts of a run differ in their texts only."""

    def __init__(self, task: TaskSpec, prompter: Prompter) -> None:
        self._task = task
        self._prompter = prompter
        self._openings: dict[tuple[str, int], Opening] = {}

    async def label(self, texts: Sequence[str], ask: Ask) -> Labels:
        names, count = self._task.label_names, len(texts)
        if count == 1:
            prompt = self._opening(ONE, count).finish({"text": texts[0]}, label_schema(names))
        else:
            prompt = self._opening(SEVERAL, count).finish({"texts": texts}, labels_schema(names, count))
        answer = await ask(replace(prompt, temperature=TEMPERATURE))
        return Labels(answer, parse_labels(answer.text, count))

    async def complete(self, candidates: Sequence[Candidate], ask: Ask) -> tuple[Candidate, ...]:
        """The same candidates with a label for each text. A text that gets none has a problem; what had one before is not sent."""
        places = [place for place, candidate in enumerate(candidates) if candidate.problem is None and candidate.text]
        if not places:
            return tuple(candidates)
        answer, labels = await self.label([candidates[place].text for place in places], ask)
        problem = "no label for it" if isinstance(answer.outcome, Completion) else "the request for labels failed"
        completed = list(candidates)
        for place, label in zip(places, labels, strict=True):
            if label is None:
                completed[place] = replace(candidates[place], problem=problem, reason=RejectionReason.UNLABELLED)
            else:
                completed[place] = replace(candidates[place], label=label)
        return tuple(completed)

    def _opening(self, template: str, count: int) -> Opening:
        if (template, count) not in self._openings:
            values = {"domain": self._task.domain, "labels": self._task.labels, "num_texts": count}
            self._openings[template, count] = self._prompter.open(template, values)
        return self._openings[template, count]
