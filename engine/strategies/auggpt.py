"""AugGPT: the teacher says each seed row in other words, several times; the label stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engine.config import AuggptConfig
from engine.prompting import Prompter
from engine.records import Assignment, TaskSpec
from engine.reports import WeaknessReport
from engine.strategies.forms import focus_labels, form_of
from engine.strategies.planning import Turns, assign, num_requests
from engine.strategies.rendering import RoundPrompts
from engine.strategies.strategy import Ask, Written

TEMPLATE = "auggpt/rephrase"


class Auggpt:
    name = "auggpt"

    def __init__(self, config: AuggptConfig, task: TaskSpec, prompter: Prompter, seed: int) -> None:
        self._config = config
        self.rows_per_round = config.rows_per_round
        self._form = form_of(task)
        self._turns = Turns(task.seed, num_requests(config.rows_per_round, config.rows_per_call), seed)
        self._prompts = RoundPrompts(prompter, self._form, TEMPLATE)

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Iterator[Assignment]:
        config = self._config
        work = [("none", focus_labels(row)) for row in self._turns.rows(round)]
        return assign(round, report, work, config.rows_per_round, config.rows_per_call)

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> list[Written]:
        row = self._turns.row(assignment.round, assignment.number)
        answer = await ask(self._prompts.get(assignment, dict, {"row": row}, self._form.variants_schema, key=row))
        return [Written(answer, tuple(self._form.parse_variants(answer.text, row)), assignment.num_rows)]

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        return {"rows": len(set(self._turns.rows(round)))}
