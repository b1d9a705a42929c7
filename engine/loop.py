"""The loop: the student reports where it is weak, the teacher writes rows about it, the student learns them, and again.

Wiring and order only; every decision lives in a part: what to ask in the strategy, what to accept in the gates, when to stop in `stopping`.

Invariants: round r is asked only after the student's report on round r - 1 (lock-step, as published), or on round r - 1 - `max_staleness`
at the earliest. A round's rows are committed before the student sees the round. Whatever moment a run ends at, the same call goes on from
there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial

from engine.config import RunConfig
from engine.cost.meter import read_shifts
from engine.errors import RefluxError, StoreError
from engine.generation import open_generation
from engine.machine.cores import CoreShares, share_cores
from engine.machine.preflight import vllm_build
from engine.progress import Progress
from engine.records import Finish, TaskSpec
from engine.replay_plan import refuse_open_replay
from engine.reports import WeaknessReport
from engine.rundir import RunDir, read_json, write_json
from engine.runs.manifest import Manifest, begin, note_server, note_work
from engine.runs.summary import Summary, summarize
from engine.server.fleet import open_fleet
from engine.stopping.stopping import Patience, Payoff, best_round
from engine.stopping.turns import Ask, Stop, Wait, next_turn, note_asking, read_asking
from engine.store import read_rounds
from engine.student_process import WORKER, StudentProcess
from engine.watching.heartbeat import keep_status
from engine.watching.scoreboard import Scoreboard


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
                cores = _core_shares(config)
                async with StudentProcess(run, student_program, cores.student if cores else (), on_restart=board.notice) as student:
                    board.pids["student"] = student.pid
                    if not run.finish.exists():
                        await _teach(config, task, run, student, cores, board, manifest.wall_s)
                    finish = read_json(run.finish, Finish)
                    reports = [await student.report_after(-1)]
                    while reports[-1].round < finish.rounds:
                        reports.append(await student.report_after(reports[-1].round))
                    board.phase("scoring on test")
                    final = await student.final_report()
            shift = board.meter and board.meter.shift()
            summary = summarize(
                config, read_json(run.run_json, Manifest), finish, final, reports, read_rounds(run), run.root, read_shifts(run, shift)
            )
            write_json(run.summary, summary)
        return summary


async def _teach(
    config: RunConfig,
    task: TaskSpec,
    run: RunDir,
    student: StudentProcess,
    cores: CoreShares | None,
    progress: Scoreboard,
    worked_s: float,
) -> None:
    """Rounds until it is time to stop; finish.json says why. `worked_s`: by earlier processes."""
    started = time.perf_counter()
    if not config.strategy.rounds:
        progress.phase("student learns the seed rows")
        progress.reported(await student.report_after(-1))
        write_json(run.finish, Finish(best_round=0, rounds=0, reason="the method has no rounds"))
        return
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        # The student learns the seed rows while the server starts. In a group, so that either's failure ends the other's start.
        first_report = group.create_task(student.report_after(-1))
        stack.enter_context(progress.reserved())
        fleet = await stack.enter_async_context(
            open_fleet(config.teacher, config.engine, run, progress, partial(note_server, run), config.teachers, cores)
        )
        worked_s += time.perf_counter() - started
        generation = await stack.enter_async_context(open_generation(config, task, run, fleet, worked_s))
        progress.watch(fleet.all_lanes, generation.batcher.statistics, generation.watcher)
        watch = group.create_task(fleet.watch(generation.batcher))
        payoff = Payoff(config.stop)
        patience = Patience(config.strategy.rounds, config.strategy.patience, config.strategy.reset_patience)

        progress.phase("student learns the seed rows")
        reports = Reports(await first_report, progress)
        listening = group.create_task(reports.listen(student))
        while True:
            reports.expect(generation.last_round)
            known = reports.all
            turn = next_turn(
                generation.last_round,
                known,
                config.loop.max_staleness,
                config.strategy.rounds,
                lambda known=known: (
                    patience.reason_to_stop(known) or payoff.reason_to_stop(known, generation.rounds) or generation.budget.reason_to_stop()
                ),
                read_asking(run),
            )
            match turn:
                case Wait():
                    progress.phase(f"student learns round {known[-1].round + 1}")
                    await reports.wait_for_more(len(known))
                case Ask(round, answered):
                    if config.loop.max_staleness:
                        note_asking(run, turn)
                    progress.phase(f"teacher writes round {round}")
                    report, earlier = reports.up_to(answered)
                    progress.round_done(await generation.ask_round(round, report, progress, earlier))
                case Stop(reason):
                    break
        write_json(run.finish, Finish(best_round(known), rounds=known[-1].round, reason=reason))
        listening.cancel()
        watch.cancel()


class Reports:
    """Of one student, from round 0 on, as they come."""

    def __init__(self, first: WeaknessReport, progress: Progress) -> None:
        self._known = [first]
        self._progress = progress
        self._came = asyncio.Event()
        self._due = first.round
        self._is_due = asyncio.Event()
        progress.reported(first)

    @property
    def all(self) -> tuple[WeaknessReport, ...]:
        return tuple(self._known)

    def expect(self, round: int) -> None:
        """One on this round is to come, for it is complete."""
        self._due = round
        self._is_due.set()

    async def listen(self, student: StudentProcess) -> None:
        """Beside the asking, for as long as there may be more. StudentError if the student ends while one is due."""
        while True:
            while self._known[-1].round >= self._due:
                self._is_due.clear()
                await self._is_due.wait()
            report = await student.report_after(self._known[-1].round)
            self._known.append(report)
            self._progress.reported(report)
            self._came.set()

    async def wait_for_more(self, known: int) -> None:
        """Until there are more than so many."""
        while len(self._known) <= known:
            self._came.clear()
            await self._came.wait()

    def up_to(self, round: int) -> tuple[WeaknessReport, tuple[WeaknessReport, ...]]:
        """The report on that round, and those before it."""
        earlier = tuple(report for report in self._known if report.round < round)
        return self._known[len(earlier)], earlier


def _core_shares(config: RunConfig) -> CoreShares | None:
    """None where teacher and student compute in turns, or not on the same processor."""
    has_server = any(not teacher.endpoints for teacher in (config.teacher, *config.teachers))
    share = config.loop.teacher_cores or (0.5 if config.loop.max_staleness else None)
    if not has_server or share is None or config.strategy.rounds == 0 or config.student.device == "cuda" or vllm_build() != "cpu":
        return None
    return share_cores(share)


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
