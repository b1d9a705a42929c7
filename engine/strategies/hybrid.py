"""The hybrid: PGKD's signals with EvoKD's way of writing.

- Each request is about one weakness, a class or a confused pair. Classes share the requests by 1 - F1, as far as their validation rows
  make it believable, and uniformly at first; a weakness that does not move rests.
- It shows the report, rows the student gets right and wrong, its most confident mistakes, and some of this very weakness.
- Texts are written without labels and labelled in a request of their own; one that gets another label than it was asked for is refused.
- A share of the requests wants typical rows of all classes alike, which keep the student from forgetting.
- Every row is asked for in a length and a style of its own. While the report has a weak slice (short texts, unusual words), every second
  group of requests about a weakness asks for rows of that slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.config import HybridConfig
from engine.prompting import Prompter
from engine.records import Assignment, TaskSpec
from engine.reports import MinedRow, WeaknessReport
from engine.strategies.attributes import draw_profiles
from engine.strategies.focus import Focus, choose_focuses, resting, spread
from engine.strategies.forms import form_of
from engine.strategies.planning import assign, draw_examples, feedback_blocks, num_requests
from engine.strategies.rendering import RoundPrompts
from engine.strategies.strategy import Ask, Written

TEMPLATE = "hybrid/write"

DRAWS = 4
"""Neighbouring assignments that ask for the same lengths and styles: where they are about one weakness they travel as draws of one
request, which spares the server a prompt each."""
SLICE_ATTRIBUTES: Mapping[str, tuple[str, str]] = {
    "words:rare": ("words", "unusual ones"),
    "words:unseen": ("words", "unusual ones"),
    "entity:long": ("entities", "long ones"),
    "entity:unseen": ("entities", "unusual ones"),
    "entity:first": ("beginning", "an entity"),
}
"""What rows of a slice are asked for with; short and long ones with the first and the last of the lengths."""
PRIOR_ROWS = 8.0
"""An F1 is believed as if so many more rows had scored the mean of all classes: with 3 validation rows mostly the mean, with 50 itself."""


class Hybrid:
    name = "hybrid"

    def __init__(self, config: HybridConfig, task: TaskSpec, prompter: Prompter, seed: int) -> None:
        self._config = config
        self.rows_per_round = config.rows_per_round
        self._task = task
        self._seed = seed
        self._form = form_of(task)
        self._prompts = RoundPrompts(prompter, self._form, TEMPLATE)
        self._labeller = self._form.labeller(prompter) if config.labelling == "separate" else None

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Iterator[Assignment]:
        config = self._config
        count = num_requests(config.rows_per_round, config.rows_per_call)
        num_easy = int(count * config.easy_share)
        single = self._form.single
        reports = (*earlier, report)
        at_rest = resting(reports, config.rest_after, config.min_gain, single=single) if config.rest_after else frozenset[Focus]()
        focuses = sorted(choose_focuses(report, round, count - num_easy, single=single, prior_rows=PRIOR_ROWS, resting=at_rest))
        easy = spread(self._task.label_names, round, num_easy)
        work = [*((focus.name, focus.labels) for focus in focuses), *((f"easy:{focus.labels[0]}", focus.labels) for focus in easy)]
        return assign(round, report, work, config.rows_per_round, config.rows_per_call)

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> list[Written]:
        is_easy = assignment.weakness.startswith("easy:")
        group = assignment.number // DRAWS
        profiles = draw_profiles(
            self._attributes(() if is_easy or group % 2 else _weak_slices(report)),
            assignment.num_rows,
            f"{self._seed} profiles {assignment.round} {group}",
        )
        focus = Focus.of(assignment)
        mistakes = () if is_easy else self._mistakes(focus, report)
        values = {"focus": focus.labels, "weakness": focus.kind, "is_easy": is_easy, "mistakes": mistakes, "profiles": profiles}
        key = None if profiles else focus
        prompt = self._prompts.get(assignment, lambda: self._common(assignment.round, report), values, self._schema, key=key)
        answer = await ask(prompt)
        if self._labeller is None:
            return [Written(answer, tuple(self._form.parse_rows(answer.text)), assignment.num_rows)]
        texts = self._form.parse_texts(answer.text)
        wanted, surplus = texts[: assignment.num_rows], texts[assignment.num_rows :]
        asked = assignment.focus[0] if self._config.disagreement == "refuse" else None
        labelled = await self._labeller.complete(wanted, ask, asked)
        return [Written(answer, (*labelled, *surplus), assignment.num_rows)]

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        return feedback_blocks(self._config.examples, self._task.seed, report) | {"weak_slices": len(_weak_slices(report))}

    def _attributes(self, slices: Sequence[str]) -> Sequence[tuple[str, Sequence[str]]]:
        """With the values that rows of these slices have; of slices that contradict each other the first counts."""
        lengths, wanted = self._config.lengths, dict[str, Sequence[str]]()
        for name in slices:
            if name.startswith("length:"):
                wanted.setdefault("length", lengths[:1] if name == "length:short" else lengths[-1:])
            else:
                attribute, value = SLICE_ATTRIBUTES[name]
                wanted.setdefault(attribute, (value,))
        return [*({"length": lengths, "style": self._config.styles} | wanted).items()]

    def _schema(self, num_rows: int) -> str:
        return self._form.texts_schema(num_rows) if self._labeller else self._form.rows_schema(num_rows)

    def _common(self, round: int, report: WeaknessReport) -> Mapping[str, Any]:
        return {
            "examples": draw_examples(self._task.seed, self._config.examples, self._seed, round),
            "report": report,
            "with_labels": self._labeller is None,
        }

    def _mistakes(self, focus: Focus, report: WeaknessReport) -> Sequence[MinedRow]:
        """Mined rows of a weakness, the most confident first, each once."""
        weaknesses = (row for weakness in report.weaknesses for row in weakness.examples)
        confusions = (row for confusion in report.confusions for row in confusion.examples)
        rows = dict.fromkeys((*report.hard, *report.wrong, *weaknesses, *confusions))
        fitting = [row for row in rows if self._form.shows(row, focus)]
        return sorted(fitting, key=lambda row: -row.confidence)[: self._config.mistakes]


def _weak_slices(report: WeaknessReport) -> list[str]:
    """The surest first."""
    return [found.name for found in report.slices if found.is_weak]
