"""Labels for texts, asked for in a request of their own: what wrote a text is the worst judge of what it is.

Each teacher of the run is asked. Without log-probabilities each gives every text one label, and the labels are votes. With them
(`labelling.soft`) each text is asked about by itself, the answer is one of the labels' codes, and each teacher gives a distribution; those
are calibrated and averaged. No prompt here shows a labelled row: so the seed rows, on which a teacher is calibrated, are as new to it as
any other text, and none has to be left out for itself.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from engine.labels.label_codes import label_codes, matching, starts
from engine.labels.soft_labels import SoftLabel, Tables, fit_temperature, mean, read_soft_label, read_tables, temper, unexplored
from engine.parsing import parse_labels
from engine.prompting import CodeForm, Prompt, Prompter, label_schema, labels_schema
from engine.records import Annotation, Candidate, Completion, Example, RejectionReason, TaskSpec
from engine.strategies.planning import draw_examples
from engine.strategies.strategy import Answer, Ask
from engine.strategies.text_labeller import TEMPERATURE, TextLabeller, as_shown, together
from engine.text import Content

ONE = "labelling/label"
SEVERAL = "labelling/batch"
CODE = "labelling/code"
MAX_FURTHER = 8
"""Calls about one text beyond the first. Each is two or three tokens behind a prompt that the server has in its cache."""
MAX_MISSING = 0.5
"""Of a teacher's probability, on what is no label: with more, the labels' part of it says nothing."""


class Labelled(NamedTuple):
    """What is known of one text."""

    answer: Answer
    """The first teacher's; of several texts asked about together it is the same."""
    label: str | None
    """None where nobody gave one."""
    annotation: Annotation | None = None
    doubt: str | None = None
    """Why the label is not to be relied on, whatever its agreement."""

    @property
    def is_answered(self) -> bool:
        return self.label is not None


