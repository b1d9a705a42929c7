"""All runs of a comparison, several at a time, on one server.

A run that was stopped is gone on with, one that is finished is only read. Seed by seed, so that what is there when it is stopped has all
methods.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.methods import seed_student
from benchmarks.methods.entries import CONFIGS, ROOT, TaskName, config_of
from engine.api import prepare
from engine.config import load_config
from engine.errors import RefluxError
from engine.loop import run_loop
from engine.progress import Silent
from engine.rundir import RunDir, read_json, write_atomically, write_json
from engine.runs.manifest import Manifest, check_same
from engine.runs.retention import Part, prune
from engine.server.server import VllmServer
from engine.student_process import WORKER
from engine.task.task import load_task, read_rows
from engine.teacher.endpoint import Endpoint, user_endpoint
from engine.teacher.metrics import ServerGauges, parse_gauges
from engine.teacher.teacher import HttpTeacher

CACHED = "cached.json"
"""In a run's folder: what the server's prefix cache held of its prompts."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One run."""

    task: TaskName
    method: str
    seed: int


@dataclass(frozen=True, slots=True)
class Cached:
    """Tokens of prompts that a run asked the server's prefix cache for, and that were there."""

    queried: int
    hit: int


@asynccontextmanager
async def serve(folder: Path, endpoint: str | None, tell: Callable[[str], None]) -> AsyncGenerator[Endpoint]:
    """A server for all runs; with `endpoint` the one that is there, whose key is in the environment."""
    config = load_config(CONFIGS["classification"]).teacher
    if endpoint is not None:
        yield user_endpoint(endpoint, config.model, os.environ.get(config.api_key_env))
        return
    async with VllmServer(config, run=folder, log=folder / "server.log", on_phase=tell, on_notice=tell) as server:
        os.environ[config.api_key_env] = server.endpoint.api_key or ""
        yield server.endpoint


class Campaign:
    """Runs in `folder`, each of `teacher_tokens`. Another `student` than the worker learns its seed rows by itself."""

    def __init__(self, folder: Path, teacher_tokens: int, endpoint: Endpoint, console: Console, student: tuple[str, ...] = WORKER) -> None:
        self._folder = folder
        self._tokens = teacher_tokens
        self._endpoint = endpoint
        self._console = console
        self._student = student
        self._settings = {"teacher.endpoint": endpoint.base_url}
        self._seed_students: dict[tuple[TaskName, int], asyncio.Lock] = {}

    async def carry_out(self, pieces: Sequence[Piece], jobs: int) -> list[str]:
        """What went wrong; where one run fails the others go on."""
        failures: list[str] = []
        waiting = iter(pieces)
        async with asyncio.TaskGroup() as group:
            for _ in range(jobs):
                group.create_task(self._work(waiting, jobs == 1, failures))
        return failures

    async def _work(self, waiting: Iterator[Piece], is_alone: bool, failures: list[str]) -> None:
        for piece in waiting:
            run = place(self._folder, piece)
            started = time.perf_counter()
            try:
                if finished(self._folder, piece, self._tokens) is not None:
                    continue
                await self._run(piece, run, is_alone)
            except RefluxError as error:
                failures.append(f"{run.root.name}: {error}")
                told = failures[-1]
            else:
                told = f"{run.root.name}: {time.perf_counter() - started:.0f} s"
            self._console.print(f"{time.strftime('%H:%M:%S')} {told}", highlight=False, markup=False)

    async def _run(self, piece: Piece, run: RunDir, is_alone: bool) -> None:
        pool = await asyncio.to_thread(self._pool, piece)
        config = config_of(piece.method, piece.task, piece.seed, self._tokens, pool, self._settings)
        if self._student == WORKER:
            await self._give_seed_student(piece, run)
        spec = await asyncio.to_thread(prepare, config)
        before = await self._gauges() if is_alone else None
        await run_loop(config, spec, run, Silent(), self._student)
        if before is not None and (after := await self._gauges()) is not None:
            queried = after.prefix_cache_queries - before.prefix_cache_queries
            write_json(run.root / CACHED, Cached(queried, after.prefix_cache_hits - before.prefix_cache_hits))
        await asyncio.to_thread(prune, run, [part for part in Part if part is not Part.CHECKPOINTS])

    async def _give_seed_student(self, piece: Piece, run: RunDir) -> None:
        first = RunDir(self._folder / f"{piece.task}-seed-{piece.seed}")
        async with self._seed_students.setdefault((piece.task, piece.seed), asyncio.Lock()):
            await seed_student.make(config_of("pgkd", piece.task, piece.seed, self._tokens, more=self._settings), first)
        await asyncio.to_thread(seed_student.give, first, run)

    def _pool(self, piece: Piece) -> Path | None:
        """The seed split but for the rows that this seed draws, as texts without labels."""
        if piece.method != "pool":
            return None
        config = config_of("seed_only", piece.task, piece.seed, self._tokens).task
        drawn = {row.text for row in load_task(config, piece.seed).seed}
        path = pool_path(self._folder, piece)
        texts = [{"text": row.text} for row in read_rows(config, config.data.seed) if row.text not in drawn]
        write_atomically(path, msgspec.json.Encoder().encode_lines(texts))
        return path

    async def _gauges(self) -> ServerGauges | None:
        async with HttpTeacher(self._endpoint, timeout_s=30, stall_s=30) as teacher:
            return None if (text := await teacher.metrics()) is None else parse_gauges(text)


def place(folder: Path, piece: Piece) -> RunDir:
    return RunDir(folder / f"{piece.task}-{piece.method}-{piece.seed}")


def pool_path(folder: Path, piece: Piece) -> Path:
    return folder / f"{piece.task}-pool-{piece.seed}.jsonl"


def finished(folder: Path, piece: Piece, teacher_tokens: int) -> RunDir | None:
    """Its run, if that is finished. UserError where it was of other settings, and so is not one of this comparison."""
    run = place(folder, piece)
    if not run.summary.exists():
        return None
    pool = pool_path(folder, piece) if piece.method == "pool" else None
    check_same(run, read_json(run.run_json, Manifest), config_of(piece.method, piece.task, piece.seed, teacher_tokens, pool))
    return run


def in_order(tasks: Sequence[TaskName], methods: Callable[[TaskName], Sequence[str]], seeds: Sequence[int]) -> list[Piece]:
    """Seed by seed, then task by task."""
    return [Piece(task, method, seed) for seed in seeds for task in tasks for method in methods(task)]


DEFAULT_FOLDER = ROOT / "runs" / "methods"
