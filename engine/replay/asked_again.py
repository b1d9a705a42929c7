"""Assignments whose rows were not all written, carried out once more: with another seed, and whatever else the replay changes.

The strategy is handed the assignment as it planned it then, and the report that this answered, so that it asks the same, in as many turns
as that takes; the rows go to the round of the replay. Seeds follow from that round and the place in the list, so that a replay that was
killed asks the same requests, and finds those that were answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from msgspec import structs

from engine.config import RunConfig
from engine.crew import Crew, Tally
from engine.desk import Desk, Send
from engine.errors import StoreError, UserError
from engine.gates.gates import Gatekeeper
from engine.generation import make_batcher
from engine.progress import Progress
from engine.prompting import Prompter, open_prompter
from engine.records import Assignment, Call, Outcome, Request, RowCounts, TaskSpec
from engine.replay.dead_letters import Unwritten
from engine.replay.fates import Fates
from engine.replay_plan import ReplayPlan, save_plan
from engine.reports import WeaknessReport
from engine.rundir import RunDir, read_json
from engine.runs.manifest import note_server
from engine.server.fleet import open_fleet
from engine.store import Store
from engine.strategies import Ask, Strategy, Written, make_strategy
from engine.teacher.ceiling import make_ceilings


class _NotAnsweredError(Exception):
    """A request that only a teacher could answer."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Assignments that one round of the strategy planned."""

    strategy: Strategy
    report: WeaknessReport
    assignments: list[Assignment]
    ended: Mapping[str, str]
    """Why each, by its new id, missed rows."""


