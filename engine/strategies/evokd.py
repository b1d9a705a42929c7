"""EvoKD, evolving knowledge distillation with active learning (Liu et al., LREC-COLING 2024, arXiv 2403.06414).

Three turns: the teacher names the patterns behind what the student gets right and wrong of the last batch, which it had not learned when
it was asked; writes, from that analysis, texts the student would get wrong and texts it would get right; and labels them, in a request
that shows nothing but the texts. As published, these follow one another once a round. Here a round is many such conversations at once over
the same report, each about rows of its own.

The first rounds may be other methods': AugGPT's (+Init), and an unguided one as the first batch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from engine.config import AuggptConfig, EvokdConfig, UnguidedConfig
from engine.prompting import Prompt, Prompter, strings_schema
from engine.records import Assignment, Completion, TaskSpec
from engine.reports import WeaknessReport
from engine.strategies.auggpt import Auggpt
from engine.strategies.forms import form_of
from engine.strategies.planning import assign, draw_examples, num_requests
from engine.strategies.strategy import Answer, Ask, Strategy, Written
from engine.strategies.unguided import Unguided

ANALYSE = "evokd/analyse"
WRITE = "evokd/write"
HARD, EASY = "hard", "easy"

T = TypeVar("T")


class Evokd:
    name = "evokd"

    def __init__(self, config: EvokdConfig, task: TaskSpec, prompter: Prompter, seed: int) -> None:
        self._config = config
        self.rows_per_round = config.rows_per_round
        self._task = task
        self._prompter = prompter
        self._seed = seed
        self._form = form_of(task)
        self._labeller = self._form.labeller(prompter)
        self._first_rounds: list[Strategy] = []
        if config.init_rounds:
            init = Auggpt(AuggptConfig(rows_per_round=config.rows_per_round), task, prompter, seed)
            self._first_rounds += [init] * config.init_rounds
        if config.first_batch == "unguided":
            batch = UnguidedConfig(rows_per_round=config.rows_per_round, rows_per_call=config.rows_per_call)
            self._first_rounds.append(Unguided(batch, task, prompter, seed))

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Iterator[Assignment]:
        if (first := self._first(round)) is not None:
            return iter(first.plan(round, report, earlier))
        config = self._config
        work = [("batch", ())] * num_requests(config.rows_per_round, config.rows_per_call)
        return assign(round, report, work, config.rows_per_round, config.rows_per_call)

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> Sequence[Written]:
        if (first := self._first(assignment.round)) is not None:
            return await first.carry_out(assignment, report, ask)
        analysis = await ask(self._analyse(assignment, report))
        if not isinstance(analysis.outcome, Completion):
            return [Written(analysis, (), assignment.num_rows)]
        writing = await ask(self._write(assignment, analysis))
        texts = self._form.parse_texts(writing.text, (HARD, EASY))
        wanted, surplus = texts[: assignment.num_rows], texts[assignment.num_rows :]
        labelled = await self._labeller.complete(wanted, ask)
        return [Written(writing, (*labelled, *surplus), assignment.num_rows)]

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        """Rows to draw from, and how many of either an analysis shows."""
        if (first := self._first(round)) is not None:
            return first.blocks(round, report)
        right, wrong = len(report.right), len(report.wrong) + len(report.hard)
        shown = self._config.shown
        examples = 0 if right or wrong else min(shown, len(self._task.seed))
        counts = {"right": right, "wrong": wrong, "shown_right": min(shown, right), "shown_wrong": min(shown, wrong)}
        return {"examples": examples, **counts}

    def _first(self, round: int) -> Strategy | None:
        return self._first_rounds[round - 1] if round <= len(self._first_rounds) else None

    def _analyse(self, assignment: Assignment, report: WeaknessReport) -> Prompt:
        generator = random.Random(f"{self._seed} analysis {assignment.round} {assignment.number}")
        shown, patterns = self._config.shown, self._config.patterns
        right, wrong = _some(report.right, shown, generator), _some((*report.hard, *report.wrong), shown, generator)
        values = {
            **self._form.values,
            "right": right,
            "wrong": wrong,
            # A student that has been asked nothing yet (one seed row a class leaves none to ask about) shows at least what it knows.
            "examples": [] if right or wrong else draw_examples(self._task.seed, shown, self._seed, assignment.number),
            "patterns": patterns,
        }
        return self._prompter.render(self._form.template(ANALYSE), values, strings_schema(patterns))

    def _write(self, assignment: Assignment, analysis: Answer) -> Prompt:
        num_easy = round(assignment.num_rows * self._config.easy_share)
        num_hard = assignment.num_rows - num_easy
        kinds = (*((HARD,) if num_hard else ()), *((EASY,) if num_easy else ()))
        values = {**self._form.values, "num_rows": assignment.num_rows, "num_hard": num_hard, "num_easy": num_easy}
        schema = self._form.texts_schema(assignment.num_rows, kinds)
        return self._prompter.follow(analysis.prompt, analysis.text, self._form.template(WRITE), values, schema)


def _some(rows: Sequence[T], count: int, generator: random.Random) -> list[T]:
    return generator.sample(rows, min(count, len(rows)))
