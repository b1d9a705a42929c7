"""The unguided control: PGKD's prompt with taxonomy and examples, and without a word about the student.

What PGKD gains over this, at the same number of teacher tokens, its feedback has gained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.config import UnguidedConfig
from engine.prompting import Prompter
from engine.records import Assignment, TaskSpec
from engine.reports import WeaknessReport
from engine.strategies.focus import spread
from engine.strategies.forms import form_of
from engine.strategies.planning import assign, draw_examples, has_focus, num_requests
from engine.strategies.rendering import RoundPrompts
from engine.strategies.strategy import Ask, Written

TEMPLATE = "unguided/generate"


class Unguided:
    name = "unguided"

    def __init__(self, config: UnguidedConfig, task: TaskSpec, prompter: Prompter, seed: int) -> None:
        self._config = config
        self.rows_per_round = config.rows_per_round
        self._task = task
        self._seed = seed
        self._form = form_of(task)
        self._prompts = RoundPrompts(prompter, self._form, TEMPLATE)

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Iterator[Assignment]:
        config = self._config
        count = num_requests(config.rows_per_round, config.rows_per_call)
        labels = self._task.label_names
        focuses = spread(labels, round, count) if has_focus(config.focus, count, len(labels)) else [None] * count
        work = [("none", focus.labels if focus else ()) for focus in focuses]
        return assign(round, report, work, config.rows_per_round, config.rows_per_call)

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> list[Written]:
        focus = assignment.focus
        last = {"focus": focus, "weakness": "none"}
        prompt = self._prompts.get(assignment, lambda: self._common(assignment.round), last, self._form.rows_schema, key=focus)
        answer = await ask(prompt)
        return [Written(answer, tuple(self._form.parse_rows(answer.text)), assignment.num_rows)]

    def _common(self, round: int) -> Mapping[str, Any]:
        return {"examples": draw_examples(self._task.seed, self._config.examples, self._seed, round)}

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        return {"examples": min(self._config.examples, len(self._task.seed))}
