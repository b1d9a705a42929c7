"""AttrPrompt: every row is asked for with a length, a style and a sub-topic of its label.

The values are asked of the teacher first: once a round for styles and for the sub-topics of each label, by the first assignment that
needs them. The others of the round wait for its answer. A value that could not be had is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

from engine.config import AttrpromptConfig
from engine.parsing import parse_strings
from engine.prompting import Prompter, strings_schema
from engine.records import Assignment, TaskSpec
from engine.reports import WeaknessReport
from engine.strategies.attributes import draw_profiles
from engine.strategies.forms import form_of
from engine.strategies.planning import assign_by_class
from engine.strategies.rendering import RoundPrompts
from engine.strategies.strategy import Ask, Written

VALUES = "attrprompt/values"
WRITE = "attrprompt/write"


class Attrprompt:
    name = "attrprompt"

    def __init__(self, config: AttrpromptConfig, task: TaskSpec, prompter: Prompter, seed: int) -> None:
        self._config = config
        self.rows_per_round = config.rows_per_round
        self._task = task
        self._prompter = prompter
        self._seed = seed
        self._form = form_of(task)
        self._prompts = RoundPrompts(prompter, self._form, WRITE)
        self._values: dict[tuple[int, str | None], asyncio.Future[Sequence[str]]] = {}
        """By round: sub-topics by label, and styles under None."""

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Iterator[Assignment]:
        return assign_by_class(round, report, self._task.label_names, self._config.rows_per_round, self._config.rows_per_call)

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> list[Written]:
        (label,) = assignment.focus
        styles = self._config.styles if self._config.styles is not None else await self._ask_values(assignment.round, None, ask)
        topics = await self._ask_values(assignment.round, label, ask)
        profiles = draw_profiles(
            [("length", self._config.lengths), ("style", styles), ("about", topics)],
            assignment.num_rows,
            f"{self._seed} profiles {assignment.id}",
        )
        values = {"label": label, "profiles": profiles}
        answer = await ask(self._prompts.get(assignment, dict, values, self._form.rows_schema, key=None))
        return [Written(answer, tuple(self._form.parse_rows(answer.text)), assignment.num_rows)]

    async def _ask_values(self, round: int, label: str | None, ask: Ask) -> Sequence[str]:
        if (values := self._values.get((round, label))) is None:
            values = self._values[round, label] = asyncio.get_running_loop().create_future()
            try:
                count = self._config.num_values
                said = {**self._form.values, "label": label, "num_values": count}
                prompt = self._prompter.render(self._form.template(VALUES), said, strings_schema(count))
                values.set_result(parse_strings((await ask(prompt)).text, count))
            except BaseException:
                values.cancel()
                raise
        return await values

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        return {}
