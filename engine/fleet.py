"""The servers of a run, each as a lane: one of our own that is brought back when it dies, or those that the user names."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from engine.batcher import Batcher
from engine.concurrency import ConcurrencyController
from engine.config import EngineConfig, TeacherConfig
from engine.discovery import find_models
from engine.endpoint import Endpoint, configured_endpoints
from engine.lane import Lane
from engine.progress import Progress
from engine.revision import find_revision
from engine.rundir import RunDir
from engine.server import VllmServer
from engine.supervisor import Supervisor
from engine.teacher import HttpTeacher

NoteServer = Callable[[dict[str, Any]], None]
"""Puts down how a server was started, or where it was found, with the run."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Servers that answer, by the time they were looked at."""

    lanes: tuple[Lane, ...]
    model: str
    """The teacher's name in requests and tables."""
    _server: VllmServer | None
    _stall_timeout_s: float
    _progress: Progress
    _note: NoteServer

    async def watch(self, batcher: Batcher) -> None:
        """Runs beside the work; ServerError when a server of ours is beyond help. Those of the user are not ours to mend."""
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
    config: TeacherConfig, engine: EngineConfig, run: RunDir, progress: Progress, note: NoteServer
) -> AsyncGenerator[Fleet]:
    """Starts or finds the servers; inside the block they can be asked."""
    _allow_connections()
    async with AsyncExitStack() as stack:
        if config.endpoints:
            server = None
            progress.phase(f"looking for {', '.join(config.endpoints)}")
            endpoints = await find_models(configured_endpoints(config), progress.notice)
            for endpoint in endpoints:
                note({"endpoint": endpoint.base_url, "model": endpoint.model})
        else:
            server = await stack.enter_async_context(_start(config, run, progress, note))
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
async def _start(config: TeacherConfig, run: RunDir, progress: Progress, note: NoteServer) -> AsyncGenerator[VllmServer]:
    def show(phase: str) -> None:
        progress.phase(f"vLLM: {phase}")

    async with VllmServer(config, run=run.root, log=run.logs / "server.log", on_phase=show, on_notice=progress.notice) as server:
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
