"""Active learning: the teacher labels real texts out of the unlabelled pool, those that the student is least sure of.

The report brings the uncertain rows; where nobody looked for any, or by `pick = "random"`, they are drawn. What is a row of validation or
test is never asked about, so that no prompt shows one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from engine.config import PoolConfig
from engine.errors import UserError
from engine.gates.gates import comparable
from engine.prompting import Prompter
from engine.records import Assignment, TaskSpec
from engine.reports import WeaknessReport
from engine.strategies.forms import form_of
from engine.strategies.planning import assign, num_requests
from engine.strategies.strategy import Ask, Written
from engine.strategies.text_labeller import real_candidate
from engine.task.task import draw_texts
from engine.text import Content, parts

SPARE = 2
"""Times as many rows are drawn as are asked about, as some may be empty, or of validation or test."""


class PoolLabelling:
    name = "pool"

    def __init__(self, config: PoolConfig, task: TaskSpec, prompter: Prompter, seed: int) -> None:
        """Reads the pool once: blocking."""
        if task.pool is None:
            raise UserError("the method pool labels rows of task.data.pool; name the file or folder with your unlabelled texts there")
        self._config = config
        self.rows_per_round = config.rows_per_round
        self._labeller = form_of(task).labeller(prompter)
        self._held_out = {comparable(row.content) for rows in (task.validation, task.test) for row in rows}
        drawn = draw_texts(task.pool, SPARE * config.rounds * config.rows_per_round, seed)
        self._drawn = [text for text in drawn if self._may_be_shown(text)]
        self._uncertain: tuple[int, list[Content]] = (0, [])
        """Of which round, and those that may be shown."""

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Iterator[Assignment]:
        self._uncertain = round, self._unasked(round, report, earlier)
        pick, texts = self._texts(round, report)
        work = [(pick, ())] * num_requests(len(texts), self._config.rows_per_call)
        return assign(round, report, work, len(texts), self._config.rows_per_call)

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> list[Written]:
        start = assignment.number * self._config.rows_per_call
        texts = self._texts(assignment.round, report)[1][start : start + assignment.num_rows]
        written: list[Written] = []
        # Texts that were asked about together stand side by side.
        for answer, group in groupby(zip(texts, await self._labeller.label(texts, ask), strict=True), key=lambda pair: pair[1].answer):
            rows = list(group)
            # A text without a label was asked about in vain, and not refused: it is a row that failed.
            found = [(text, labelled) for text, labelled in rows if labelled.is_answered]
            candidates = [self._labeller.judge(real_candidate(text), labelled) for text, labelled in found]
            written.append(Written(answer, tuple(candidates), len(rows)))
        return written

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        pick, texts = self._texts(round, report)
        return {pick: len(texts)}

    def _texts(self, round: int, report: WeaknessReport) -> tuple[str, Sequence[Content]]:
        """How they were picked, and the round's texts."""
        count = self._config.rows_per_round
        if self._config.pick == "uncertain" and report.uncertain is not None:
            if self._uncertain[0] != round:
                self._uncertain = round, self._unasked(round, report)
            return "uncertain", self._uncertain[1]
        return "random", self._drawn[(round - 1) * count : round * count]

    def _unasked(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> list[Content]:
        """Each round that answers a report has a part of its uncertain rows, by how far it is ahead. What rounds in between may have taken
        of earlier reports' is left out, for the report did not know of it.
        """
        others = [other for other in (*earlier, report) if other.round < round]
        asked = {text for other in others for between in range(report.round + 1, round) for text in self._part(between, other)}
        return [text for text in self._part(round, report) if text not in asked]

    def _part(self, round: int, report: WeaknessReport) -> list[Content]:
        count, ahead = self._config.rows_per_round, round - report.round - 1
        shown = [row.content for row in report.uncertain or () if self._may_be_shown(row.content)]
        return shown[ahead * count : (ahead + 1) * count] if ahead >= 0 else []

    def _may_be_shown(self, text: Content) -> bool:
        return all(map(str.strip, parts(text))) and comparable(text) not in self._held_out
