"""Entities in texts that stand already, asked for in a request of their own.

Each teacher of the run is asked. Several vote on a text's entities, all of them together: the marks that most agree on are taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from engine.labels.marking import MarkingError
from engine.parsing import Marks, parse_marks
from engine.prompting import Prompter, mark_schema, marks_schema
from engine.records import Annotation, Candidate, Completion, Marking, RejectionReason, TaskSpec
from engine.strategies.strategy import Answer, Ask
from engine.strategies.text_labeller import TextLabeller
from engine.text import Content, whole

ONE = "ner/labelling/label"
SEVERAL = "ner/labelling/batch"
_MAX_SHOWN = 100


class MarkedText(NamedTuple):
    """What is known of one text."""

    answer: Answer
    """The first teacher's; of several texts asked about together it is the same."""
    marks: Marks
    agreement: float | None = None
    """Share of the teachers' marks that are these; None for one teacher."""

    @property
    def is_answered(self) -> bool:
        return self.marks is not None


class Marker(TextLabeller[MarkedText]):
    """Asks for all entities in a text, with what each type means. The prompts of a run differ in their texts only."""

    def __init__(self, task: TaskSpec, prompter: Prompter, values: Mapping[str, Any]) -> None:
        super().__init__(prompter, values)
        self._types = task.label_names
        self._marking: Marking = task.marking

    async def _label_together(self, texts: Sequence[Content], ask: Ask) -> list[MarkedText]:
        """Spans are of a text without white space around it, as rows are."""
        stripped, count = [whole(text).strip() for text in texts], len(texts)
        if count == 1:
            prompt = self._opening(ONE, count).finish({**self._values, "text": stripped[0]}, mark_schema(self._types, self._marking))
        else:
            prompt = self._opening(SEVERAL, count).finish(
                {**self._values, "texts": stripped}, marks_schema(self._types, self._marking, count)
            )
        answers = await self._ask_teachers(prompt, "mark", ask)
        voices = [parse_marks(answer.text, stripped, self._types, self._marking) for answer in answers]
        return [_counted(answers[0], [voice[place] for voice in voices]) for place in range(count)]

    def judge(self, candidate: Candidate, labelled: MarkedText, asked: str | None = None) -> Candidate:
        """Texts whose marks cannot be read have a problem; one in which the type that it was to have is not marked is a disagreement."""
        marks = labelled.marks
        if marks is None:
            problem = "no marks for it" if isinstance(labelled.answer.outcome, Completion) else "the request for marks failed"
            return replace(candidate, problem=problem, reason=RejectionReason.UNLABELLED)
        if isinstance(marks, MarkingError):
            return replace(candidate, problem=str(marks), reason=RejectionReason.SPANS)
        candidate = replace(candidate, annotation=Annotation(marks, agreement=labelled.agreement))
        found = dict.fromkeys(span.type for span in marks)
        if asked is not None and asked not in found:
            there = ", ".join(map(repr, found))[:_MAX_SHOWN] or "nothing"
            return replace(candidate, problem=f"asked for {asked[:_MAX_SHOWN]!r}, marked {there}", reason=RejectionReason.DISAGREEMENT)
        return self._if_sure(candidate, labelled.agreement)


def _counted(answer: Answer, voices: Sequence[Marks]) -> MarkedText:
    """The marks with most votes; of several, those of the teacher named first. Unreadable ones count only where there are no others."""
    votes = Counter(voice for voice in voices if isinstance(voice, tuple))
    if not votes:
        return MarkedText(answer, next((voice for voice in voices if voice is not None), None))
    marks, count = votes.most_common(1)[0]
    return MarkedText(answer, marks, count / votes.total() if len(voices) > 1 else None)
