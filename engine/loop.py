"""The loop: the student reports where it is weak, the teacher writes rows about it, the student learns them, and again.

Wiring and order only; every decision lives in a part: what to ask in the strategy, what to accept in the gates, when to stop in `stopping`.

Invariants: round r is asked only after the student's report on round r - 1 (lock-step, as published). A round's rows are committed before
the student sees the round. Whatever moment a run ends at, the same call goes on from there.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from engine.batcher import Batcher, assume_alive
from engine.config import RunConfig, TeacherConfig
from engine.desk import Desk, count_tokens
from engine.endpoint import Endpoint, configured_endpoint
from engine.errors import RefluxError
from engine.gates import Gatekeeper
from engine.manifest import Manifest, begin, note_server, note_work
from engine.progress import Progress
from engine.prompting import Prompter
from engine.records import Finish, RoundRecord, RowCounts, TaskSpec, WeaknessReport
from engine.rundir import RunDir, read_json, write_json
from engine.server import VllmServer
from engine.stopping import Patience, best_round
from engine.store import Store, read_rounds, read_samples
from engine.strategies import STRATEGIES, Strategy
from engine.student_process import WORKER, StudentProcess
from engine.summary import Summary, summarize
from engine.teacher import HttpTeacher, find_model
from prompts import PromptLibrary


async def run_loop(
    config: RunConfig, task: TaskSpec, run: RunDir, progress: Progress, student_program: tuple[str, ...] = WORKER
) -> Summary:
    """Start a run or go on with it, and see it through. The caller has checked machine, teacher and encoder.

    A RefluxError, or being cancelled, stops it in a state that the same call resumes from.
    """
    run.create()
    with run.lock("engine"):
        begin(run, config)
        with _counted_work(run), _single_errors():
            async with StudentProcess(run, student_program) as student:
                if not run.finish.exists():
                    await _teach(config, task, run, student, progress)
                finish = read_json(run.finish, Finish)
                reports = [await student.report(round) for round in range(finish.rounds + 1)]
                progress.phase("scoring on test")
                final = await student.final_report()
        summary = summarize(config, read_json(run.run_json, Manifest), finish, final, reports, read_rounds(run), run.root)
        write_json(run.summary, summary)
        return summary


async def _teach(config: RunConfig, task: TaskSpec, run: RunDir, student: StudentProcess, progress: Progress) -> None:
    """Rounds until it is time to stop; finish.json says why."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        # The student learns the seed rows while the server starts. In a group, so that either's failure ends the other's start.
        first_report = group.create_task(student.report(0))
        server = await stack.enter_async_context(_serve(config.teacher, run, progress))
        watch = group.create_task(server.watch())
        store = await stack.enter_async_context(Store(run))
        teacher = await stack.enter_async_context(
            HttpTeacher(server.endpoint, timeout_s=config.engine.request_timeout_s, concurrency=config.engine.concurrency)
        )
        batcher = Batcher(
            teacher,
            concurrency=config.engine.concurrency,
            attempts=config.engine.attempts,
            random=random.Random(config.seed),
            record=store.record,
            replay=store.replay,
            check=server.check,
            requests_per_minute=config.engine.requests_per_minute,
        )
        prompter = Prompter(PromptLibrary(), server.endpoint.model, config.sampling, config.seed)
        strategy = STRATEGIES[config.strategy.type](config.strategy, task, prompter, config.seed)
        desk = Desk(strategy, prompter, _gatekeeper(config, task, run), store, batcher.ask)
        patience = Patience(config.strategy.rounds, config.strategy.patience, config.strategy.reset_patience)

        progress.phase("student learns the seed rows")
        reports = [await first_report]
        progress.reported(reports[0])
        while True:
            while len(reports) <= store.last_round:
                progress.phase(f"student learns round {len(reports)}")
                reports.append(await student.report(len(reports)))
                progress.reported(reports[-1])
            if (reason := patience.reason_to_stop(reports)) is not None:
                break
            progress.phase(f"teacher writes round {len(reports)}")
            record = await _ask_round(len(reports), reports[-1], strategy, desk, store, progress)
            progress.round_done(record)
        write_json(run.finish, Finish(best_round(reports), rounds=len(reports) - 1, reason=reason))
        watch.cancel()


async def _ask_round(round: int, report: WeaknessReport, strategy: Strategy, desk: Desk, store: Store, progress: Progress) -> RoundRecord:
    """All of a round's assignments at once; the batcher bounds what is really under way."""
    started = time.perf_counter()
    assignments = strategy.plan(round, report)
    progress.round_started(round, len(assignments))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(desk.work_off(assignment, report)) for assignment in assignments]
        for task in asyncio.as_completed(tasks):
            progress.assignment_done(sum((call.rows for call in await task), RowCounts()))
    calls = [call for task in tasks for call in task.result()]
    prompt_tokens, completion_tokens = count_tokens(calls)
    record = RoundRecord(
        round=round,
        report=report.round,
        assignments=len(assignments),
        calls=len(calls),
        rows=sum((call.rows for call in calls), RowCounts()),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        generation_s=time.perf_counter() - started,
        blocks=strategy.blocks(round, report),
    )
    await store.complete_round(record)
    return record


@dataclass(frozen=True, slots=True)
class _Served:
    """A server that answers, ours or the user's."""

    endpoint: Endpoint
    check: Callable[[], None]
    """Raises if the server is known to be dead."""
    own: VllmServer | None = None

    async def watch(self) -> None:
        """ServerError when a server of ours dies; the user's own is not ours to watch."""
        if self.own is not None:
            await self.own.watch()


@asynccontextmanager
async def _serve(config: TeacherConfig, run: RunDir, progress: Progress) -> AsyncGenerator[_Served]:
    if config.endpoint is not None:
        progress.phase(f"looking for {config.endpoint}")
        endpoint = await find_model(configured_endpoint(config))
        note_server(run, {"endpoint": endpoint.base_url, "model": endpoint.model})
        yield _Served(endpoint, assume_alive)
        return

    def show(phase: str) -> None:
        progress.phase(f"vLLM: {phase}")

    async with VllmServer(config, run=run.root, log=run.logs / "server.log", on_phase=show, on_notice=progress.notice) as server:
        launch = server.launch
        note_server(
            run,
            {"command": launch.command, "environment": launch.environment, "device": launch.device, "start_s": round(server.start_s, 1)},
        )
        yield _Served(server.endpoint, server.check, server)


def _gatekeeper(config: RunConfig, task: TaskSpec, run: RunDir) -> Gatekeeper:
    return Gatekeeper(
        task.label_names,
        config.task.max_text_chars,
        known=[*(row.text for row in task.seed), *(sample.text for sample in read_samples(run))],
        held_out=(row.text for rows in (task.validation, task.test) for row in rows),
    )


@contextmanager
def _counted_work(run: RunDir) -> Generator[None]:
    """Adds the time spent inside to the run's, also when it is stopped (not when it is killed)."""
    started = time.perf_counter()
    try:
        yield
    finally:
        note_work(run, time.perf_counter() - started)


@contextmanager
def _single_errors() -> Generator[None]:
    """One RefluxError out of the groups that tasks wrap it in: the first is what went wrong, the others follow from it."""
    try:
        yield
    except BaseExceptionGroup as group:
        causes = _leaves(group)
        raise next((error for error in causes if isinstance(error, RefluxError)), causes[0]) from group


def _leaves(error: BaseException) -> Sequence[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
