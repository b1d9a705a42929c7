"""LLM2LLM: variants of the seed rows that the student gets wrong, and of nothing else; what the teacher wrote is never varied again.

A student that gets its whole seed right is not taught any more: its rounds are empty, and patience ends the run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from engine.config import Llm2llmConfig
from engine.prompting import Prompter
from engine.records import Assignment, TaskSpec
from engine.reports import MinedRow, WeaknessReport
from engine.strategies.forms import form_of
from engine.strategies.planning import assign, num_requests
from engine.strategies.rendering import RoundPrompts
from engine.strategies.strategy import Ask, Written

TEMPLATE = "llm2llm/variants"


class Llm2llm:
    name = "llm2llm"

    def __init__(self, config: Llm2llmConfig, task: TaskSpec, prompter: Prompter, seed: int) -> None:
        self._config = config
        self.rows_per_round = config.rows_per_round
        self._form = form_of(task)
        self._seed = seed
        self._is_seed = {(row.content, row.label) for row in task.seed}
        self._prompts = RoundPrompts(prompter, self._form, TEMPLATE)
        self._wrong: tuple[int, list[MinedRow]] = (0, [])

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Iterator[Assignment]:
        config = self._config
        rows = self._wrong_rows(round, report)
        count = num_requests(config.rows_per_round, config.rows_per_call) if rows else 0
        missed = [self._form.missed_in(rows[number % len(rows)]) for number in range(count)]
        work = [(f"{self._form.single}:{labels[0]}", labels) for labels in missed]
        return assign(round, report, work, config.rows_per_round, config.rows_per_call)

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> list[Written]:
        rows = self._wrong_rows(assignment.round, report)
        row = rows[assignment.number % len(rows)]
        answer = await ask(self._prompts.get(assignment, dict, {"row": row}, self._form.variants_schema, key=row))
        return [Written(answer, tuple(self._form.parse_variants(answer.text, row)), assignment.num_rows)]

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        return {"wrong": len(self._wrong_rows(round, report))}

    def _wrong_rows(self, round: int, report: WeaknessReport) -> list[MinedRow]:
        """In an order of the round's own, as there may be more than a round has room for."""
        if self._wrong[0] != round:
            rows = [row for row in (*report.hard, *report.wrong) if (row.content, row.label) in self._is_seed]
            self._wrong = round, random.Random(f"{self._seed} wrong {round}").sample(rows, len(rows))
        return self._wrong[1]
