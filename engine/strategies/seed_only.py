"""What the seed rows alone are worth: a run without rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.config import SeedOnlyConfig
from engine.prompting import Prompter
from engine.records import Assignment, TaskSpec
from engine.reports import WeaknessReport
from engine.strategies.strategy import Ask, Written


class SeedOnly:
    name = "seed_only"
    rows_per_round = 0

    def __init__(self, config: SeedOnlyConfig, task: TaskSpec, prompter: Prompter, seed: int) -> None:
        pass

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Sequence[Assignment]:
        return ()

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> Sequence[Written]:
        raise AssertionError("nothing is planned, so there is nothing to carry out")

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        return {}
