"""The teacher at work without a student: servers, generation and status of a run, from its start, or where it was left, to its finish.

The caller holds the run's engine lock, and writes finish.json before the block is left in peace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from engine.config import RunConfig
from engine.gates.gates import Gates
from engine.generation import Generation, open_generation
from engine.loop import counted_work, single_errors
from engine.progress import Progress
from engine.prompting import Prompter
from engine.records import RoundRecord, TaskSpec
from engine.reports import Scores, WeaknessReport
from engine.rundir import RunDir
from engine.runs.manifest import Manifest, note_server
from engine.server.fleet import open_fleet
from engine.strategies import Strategy
from engine.watching.heartbeat import keep_status

NO_REPORT = WeaknessReport(
    round=0,
    loss=0.0,
    scores=Scores(0.0, 0.0, 0.0, 0),
    classes=(),
    confusions=(),
    mining="none",
    right=(),
    wrong=(),
    hard=(),
    num_train_rows=0,
    train_s=0.0,
    epochs=0,
)
"""Nobody was there to write one."""


@dataclass(frozen=True, slots=True)
class Solo:
    """Asks for one round after another."""

    generation: Generation
    _progress: Progress

    @property
    def last_round(self) -> int:
        """The last completed round; 0 before the first."""
        return self.generation.last_round

    async def ask_next_round(self) -> RoundRecord:
        round = self.last_round + 1
        self._progress.phase(f"teacher works on round {round}")
        record = await self.generation.ask_round(round, NO_REPORT, self._progress)
        self._progress.round_done(record)
        return record


@asynccontextmanager
async def teacher_alone(
    config: RunConfig,
    task: TaskSpec,
    run: RunDir,
    manifest: Manifest,
    progress: Progress,
    make: Callable[[RunConfig, TaskSpec, Prompter], Strategy],
    guard: Callable[[RunConfig, TaskSpec, RunDir], Gates] | None = None,
) -> AsyncGenerator[Solo]:
    """`make` and `guard` as of `open_generation`. An error inside, or of a server, leaves the block as itself."""
    async with keep_status(run, config, progress, manifest.wall_s) as board:
        with counted_work(run), single_errors(), board.reserved():
            async with (
                open_fleet(config.teacher, config.engine, run, board, partial(note_server, run), config.teachers) as fleet,
                open_generation(config, task, run, fleet, manifest.wall_s, make=make, guard=guard) as generation,
                asyncio.TaskGroup() as group,
            ):
                board.watch(fleet.all_lanes, generation.batcher.statistics, generation.watcher)
                watch = group.create_task(fleet.watch(generation.batcher))
                yield Solo(generation, board)
                watch.cancel()