class AskedAgain:
    """Unwritten rows on their way into the round of a replay."""

    def __init__(
        self, run: RunDir, config: RunConfig, task: TaskSpec, plan: ReplayPlan, store: Store, gatekeeper: Gatekeeper, fates: Fates
    ) -> None:
        self._run = run
        self._config = config
        self._task = task
        self._plan = plan
        self._store = store
        self._gatekeeper = gatekeeper
        self._fates = fates
        self.asking_s = 0.0

    async def ask(self, unwritten: Sequence[Unwritten], progress: Progress) -> None:
        """With the servers that the configuration names, or one of our own."""
        async with self._servers(progress) as (send, model, crew):

            async def work_off(assignments: Sequence[Assignment], carry_out: Callable[[Assignment], Awaitable[list[Call]]]) -> Tally:
                progress.round_started(self._plan.round, sum(assignment.num_rows for assignment in assignments))
                return await crew.work_off(assignments, carry_out, progress.assignment_done)

            started = time.perf_counter()
            await self._work_off(unwritten, model, send, work_off)
            self.asking_s = time.perf_counter() - started

    async def collect(self, unwritten: Sequence[Unwritten]) -> None:
        """Only those that were answered, in full, before this replay was stopped."""

        async def send(request: Request, priority: int) -> Outcome:
            if (outcome := self._store.replay(request.id)) is None:
                raise _NotAnsweredError
            return outcome

        async def work_off(assignments: Sequence[Assignment], carry_out: Callable[[Assignment], Awaitable[list[Call]]]) -> Tally:
            tally = Tally()
            for assignment in assignments:
                try:
                    tally.add(await carry_out(assignment))
                except _NotAnsweredError:
                    continue
            return tally

        if self._plan.model is not None:
            await self._work_off(unwritten, self._plan.model, send, work_off)

    @asynccontextmanager
    async def _servers(self, progress: Progress) -> AsyncGenerator[tuple[Send, str, Crew]]:
        config = self._config
        note = partial(note_server, self._run)
        async with open_fleet(config.teacher, config.engine, self._run, progress, note, config.teachers) as fleet:
            if self._plan.model not in (None, fleet.model):
                raise UserError(f"the replay that was stopped asked {self._plan.model!r}, not {fleet.model!r}; give a server that has it")
            others = tuple(other.model for other in fleet.others)
            if self._plan.model is not None and self._plan.other_models != others:
                raise UserError(f"the replay that was stopped also asked {list(self._plan.other_models)}, not {list(others)}")
            self._plan = replace(self._plan, model=fleet.model, other_models=others)
            await asyncio.to_thread(save_plan, self._run, self._plan)
            crew = Crew(limit=lambda: batcher.limit)
            batcher = make_batcher(config, fleet, self._store, make_ceilings(config.engine), lambda _lane, _observation: crew.grow())
            async with batcher, asyncio.TaskGroup() as group:
                watch = group.create_task(fleet.watch(batcher))
                yield batcher.ask, fleet.model, crew
                watch.cancel()

    async def _work_off(
        self,
        unwritten: Sequence[Unwritten],
        model: str,
        send: Send,
        work_off: Callable[[Sequence[Assignment], Callable[[Assignment], Awaitable[list[Call]]]], Awaitable[Tally]],
    ) -> None:
        """Round after round of those that planned them: a strategy sees one at a time."""
        prompter = open_prompter(self._config, model, others=self._plan.other_models)
        num_planned = 0
        for (round, report), letters in groupby(unwritten, key=lambda letter: (letter.first_round, letter.report)):
            batch = await asyncio.to_thread(self._plan_again, prompter, round, report, list(letters), num_planned)
            num_planned += len(batch.assignments)
            bound = self._config.sampling.max_tokens_bound
            desk = Desk(batch.strategy, prompter, self._gatekeeper, self._store, send, max_tokens_bound=bound)
            tally = await work_off(batch.assignments, partial(self._carry_out, desk, batch))
            self._fates.tally.join(tally)

    async def _carry_out(self, desk: Desk, batch: _Batch, assignment: Assignment) -> list[Call]:
        calls = await desk.work_off(assignment, batch.report)
        self._fates.add("asked", batch.ended[assignment.id], 1, sum((call.rows for call in calls), RowCounts()))
        return calls

    def _plan_again(self, prompter: Prompter, round: int, report: int, letters: Sequence[Unwritten], first_number: int) -> _Batch:
        """The assignments under new ids and numbers, and a strategy that knows them by those."""
        config = self._config
        reports = [read_json(self._run.report(number), WeaknessReport) for number in self._run.reported_rounds() if number <= report]
        strategy = make_strategy(config, self._task, prompter)
        wanted = {letter.first_assignment for letter in letters}
        planned = {planned.id: planned for planned in strategy.plan(round, reports[-1], reports[:-1]) if planned.id in wanted}
        if missing := sorted(wanted - set(planned)):
            raise StoreError(
                f"{missing[0]} cannot be asked again: this Reflux plans round {round} otherwise than the one that asked it; "
                "with --no-ask only rejected rows are judged"
            )
        assignments = [
            structs.replace(
                planned[letter.first_assignment],
                id=f"r{self._plan.round:04d}-{letter.assignment}",
                number=number,
                round=self._plan.round,
                replays=letter.request_id,
            )
            for number, letter in enumerate(letters, start=first_number)
        ]
        originals = {new.id: planned[letter.first_assignment] for new, letter in zip(assignments, letters, strict=True)}
        ended = {new.id: letter.ended for new, letter in zip(assignments, letters, strict=True)}
        return _Batch(_AsPlanned(strategy, originals), reports[-1], assignments, ended)


class _AsPlanned:
    """A strategy that carries out assignments as it planned them, whatever they are called now."""

    def __init__(self, strategy: Strategy, originals: Mapping[str, Assignment]) -> None:
        self.name = strategy.name
        self.rows_per_round = strategy.rows_per_round
        self._strategy = strategy
        self._originals = originals

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Iterable[Assignment]:
        return self._strategy.plan(round, report, earlier)

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> Sequence[Written]:
        return await self._strategy.carry_out(self._originals[assignment.id], report, ask)

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        return self._strategy.blocks(round, report)
