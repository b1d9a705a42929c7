"""PGKD, performance-guided knowledge distillation (Di Palo, Singhi and Fadlallah, EMNLP 2024, arXiv 2411.05045).

The teacher is shown the student's scores on validation and rows the student gets right, wrong, and confidently wrong, and writes rows that
improve it; texts and labels come in one reply. As published, a round is one request of 32 rows. Here a round may be many requests at
once over the same report, each with a weakness of its own named in its last line (`focus`), which the server's prefix cache makes
cheap.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence

from engine.config import PgkdConfig
from engine.parsing import parse_rows
from engine.prompting import Opening, Prompt, Prompter, rows_schema
from engine.records import Assignment, Completion, Example, TaskSpec, WeaknessReport
from engine.strategies.focus import choose_focuses
from engine.strategies.strategy import Ask, Written

TEMPLATE = "pgkd/generate"


class Pgkd:
    name = "pgkd"

    def __init__(self, config: PgkdConfig, task: TaskSpec, prompter: Prompter, seed: int) -> None:
        self._config = config
        self.rows_per_round = config.rows_per_round
        self._task = task
        self._prompter = prompter
        self._seed = seed
        self._round = 0
        self._openings: dict[int, Opening] = {}
        self._prompts: dict[tuple[int, tuple[str, ...]], Prompt] = {}

    def plan(self, round: int, report: WeaknessReport) -> Iterator[Assignment]:
        config = self._config
        num_requests = math.ceil(config.rows_per_round / config.rows_per_call)
        # Sorted, so that requests with one focus are neighbours.
        focuses = sorted(choose_focuses(report, round, num_requests)) if config.focus else [None] * num_requests
        left = config.rows_per_round
        for number, focus in enumerate(focuses):
            yield Assignment(
                id=f"r{round:04d}-a{number:04d}",
                number=number,
                round=round,
                report=report.round,
                weakness=focus.name if focus else "report",
                focus=focus.labels if focus else (),
                num_rows=min(left, config.rows_per_call),
            )
            left -= config.rows_per_call

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> Written:
        answer = await ask(self._prompt(assignment, report))
        reply = answer.outcome.text if isinstance(answer.outcome, Completion) else ""
        return Written(answer, tuple(parse_rows(reply)))

    def _prompt(self, assignment: Assignment, report: WeaknessReport) -> Prompt:
        """Each is rendered once a round: many assignments share a focus, and all but the last a number of rows."""
        round, num_rows, focus = assignment.round, assignment.num_rows, assignment.focus
        if round != self._round:
            self._round, self._openings, self._prompts = round, {}, {}
        if num_rows not in self._openings:
            values = {
                "domain": self._task.domain,
                "labels": self._task.labels,
                "examples": self._examples(round),
                "num_rows": num_rows,
                "report": report,
            }
            self._openings[num_rows] = self._prompter.open(TEMPLATE, values)
        if (num_rows, focus) not in self._prompts:
            schema = rows_schema(self._task.label_names, num_rows)
            self._prompts[num_rows, focus] = self._openings[num_rows].finish({"num_rows": num_rows, "focus": focus}, schema)
        return self._prompts[num_rows, focus]

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        return {
            "examples": len(self._examples(round)),
            "right": len(report.right),
            "wrong": len(report.wrong),
            "hard": len(report.hard),
        }

    def _examples(self, round: int) -> Sequence[Example]:
        """Seed rows for the round, from as many classes as there is room for; all requests of a round show the same ones."""
        generator = random.Random(f"{self._seed} examples {round}")
        rows = generator.sample(self._task.seed, len(self._task.seed))
        seen: dict[str, int] = {}
        # Sorted by how many rows of its class stand before it: one of each class, then a second of each.
        turns: list[tuple[int, Example]] = []
        for row in rows:
            seen[row.label] = seen.get(row.label, 0) + 1
            turns.append((seen[row.label], row))
        return [row for _, row in sorted(turns, key=lambda turn: turn[0])][: self._config.examples]
