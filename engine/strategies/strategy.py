"""What a method of teaching is: it plans a round's work from the student's report, and carries out each piece with `ask`.

A method with several dependent turns is straight code with awaits (`analysis = await ask(...)`, `texts = await ask(...)`): permits,
retries, journal and replay live behind `ask`. A new method is one file with a class like this, a section in `engine.config.strategy`, and
one line in `engine.strategies.STRATEGIES`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec

from engine.prompting import Prompt
from engine.records import Assignment, Candidate, Completion, Outcome, Request
from engine.reports import WeaknessReport


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What came of one prompt."""

    prompt: Prompt
    request: Request
    outcome: Outcome

    @property
    def text(self) -> str:
        """Of a failure: nothing."""
        return self.outcome.text if isinstance(self.outcome, Completion) else ""


Ask: TypeAlias = Callable[[Prompt], Awaitable[Answer]]
"""Sends a prompt; asking the same prompt again is another draw. Returns once the outcome is on disk."""


class Written(msgspec.Struct, frozen=True, gc=False):
    """The rows that stood in one answer. They belong to the answer in which their texts were written, whoever labelled them."""

    answer: Answer
    candidates: tuple[Candidate, ...]
    num_rows: int
    """Rows asked for in it."""


class Strategy(Protocol):
    """One method, for one task and run."""

    name: str
    rows_per_round: int

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Iterable[Assignment]:
        """The round's work, taken as it can be done. `earlier`: the reports before, from round 0 on.

        The same round and reports give the same assignments: a resumed run plans again, with a strategy that has seen no round before.
        """
        ...

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> Sequence[Written]:
        """Ask what the assignment takes; a failed outcome is an answer too.

        The rows asked for in all answers together are those of the assignment; where a turn fails and the one that was to write the rows
        is never asked, they belong to the turn that failed.
        """
        ...

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        """How many rows each block of the round's prompts really has."""
        ...