class Labeller(TextLabeller[Labelled]):
    """Asks for one label a text, with what each label means. The prompts of a run differ in their texts only."""

    def __init__(self, task: TaskSpec, prompter: Prompter, values: Mapping[str, Any]) -> None:
        super().__init__(prompter, values)
        self._task = task
        self._places = {name: place for place, name in enumerate(task.label_names)}
        self._codes: tuple[str, ...] = label_codes(len(task.labels), self._config.top_logprobs) if self._config.soft else ()
        self._coded_labels = [
            {"code": code, "name": label.name, "description": label.description}
            for code, label in zip(self._codes, task.labels, strict=False)  # without codes it is empty, and not asked for
        ]
        self._temperatures: dict[str, float] = {}
        self._calibrating = asyncio.Lock()

    async def label(self, texts: Sequence[Content], ask: Ask) -> list[Labelled]:
        if self._config.soft:
            return await together(self._weigh(place, text, ask) for place, text in enumerate(texts))
        return await super().label(texts, ask)

    def judge(self, candidate: Candidate, labelled: Labelled, asked: str | None = None) -> Candidate:
        """Texts that get no label, or none that is sure enough, have a problem; one that was to have another label is a disagreement."""
        label, annotation = labelled.label, labelled.annotation
        if label is None:
            problem = "no label for it" if isinstance(labelled.answer.outcome, Completion) else "the request for labels failed"
            return replace(candidate, problem=problem, reason=RejectionReason.UNLABELLED)
        least = self._config.min_agreement
        share = self._share(annotation, asked)
        if asked is not None and label != asked and annotation is not None and share is not None and share >= least > 0:
            # A text between two classes: sure enough to be a row of the one it was asked for.
            label, annotation = asked, replace(annotation, agreement=share)
        candidate = replace(candidate, label=label, annotation=_beside(candidate.annotation, annotation))
        if asked is not None and label != asked:
            wanted = f"asked for {asked[:100]!r}{_in_brackets(share)}"
            problem = f"{wanted}, labelled {label[:100]!r}{_in_brackets(annotation and annotation.agreement)}"
            return replace(candidate, problem=problem, reason=RejectionReason.DISAGREEMENT)
        if labelled.doubt is not None:
            return replace(candidate, problem=labelled.doubt, reason=RejectionReason.UNCERTAIN)
        return self._if_sure(candidate, annotation and annotation.agreement)

    def _share(self, annotation: Annotation | None, label: str | None) -> float | None:
        if annotation is None or annotation.probabilities is None or label not in self._places:
            return None
        return annotation.probabilities[self._places[label]]

    # One label a text from each teacher.

    async def _label_together(self, texts: Sequence[Content], ask: Ask) -> list[Labelled]:
        count = len(texts)
        if count == 1:
            prompt = self._opening(ONE, count).finish({"text": as_shown(texts[0])}, label_schema(self._task.label_names))
        else:
            prompt = self._opening(SEVERAL, count).finish({"texts": [*map(as_shown, texts)]}, labels_schema(self._task.label_names, count))
        answers = await self._ask_teachers(prompt, "label", ask)
        voices = [parse_labels(answer.text, count) for answer in answers]
        return [_counted(answers[0], [voice[place] for voice in voices]) for place in range(count)]

    # A distribution over the labels from each teacher.

    async def _weigh(self, place: int, text: Content, ask: Ask) -> Labelled:
        prompt = self._coded(text)
        named = [replace(prompt, model=model, series=f"label {place}") for model in self._teachers]
        asked = await together(self._spell(each, ask) for each in named)
        first = asked[0][0]
        found = [(model, soft) for model, answers in zip(self._teachers, asked, strict=True) if (soft := self._read(answers)) is not None]
        if not found:
            # Nobody shows probabilities (a scripted teacher, a rehearsal): labels, then, as they stand.
            return _counted(first, [self._spelt(answers[0]) for answers in asked])
        temperatures = await together(self._temperature(model, ask) for model, _ in found)
        probabilities = mean([temper(soft.probabilities, by) for (_, soft), by in zip(found, temperatures, strict=True)])
        agreement = max(probabilities)
        missing = max(soft.missing for _, soft in found)
        doubt = f"{missing:.0%} of the probability is on no label" if missing > MAX_MISSING else None
        label = self._task.label_names[probabilities.index(agreement)]
        return Labelled(first, label, Annotation(agreement=agreement, probabilities=probabilities), doubt)

    async def _spell(self, prompt: Prompt, ask: Ask) -> list[Answer]:
        """The answers of one teacher about one text: as it would answer, then made to begin with other likely characters."""
        answers = [await ask(replace(prompt, code=self._form("")))]
        tried: set[str] = set()
        while self._prompter.is_constrained:
            likely = unexplored(self._codes, self._tables(answers), self._config.explore)
            further = [start for start in likely if start not in tried][: MAX_FURTHER - len(tried)]
            if not further:
                break
            tried.update(further)
            prompts = [replace(prompt, code=self._form(start), series=f"{prompt.series} {start}") for start in further]
            answers += await together(map(ask, prompts))
        return answers

    def _coded(self, text: Content) -> Prompt:
        prompt = self._opening(CODE, 1).finish({"text": as_shown(text)}, _code_schema(self._codes))
        return replace(prompt, temperature=TEMPERATURE)

    def _form(self, start: str) -> CodeForm:
        """Of an answer that begins so."""
        places = starts(self._codes)[start]
        return CodeForm(matching(self._codes[places.start : places.stop]), len(self._codes[0]), self._config.top_logprobs)

    def _tables(self, answers: Sequence[Answer]) -> Tables:
        return read_tables(self._codes, [answer.outcome for answer in answers if isinstance(answer.outcome, Completion)])

    def _read(self, answers: Sequence[Answer]) -> SoftLabel | None:
        return read_soft_label(self._codes, self._tables(answers))

    def _spelt(self, answer: Answer) -> str | None:
        code = answer.text.strip().strip('"')
        return self._task.label_names[self._codes.index(code)] if code in self._codes else None

    # How far a teacher's probabilities can be believed.

    async def _temperature(self, model: str, ask: Ask) -> float:
        """Asked for once in a run: a process that goes on with it finds the answers recorded, and comes to the same."""
        if self._config.calibrate == "none":
            return 1.0
        async with self._calibrating:
            if model not in self._temperatures:
                self._temperatures[model] = await self._calibrate(model, ask)
        return self._temperatures[model]

    async def _calibrate(self, model: str, ask: Ask) -> float:
        rows = self._task.seed if self._config.calibrate == "seed" else self._task.validation
        rows = draw_examples(rows, self._config.calibration_rows, self._prompter.seed, 0)
        answers = await together(self._spell(self._known_row(number, row, model), ask) for number, row in enumerate(rows))
        read = [(self._read(each), self._places[row.label]) for each, row in zip(answers, rows, strict=True)]
        known = [(soft.probabilities, place) for soft, place in read if soft is not None]
        return fit_temperature([probabilities for probabilities, _ in known], [place for _, place in known])

    def _known_row(self, number: int, row: Example, model: str) -> Prompt:
        # In the ordinary wording, whatever variant the assignment has that happens to ask first.
        return replace(self._coded(row.content), model=model, series=f"calibration {number}", is_once=True, variants=())

    def _values_of(self, template: str) -> Mapping[str, Any]:
        return {**self._values, "labels": self._coded_labels} if template == CODE else self._values


def _beside(there: Annotation | None, said: Annotation | None) -> Annotation | None:
    """What is said of a row, with the second text that it may have."""
    if there is None or there.text_pair is None:
        return said
    return replace(said or Annotation(), text_pair=there.text_pair)


def _counted(answer: Answer, voices: Sequence[str | None]) -> Labelled:
    """The label with most votes; of several, that of the teacher named first. One voice alone agrees with nobody."""
    votes = Counter(voice for voice in voices if voice is not None)
    if not votes:
        return Labelled(answer, None)
    label, count = votes.most_common(1)[0]
    return Labelled(answer, label, Annotation(agreement=count / votes.total()) if len(voices) > 1 else None)


def _code_schema(codes: tuple[str, ...]) -> str:
    """Never sent: it says what a made-up answer would be."""
    return json.dumps({"enum": list(codes)})


def _in_brackets(share: float | None) -> str:
    return "" if share is None else f" ({share:.2f})"
