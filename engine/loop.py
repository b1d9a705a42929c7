"""The loop: the student reports where it is weak, the teacher writes rows about it, the student learns them, and again.

Wiring and order only; every decision lives in a part: what to ask in the strategy, what to accept in the gates, when to stop in `stopping`.

Invariants: round r is asked only after the student's report on round r - 1 (lock-step, as published). A round's rows are committed before
the student sees the round. Whatever moment a run ends at, the same call goes on from there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial

from engine.config import RunConfig
from engine.errors import RefluxError, StoreError
from engine.fleet import open_fleet
from engine.generation import open_generation
from engine.heartbeat import keep_status
from engine.manifest import Manifest, begin, note_server, note_work
from engine.progress import Progress
from engine.records import Finish, TaskSpec
from engine.replay_plan import refuse_open_replay
from engine.rundir import RunDir, read_json, write_json
from engine.scoreboard import Scoreboard
from engine.stopping import Patience, best_round
from engine.store import read_rounds
from engine.student_process import WORKER, StudentProcess
from engine.summary import Summary, summarize


async def run_loop(
    config: RunConfig, task: TaskSpec, run: RunDir, progress: Progress, student_program: tuple[str, ...] = WORKER
) -> Summary:
    """Start a run or go on with it, and see it through. The caller has checked machine, teacher and encoder.

    A RefluxError, or being cancelled, stops it in a state that the same call resumes from.
    """
    run.create()
    with run.lock("engine"):
        run.clear_temporaries()
        refuse_open_replay(run)
        manifest = begin(run, config, task, progress.notice)
        async with keep_status(run, config, progress, manifest.wall_s) as board:
            with counted_work(run), single_errors():
                async with StudentProcess(run, student_program) as student:
                    board.pids["student"] = student.pid
                    if not run.finish.exists():
                        await _teach(config, task, run, student, board, manifest.wall_s)
                    finish = read_json(run.finish, Finish)
                    reports = [await student.report(round) for round in range(finish.rounds + 1)]
                    board.phase("scoring on test")
                    final = await student.final_report()
            summary = summarize(config, read_json(run.run_json, Manifest), finish, final, reports, read_rounds(run), run.root)
            write_json(run.summary, summary)
        return summary


async def _teach(config: RunConfig, task: TaskSpec, run: RunDir, student: StudentProcess, progress: Scoreboard, worked_s: float) -> None:
    """Rounds until it is time to stop; finish.json says why. `worked_s`: by earlier processes."""
    started = time.perf_counter()
    if not config.strategy.rounds:
        progress.phase("student learns the seed rows")
        progress.reported(await student.report(0))
        write_json(run.finish, Finish(best_round=0, rounds=0, reason="the method has no rounds"))
        return
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        # The student learns the seed rows while the server starts. In a group, so that either's failure ends the other's start.
        first_report = group.create_task(student.report(0))
        fleet = await stack.enter_async_context(
            open_fleet(config.teacher, config.engine, run, progress, partial(note_server, run), config.teachers)
        )
        worked_s += time.perf_counter() - started
        generation = await stack.enter_async_context(open_generation(config, task, run, fleet, worked_s))
        progress.watch(fleet.all_lanes, generation.batcher.statistics, generation.watcher)
        watch = group.create_task(fleet.watch(generation.batcher))
        patience = Patience(config.strategy.rounds, config.strategy.patience, config.strategy.reset_patience)

        progress.phase("student learns the seed rows")
        reports = [await first_report]
        progress.reported(reports[0])
        while True:
            while len(reports) <= generation.last_round:
                progress.phase(f"student learns round {len(reports)}")
                reports.append(await student.report(len(reports)))
                progress.reported(reports[-1])
            if (reason := patience.reason_to_stop(reports) or generation.budget.reason_to_stop()) is not None:
                break
            progress.phase(f"teacher writes round {len(reports)}")
            progress.round_done(await generation.ask_round(len(reports), reports[-1], progress, reports[:-1]))
        write_json(run.finish, Finish(best_round(reports), rounds=len(reports) - 1, reason=reason))
        watch.cancel()


@contextmanager
def counted_work(run: RunDir) -> Generator[None]:
    """Adds the time spent inside to the run's, also when it is stopped (not when it is killed)."""
    started = time.perf_counter()
    try:
        yield
    except BaseException:
        # What stopped the work is what is told, also on a disk that does not even take this.
        with suppress(StoreError):
            note_work(run, time.perf_counter() - started)
        raise
    note_work(run, time.perf_counter() - started)


@contextmanager
def single_errors() -> Generator[None]:
    """One error out of the groups that tasks wrap it in: the first is what went wrong, the others follow from it."""
    try:
        yield
    except BaseExceptionGroup as group:
        causes = _leaves(group)
        # Not `from group`: it holds the same error once for each of hundreds of assignments, and a traceback would print them all.
        raise next((error for error in causes if isinstance(error, RefluxError)), causes[0]) from None


def _leaves(error: BaseException) -> Sequence[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
