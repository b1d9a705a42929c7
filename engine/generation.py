"""The teacher's half of the loop: a round's assignments, from the student's report to committed rows.

Wiring and order only: what to ask is the strategy's, how many at once the batcher's, what to accept the gates', what is on disk the
store's.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain, takewhile

from engine.config import RunConfig
from engine.cost.prices import money_per_s, reserved_gpus
from engine.crew import Crew
from engine.desk import Desk
from engine.gates.gates import Gatekeeper, Gates
from engine.gates.scripts import main_scripts
from engine.machine.collector import rare_collections
from engine.progress import Progress
from engine.prompting import Prompter, open_prompter
from engine.records import Assignment, Call, RoundRecord, TaskSpec
from engine.reports import WeaknessReport
from engine.rundir import RunDir
from engine.server.fleet import Fleet
from engine.stopping.budget import Budget
from engine.store import Store, read_rounds, read_texts, read_yields
from engine.strategies import Strategy, make_strategy
from engine.teacher.batcher import Batcher, Ceiling
from engine.teacher.ceiling import make_ceilings
from engine.teacher.lanes import Observed
from engine.teacher.switchboard import Switchboard
from engine.text import parts
from engine.variants import Allotment
from engine.watching.bottleneck import FlowMeter
from engine.watching.watcher import Watcher


class Generation:
    """Asks for one round after another."""

    def __init__(
        self,
        strategy: Strategy,
        desk: Desk,
        crew: Crew,
        store: Store,
        batcher: Switchboard,
        watcher: Watcher,
        budget: Budget,
        learn: Callable[[int], None] | None = None,
    ) -> None:
        """`learn` is told of each round that begins, in a thread: what is known by then may decide how it is asked."""
        self.batcher = batcher
        self.budget = budget
        self.watcher = watcher
        self._learn = learn
        self._strategy = strategy
        self._desk = desk
        self._crew = crew
        self._store = store

    @property
    def last_round(self) -> int:
        """The last completed round; 0 before the first."""
        return self._store.last_round

    @property
    def rounds(self) -> Sequence[RoundRecord]:
        """The completed ones, in order."""
        return self._store.rounds

    @property
    def num_open(self) -> int:
        """Between two rounds: answers that an earlier process has left of a round in progress, and whose calls are not committed."""
        return self._store.num_open

    async def ask_round(
        self, round: int, report: WeaknessReport, progress: Progress, earlier: Sequence[WeaknessReport] = ()
    ) -> RoundRecord:
        """Returns when all of the round's rows are committed. `earlier`: the reports before this one, from round 0 on."""
        started = time.perf_counter()
        progress.round_started(round, self._strategy.rows_per_round)
        if self._learn is not None:
            await asyncio.to_thread(self._learn, round)
        meter = self.watcher.meter = FlowMeter()

        async def carry_out(assignment: Assignment) -> list[Call]:
            calls = await self._desk.work_off(assignment, report)
            self.budget.spend(calls)
            return calls

        plan = takewhile(lambda _: self.budget.begin(), self._strategy.plan(round, report, earlier))
        tally = await self._crew.work_off(plan, carry_out, progress.assignment_done)
        self.watcher.meter = None
        flow = meter.flow()
        record = RoundRecord(
            round=round,
            report=report.round,
            assignments=tally.assignments,
            calls=tally.calls,
            rows=tally.rows,
            prompt_tokens=tally.prompt_tokens,
            completion_tokens=tally.completion_tokens,
            generation_s=time.perf_counter() - started,
            blocks=self._strategy.blocks(round, report),
            limited_s=flow.limited_s,
            peak_tokens_per_s=flow.peak_tokens_per_s,
        )
        await self._store.complete_round(record)
        return record


@asynccontextmanager
async def open_generation(
    config: RunConfig,
    task: TaskSpec,
    run: RunDir,
    fleet: Fleet,
    worked_s: float = 0.0,
    *,
    make: Callable[[RunConfig, TaskSpec, Prompter], Strategy] = make_strategy,
    guard: Callable[[RunConfig, TaskSpec, RunDir], Gates] | None = None,
) -> AsyncGenerator[Generation]:
    """Inside the block rounds can be asked; leaving it in peace seals what is buffered. `worked_s`: on the run by now.

    `make` and `guard` are called in a thread; without the latter the gates are those of the configuration.
    """
    with rare_collections():
        async with Store(run) as store:
            crew = Crew(limit=lambda: batcher.limit)
            ceilings = make_ceilings(config.engine)
            batcher = make_batcher(config, fleet, store, ceilings, lambda lane, observation: watcher.observed(lane, observation))
            prompter = open_prompter(config, fleet.model, others=[other.model for other in fleet.others])
            strategy = await asyncio.to_thread(make, config, task, prompter)
            gatekeeper = await asyncio.to_thread(guard or make_gatekeeper, config, task, run)
            desk = Desk(strategy, prompter, gatekeeper, store, batcher.ask, max_tokens_bound=config.sampling.max_tokens_bound)
            watcher = Watcher(crew, desk, ceilings, is_fixed=config.engine.concurrency is not None)
            async with batcher:
                gpus = reserved_gpus(config)
                budget = Budget(config.budget, read_rounds(run), worked_s, gpus=gpus, money_per_s=money_per_s(config.cost, gpus))
                allotment = prompter.allotment
                learn = partial(_learn, allotment, run) if allotment is not None and allotment.learns else None
                yield Generation(strategy, desk, crew, store, batcher, watcher, budget, learn)


def _learn(allotment: Allotment, run: RunDir, round: int) -> None:
    """A bandit over wordings goes by what they have brought in complete rounds."""
    allotment.learn(read_yields(run, round))


def make_batcher(config: RunConfig, fleet: Fleet, store: Store, ceilings: Sequence[Ceiling], observed: Observed) -> Switchboard:
    """For the servers of the fleet; what they answer is recorded in the store, and replayed from it. `observed` as of Batcher."""
    return Switchboard(
        {
            teacher.model: Batcher(
                teacher.lanes,
                attempts=config.engine.attempts,
                random=random.Random(config.seed),
                record=store.record,
                replay=store.replay,
                ceilings=ceilings,
                patience_s=config.engine.server_patience_s,
                observed=observed,
            )
            for teacher in fleet.all
        }
    )


def make_gatekeeper(config: RunConfig, task: TaskSpec, run: RunDir) -> Gatekeeper:
    """Knows what was admitted before: the gates go on where they were."""
    seed, held_out = (row.content for row in task.seed), (row.content for rows in (task.validation, task.test) for row in rows)
    return Gatekeeper(
        task.label_names,
        config.task.max_text_chars,
        known=chain(seed, read_texts(run)),
        held_out=held_out,
        similarity=config.gates.similarity if config.gates.near_duplicates else None,
        remembered_rows=config.gates.remembered_rows,
        kind=task.kind,
        scripts=main_scripts(text for row in task.seed for text in parts(row.content)) if config.gates.scripts else frozenset(),
    )
