"""ZeroGen: class-conditional generation without examples and without feedback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engine.config import ZerogenConfig
from engine.prompting import Prompter
from engine.records import Assignment, TaskSpec
from engine.reports import WeaknessReport
from engine.strategies.forms import form_of
from engine.strategies.planning import assign_by_class
from engine.strategies.rendering import RoundPrompts
from engine.strategies.strategy import Ask, Written

TEMPLATE = "zerogen/generate"


class Zerogen:
    name = "zerogen"

    def __init__(self, config: ZerogenConfig, task: TaskSpec, prompter: Prompter, seed: int) -> None:
        self._config = config
        self.rows_per_round = config.rows_per_round
        self._task = task
        self._form = form_of(task)
        self._prompts = RoundPrompts(prompter, self._form, TEMPLATE)

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Iterator[Assignment]:
        return assign_by_class(round, report, self._task.label_names, self._config.rows_per_round, self._config.rows_per_call)

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> list[Written]:
        (label,) = assignment.focus
        answer = await ask(self._prompts.get(assignment, dict, {"label": label}, self._form.rows_schema, key=label))
        return [Written(answer, tuple(self._form.parse_rows(answer.text)), assignment.num_rows)]

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        return {}
