"""Labels of texts that may have any number of them, asked for in a request of their own.

Each teacher of the run is asked. Several vote on every label by itself: a text has those that more than half of them give it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from engine.labels.label_sets import LabelSetError
from engine.parsing import LabelSet, parse_label_sets
from engine.prompting import Prompter, label_set_schema, label_sets_schema
from engine.records import Annotation, Candidate, Completion, RejectionReason, TaskSpec
from engine.strategies.labelling import ONE, SEVERAL
from engine.strategies.strategy import Answer, Ask
from engine.strategies.text_labeller import TextLabeller
from engine.text import Content

_MAX_SHOWN = 100


class LabelledSet(NamedTuple):
    """What is known of one text."""

    answer: Answer
    """The first teacher's; of several texts asked about together it is the same."""
    labels: LabelSet
    agreement: float | None = None
    """Of the labels that any teacher gave, the share of the teachers' yes and no that the verdict follows; None for one teacher."""

    @property
    def is_answered(self) -> bool:
        return self.labels is not None


class SetLabeller(TextLabeller[LabelledSet]):
    """Asks for all labels of a text, with what each means. The prompts of a run differ in their texts only."""

    def __init__(self, task: TaskSpec, prompter: Prompter, values: Mapping[str, Any]) -> None:
        super().__init__(prompter, values)
        self._names = task.label_names
        self._known = dict.fromkeys(task.label_names)
        self._allow_none = task.allow_none

    async def _label_together(self, texts: Sequence[Content], ask: Ask) -> list[LabelledSet]:
        count = len(texts)
        if count == 1:
            schema = label_set_schema(self._names, allow_none=self._allow_none)
            prompt = self._opening(ONE, count).finish({"text": texts[0]}, schema)
        else:
            schema = label_sets_schema(self._names, count, allow_none=self._allow_none)
            prompt = self._opening(SEVERAL, count).finish({"texts": texts}, schema)
        answers = await self._ask_teachers(prompt, "label", ask)
        voices = [parse_label_sets(answer.text, count, self._known, allow_none=self._allow_none) for answer in answers]
        return [self._counted(answers[0], [voice[place] for voice in voices]) for place in range(count)]

    def judge(self, candidate: Candidate, labelled: LabelledSet, asked: str | None = None) -> Candidate:
        """Texts whose labels cannot be read have a problem; one that has not the label that it was to have is a disagreement."""
        labels = labelled.labels
        if labels is None:
            problem = "no labels for it" if isinstance(labelled.answer.outcome, Completion) else "the request for labels failed"
            return replace(candidate, problem=problem, reason=RejectionReason.UNLABELLED)
        if isinstance(labels, LabelSetError):
            return replace(candidate, problem=str(labels), reason=labels.reason)
        candidate = replace(candidate, annotation=Annotation(labels=labels, agreement=labelled.agreement))
        if asked is not None and asked not in labels:
            there = ", ".join(map(repr, labels))[:_MAX_SHOWN] or "nothing"
            return replace(candidate, problem=f"asked for {asked[:_MAX_SHOWN]!r}, labelled {there}", reason=RejectionReason.DISAGREEMENT)
        return self._if_sure(candidate, labelled.agreement)

    def _counted(self, answer: Answer, voices: Sequence[LabelSet]) -> LabelledSet:
        """Lists that cannot be read count only where there are no others."""
        votes = [voice for voice in voices if isinstance(voice, tuple)]
        if not votes:
            return LabelledSet(answer, next((voice for voice in voices if voice is not None), None))
        counts = {label: sum(label in vote for vote in votes) for label in self._names}
        labels = tuple(label for label, count in counts.items() if 2 * count > len(votes))
        if not labels and not self._allow_none:
            labels = votes[0]
        given = [count if label in labels else len(votes) - count for label, count in counts.items() if count]
        agreement = sum(given) / (len(given) * len(votes)) if given else 1.0
        return LabelledSet(answer, labels, agreement if len(voices) > 1 else None)
