"""What a method of teaching is: it plans a round's work from the student's report, and carries out each piece with `ask`.

A method with several dependent turns is straight code with awaits (`analysis = await ask(...)`, `texts = await ask(...)`): permits,
retries, journal and replay live behind `ask`. A new method is one file with a class like this, and one line in
`engine.strategies.STRATEGIES`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from engine.prompting import Prompt
from engine.records import Assignment, Candidate, Outcome, Request, WeaknessReport


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one prompt."""

    prompt: Prompt
    request: Request
    outcome: Outcome


Ask: TypeAlias = Callable[[Prompt], Awaitable[Answer]]
"""Sends a prompt; asking the same prompt again is another draw. Returns once the outcome is on disk."""


@dataclass(frozen=True, slots=True)
class Written:
    """The rows of an assignment, and the answer they stood in."""

    answer: Answer
    candidates: tuple[Candidate, ...]


class Strategy(Protocol):
    """One method, for one task and run."""

    name: str
    rows_per_round: int

    def plan(self, round: int, report: WeaknessReport) -> Iterable[Assignment]:
        """The round's work, taken as it can be done. The same round and report give the same assignments: a resumed run plans again."""
        ...

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> Written:
        """Ask what the assignment takes; a failed outcome is an answer too."""
        ...

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        """How many rows each block of the round's prompts really has."""
        ...
