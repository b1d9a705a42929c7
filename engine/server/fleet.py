"""The servers of a run, each as a lane: one of our own that is brought back when it dies, or those that the user names.

A fleet is the servers of one teacher. Where a run has several, the first has the others beside it; each is its own, so that two servers of
ours are started one after the other (the second sees what memory the first has left) and brought back one by one.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from engine.config import EngineConfig, TeacherConfig
from engine.errors import UserError
from engine.machine.cores import CoreShares
from engine.progress import Progress
from engine.rundir import RunDir
from engine.server.revision import find_revision
from engine.server.server import VllmServer
from engine.server.supervisor import Supervisor
from engine.teacher.batcher import Batcher
from engine.teacher.concurrency import ConcurrencyController
from engine.teacher.discovery import find_models
from engine.teacher.endpoint import Endpoint, configured_endpoints
from engine.teacher.lane import Lane
from engine.teacher.switchboard import Switchboard
from engine.teacher.teacher import HttpTeacher

NoteServer = Callable[[dict[str, Any]], None]
"""Puts down how a server was started, or where it was found, with the run."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Servers of one teacher that answer, by the time they were looked at."""

    lanes: tuple[Lane, ...]
    model: str
    """The teacher's name in requests and tables."""
    _server: VllmServer | None
    _stall_timeout_s: float
    _progress: Progress
    _note: NoteServer
    others: tuple[Fleet, ...] = ()
    """Of the run's other teachers, in the order of the configuration."""

    @property
    def all(self) -> tuple[Fleet, ...]:
        return (self, *self.others)

    @property
    def all_lanes(self) -> tuple[Lane, ...]:
        return tuple(lane for fleet in self.all for lane in fleet.lanes)

    async def watch(self, batcher: Batcher | Switchboard) -> None:
        """Runs beside the work; ServerError when a server of ours is beyond help. Those of the user are not ours to mend."""
        if not self.others:
            return await self._watch(batcher)
        async with asyncio.TaskGroup() as group:
            for fleet in self.all:
                group.create_task(fleet._watch(batcher))
        return None

    async def _watch(self, batcher: Batcher | Switchboard) -> None:
        if self._server is None:
            return
        (lane,) = self.lanes

        def down(_reason: str) -> None:
            batcher.suspend(lane)

        def up(endpoint: Endpoint) -> None:
            assert isinstance(lane.teacher, HttpTeacher)
            lane.teacher.move_to(endpoint)
            self._note({"restart": asdict(supervisor.history[-1])})
            batcher.resume(lane)

        supervisor = Supervisor(
            self._server,
            stall_timeout_s=self._stall_timeout_s,
            answered=lambda: lane.completed,
            in_flight=lambda: lane.in_flight,
            on_down=down,
            on_up=up,
            on_notice=self._progress.notice,
        )
        await supervisor.watch()


@asynccontextmanager
async def open_fleet(
    config: TeacherConfig,
    engine: EngineConfig,
    run: RunDir,
    progress: Progress,
    note: NoteServer,
    others: Sequence[TeacherConfig] = (),
    cores: CoreShares | None = None,
) -> AsyncGenerator[Fleet]:
    """Starts or finds the servers, also those of other teachers; inside the block they can be asked. `cores` as of VllmServer."""
    _allow_connections()
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(_open(config, engine, run, progress, note, "server.log", cores))
        for number, other in enumerate(others, start=2):

            def note_other(server: dict[str, Any], other: TeacherConfig = other) -> None:
                # Apart from the first teacher's, whose revision is the run's.
                note({"other_teacher": other.model, **{name: value for name, value in server.items() if name != "revision"}})

            opened = await stack.enter_async_context(_open(other, engine, run, progress, note_other, f"server-{number}.log", cores))
            if opened.model in [known.model for known in fleet.all]:
                raise UserError(f"two teachers are called {opened.model!r} by their servers; a run tells its teachers apart by that name")
            fleet = replace(fleet, others=(*fleet.others, opened))
        yield fleet


@asynccontextmanager
async def _open(
    config: TeacherConfig, engine: EngineConfig, run: RunDir, progress: Progress, note: NoteServer, log: str, cores: CoreShares | None
) -> AsyncGenerator[Fleet]:
    async with AsyncExitStack() as stack:
        if config.endpoints:
            server = None
            progress.phase(f"looking for {', '.join(config.endpoints)}")
            endpoints = await find_models(configured_endpoints(config), progress.notice)
            for endpoint in endpoints:
                note({"endpoint": endpoint.base_url, "model": endpoint.model})
        else:
            server = await stack.enter_async_context(_start(config, run, progress, note, log, cores))
            endpoints = [server.endpoint]
        lanes: list[Lane] = []
        for endpoint in endpoints:
            teacher = await stack.enter_async_context(
                HttpTeacher(endpoint, timeout_s=engine.request_timeout_s, stall_s=engine.stall_timeout_s)
            )
            controller = _controller(engine.concurrency, server)
            lanes.append(Lane(teacher, controller, name=endpoint.base_url, is_supervised=server is not None))
        yield Fleet(tuple(lanes), endpoints[0].model, server, config.stall_timeout_s, progress, note)


@asynccontextmanager
async def _start(
    config: TeacherConfig, run: RunDir, progress: Progress, note: NoteServer, log: str, cores: CoreShares | None
) -> AsyncGenerator[VllmServer]:
    def show(phase: str) -> None:
        progress.phase(f"vLLM: {phase}")

    async with VllmServer(config, run=run.root, log=run.logs / log, on_phase=show, on_notice=progress.notice, cores=cores) as server:
        launch = server.launch
        note(
            {
                "command": launch.command,
                "environment": launch.environment,
                "device": launch.device,
                "start_s": round(server.start_s, 1),
                "revision": await asyncio.to_thread(find_revision, config),
            }
        )
        yield server


def _allow_connections() -> None:
    """Each request in flight is an open file, and many systems grant 1,024 unless asked for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _controller(concurrency: int | None, server: VllmServer | None) -> ConcurrencyController:
    if concurrency is not None:
        return ConcurrencyController.fixed(concurrency)
    if server is None:
        return ConcurrencyController()
    flag = server.launch.flag("--max-num-seqs")
    return ConcurrencyController.of_own_server(int(flag) if flag is not None and flag.isdecimal() else None)
