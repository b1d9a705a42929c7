"""PGKD, performance-guided knowledge distillation (Di Palo, Singhi and Fadlallah, EMNLP 2024, arXiv 2411.05045).

The teacher is shown the student's scores on validation and rows the student gets right, wrong, and confidently wrong, and writes rows that
improve it; texts and labels come in one reply. As published, a round is one request of 32 rows. Here a round may be many requests at
once over the same report, each with a weakness of its own named in its last line (`focus`), which the server's prefix cache makes
cheap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.config import PgkdConfig
from engine.prompting import Prompter
from engine.records import Assignment, TaskSpec
from engine.reports import WeaknessReport
from engine.strategies.focus import Focus, choose_focuses
from engine.strategies.forms import form_of
from engine.strategies.planning import assign, draw_examples, feedback_blocks, has_focus, num_requests
from engine.strategies.rendering import RoundPrompts
from engine.strategies.strategy import Ask, Written

TEMPLATE = "pgkd/generate"


class Pgkd:
    name = "pgkd"

    def __init__(self, config: PgkdConfig, task: TaskSpec, prompter: Prompter, seed: int) -> None:
        self._config = config
        self.rows_per_round = config.rows_per_round
        self._task = task
        self._seed = seed
        self._form = form_of(task)
        self._prompts = RoundPrompts(prompter, self._form, TEMPLATE)

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Iterator[Assignment]:
        config = self._config
        count = num_requests(config.rows_per_round, config.rows_per_call)
        focuses: Sequence[Focus | None] = [None] * count
        if has_focus(config.focus, count, len(self._task.labels)):
            # Sorted, so that requests with one focus are neighbours.
            focuses = sorted(choose_focuses(report, round, count, single=self._form.single))
        work = [(focus.name, focus.labels) if focus else ("report", ()) for focus in focuses]
        return assign(round, report, work, config.rows_per_round, config.rows_per_call)

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> list[Written]:
        focus = Focus.of(assignment)
        last = {"focus": focus.labels, "weakness": focus.kind}
        prompt = self._prompts.get(assignment, lambda: self._common(assignment.round, report), last, self._form.rows_schema, key=focus)
        answer = await ask(prompt)
        return [Written(answer, tuple(self._form.parse_rows(answer.text)), assignment.num_rows)]

    def _common(self, round: int, report: WeaknessReport) -> Mapping[str, Any]:
        examples = draw_examples(self._task.seed, self._config.examples, self._seed, round)
        return {"examples": examples, "report": report}

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        return feedback_blocks(self._config.examples, self._task.seed, report)
