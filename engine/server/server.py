"""The life of the teacher's server: vLLM as a subprocess that never outlives its run.

Invariants: inside `async with VllmServer(…)` the server answers, or `check`, `ended` and `watch` say that it died. `restart` brings it
back; when to do so is decided elsewhere (`supervisor`). Never do two servers of one VllmServer run, and when the block is left, in any way,
none does. Should this process be killed outright, the kernel ends the server (`tether`); what escapes even that is found by its mark at the
next start (`orphans`).

The log is read for people only: to show a phase, or the last words of a server that failed. What decides is the process, and what it
answers.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from engine.config import TeacherConfig
from engine.errors import PreflightError, ServerError, UserError
from engine.machine.cores import CoreShares
from engine.server.launch import VLLM, Device, Launch, check_gpus, check_model, choose_port, installed_device, plan_launch
from engine.server.orphans import MARK, Owner, end_orphan, end_session, find_orphans
from engine.server.tether import tethered
from engine.teacher.discovery import read_models
from engine.teacher.endpoint import Endpoint
from engine.teacher.http import HttpClient, HttpError, Limits

PROBE_S = 0.2
"""Between two looks at a server that starts."""
PROBE_TIMEOUT_S = 5.0
"""For its answer to one."""
STOP_TIMEOUT_S = 15.0
"""For a server to end by itself when asked; then its processes are killed. vLLM needs 2 to 3 s."""
SHORT_STOP_TIMEOUT_S = 2.0
"""For processes with nothing to finish: of a server that never came up (vLLM may then wait for its own children), whose head is gone, or
that is started again."""
GPU_PATIENCE_S = 5.0
"""For the driver to give back what processes held that ended just now: an orphan, or the server before this start."""
LAST_LINES = 15
LOG_TAIL_BYTES = 256 * 1024

T = TypeVar("T")

_PREFIX = re.compile(r"^(\(\w+[^)]*\) )?((DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ )?(\[[\w.]+:\d+\] ?)?")
_FRAME = re.compile(r"  File \"|    |Traceback|  warnings\.warn|.*(DeprecationWarning|FutureWarning|resource_tracker): ")
_NOISE = re.compile(r"Route: |Available routes are|[\s█▄▀]*$|.*[█▄▀]{2}")
# In the order in which vLLM writes them.
_PHASES = (
    ("non-default args", "reading the model's configuration"),
    ("Initializing a V1 LLM engine", "starting the engine"),
    ("Starting to load model", "loading weights"),
    ("KV cache size", "warming up"),
    ("Starting vLLM server", "opening the port"),
)


@dataclass(slots=True)
class _Life:
    """One start of the server, to its end."""

    process: asyncio.subprocess.Process
    ended: asyncio.Task[int]
    is_stopping: bool = False
    """We ended it, or are about to."""

    @property
    def status(self) -> int | None:
        return self.process.returncode


def ignore(_message: str) -> None:
    """For callbacks nobody listens to."""


class VllmServer:
    """Starts a server on entering, ends it on leaving. Entering raises UserError (nothing was started) or ServerError (it did not come up).

    `run` marks the server as belonging to that run: an orphan of the same run is ended at start, others are only named (`on_notice`).
    """

    def __init__(
        self,
        config: TeacherConfig,
        *,
        run: Path,
        log: Path,
        on_phase: Callable[[str], None] = ignore,
        on_notice: Callable[[str], None] = ignore,
        device: Device | None = None,
        program: tuple[str, ...] = VLLM,
        cores: CoreShares | None = None,
    ) -> None:
        """`cores`: where it computes on processors that the student needs a share of."""
        self.launch: Launch
        """How it was started last; there once the block is entered. For the record of the run."""
        self.endpoint: Endpoint
        """Keeps its key when the server is started again, and its port if that is still free."""
        self.starts_s: list[float] = []
        """Of each start so far: wall clock from process to first answer."""
        self._config = config
        self._log = log
        self._on_phase = on_phase
        self._on_notice = on_notice
        self._device: Device | None = device
        self._program = program
        self._share = cores
        self._owner = Owner.here(run)
        self._life: _Life | None = None
        self._log_start = 0
        self._phase = ""

    async def __aenter__(self) -> VllmServer:
        await asyncio.to_thread(check_model, self._config)
        await self._clear_orphans()  # before the port, which one of them may hold
        self._device = self._device or installed_device()
        self._plan(choose_port(self._config.port), secrets.token_urlsafe(24))
        await self._bring_up()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        is_alive = self._life is not None and self._life.status is None
        await self._stop(STOP_TIMEOUT_S if is_alive else SHORT_STOP_TIMEOUT_S)

    @property
    def start_s(self) -> float:
        """Of the last start."""
        return self.starts_s[-1]

    async def restart(self) -> None:
        """Ends what is left of the server, starts it again and waits until it answers.

        ServerError if it does not come up. Then, and when cancelled, none runs.
        """
        await self._stop(SHORT_STOP_TIMEOUT_S)
        try:
            port = choose_port(self.launch.port)
        except UserError:
            port = choose_port(None)
        self._plan(port, self.endpoint.api_key)
        try:
            await self._bring_up()
        except PreflightError as error:
            raise ServerError(f"the teacher's server cannot be started again: {error}") from error

    def check(self) -> None:
        """ServerError if the server's process has ended by itself."""
        if self._life is not None and self._life.status is not None and not self._life.is_stopping:
            raise ServerError(self._obituary("ended in the middle of the run", _describe(self._life.status)))

    async def ended(self) -> str | None:
        """Waits as long as this start of the server lives; how it ended, in a few words, or None if it was us who ended it."""
        assert self._life is not None
        life = self._life
        status = await asyncio.shield(life.ended)
        return None if life.is_stopping else _describe(status)

    async def watch(self) -> None:
        """Waits as long as this start of the server lives: ServerError if it ends by itself, nothing if we stop it."""
        if (how := await self.ended()) is not None:
            raise ServerError(self._obituary("ended in the middle of the run", how))

    def last_words(self) -> str:
        """The end of the log since the last start, to be put after a sentence about the server's end."""
        lines = meaningful_lines(self._read_log())[-LAST_LINES:]
        return f"; its log {self._log}" + (" ends with:\n" + "\n".join(f"    {line}" for line in lines) if lines else " is empty")

    async def _clear_orphans(self) -> None:
        for orphan in await asyncio.to_thread(find_orphans):
            if orphan.owner.run == self._owner.run:
                self._on_notice(f"{orphan}; ending it")
                await asyncio.to_thread(end_orphan, orphan, SHORT_STOP_TIMEOUT_S)
            else:
                self._on_notice(f"{orphan}; end it with: {orphan.command}")

    def _plan(self, port: int, api_key: str | None) -> None:
        assert self._device is not None
        self._cores = self._share if self._device == "cpu" else None
        self.launch = plan_launch(self._config, device=self._device, port=port, program=self._program, cores=self._cores)
        self.endpoint = Endpoint(self.launch.base_url, self.launch.served_name, api_key)

    async def _bring_up(self) -> None:
        await self._wait_for_gpus()
        started = time.monotonic()
        try:
            life = await self._start()
            await self._wait_until_ready(life)
        except BaseException:
            await self._stop(SHORT_STOP_TIMEOUT_S)
            raise
        self.starts_s.append(time.monotonic() - started)

    async def _wait_for_gpus(self) -> None:
        deadline = time.monotonic() + GPU_PATIENCE_S
        while True:
            try:
                return await asyncio.to_thread(check_gpus, self.launch, os.environ)
            except PreflightError:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(PROBE_S)

    async def _start(self) -> _Life:
        assert self.endpoint.api_key is not None
        environment = self.launch.full_environment(os.environ, self.endpoint.api_key) | {MARK: str(self._owner)}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._log_start, self._phase = log.tell(), ""
            self._on_phase("starting the server")
            # Straight to a file: a pipe that nobody reads for a moment would stop the server.
            process = await asyncio.create_subprocess_exec(
                *tethered(self.launch.command, self._cores.teacher if self._cores else ()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._life = _Life(process, asyncio.create_task(process.wait()))
        return self._life

    async def _wait_until_ready(self, life: _Life) -> None:
        """Patience is counted from the log's last new line, not from the start: large weights may take long, silence may not."""
        size, sign_of_life = self._log_start, time.monotonic()
        async with HttpClient(self.endpoint.root_url, Limits(PROBE_TIMEOUT_S, PROBE_TIMEOUT_S), self.endpoint.authorization) as client:
            while not await self._answers(client):
                await asyncio.wait([life.ended], timeout=PROBE_S)
                if life.ended.done():
                    what = "did not start again" if self.starts_s else "did not start"
                    raise ServerError(self._obituary(what, _describe(life.ended.result())))
                if (now := self._log.stat().st_size) != size:
                    size, sign_of_life = now, time.monotonic()
                    self._show_phase()
                elif time.monotonic() - sign_of_life > self._config.start_timeout_s:
                    silence = f"gave no sign of life for {self._config.start_timeout_s:g} s while starting (teacher.start_timeout_s)"
                    raise ServerError(f"the teacher's server {silence}; it was ended{self.last_words()}")

    async def _answers(self, client: HttpClient) -> bool:
        """Whether it is ours, and ready: it lists our model, and knows our key."""
        try:
            if (await client.get("/health")).status != 200:
                return False
            return self.endpoint.model in (read_models(await client.get("/v1/models")) or ())
        except HttpError:
            return False

    def _show_phase(self) -> None:
        log = self._read_log()
        reached = [phase for sign, phase in _PHASES if sign in log]
        if reached and reached[-1] != self._phase:
            self._phase = reached[-1]
            self._on_phase(self._phase)

    async def _stop(self, timeout_s: float) -> None:
        """Bounded by the time limits within. A server that died may have left its engine's processes behind, so all are looked for."""
        if self._life is not None:
            self._life.is_stopping = True
            await _see_through(self._end(self._life, timeout_s))

    async def _end(self, life: _Life, timeout_s: float) -> None:
        await asyncio.to_thread(end_session, self._owner, life.process.pid, timeout_s)
        await life.ended

    def _obituary(self, what: str, how: str) -> str:
        return f"the teacher's server {what} ({how}){self.last_words()}"

    def _read_log(self) -> str:
        """The end of what this server wrote, not one before it."""
        with self._log.open("rb") as file:
            file.seek(max(self._log_start, self._log.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")


def _describe(status: int) -> str:
    """How a process ended, in a few words."""
    if status == -signal.SIGKILL:
        return "killed by SIGKILL, perhaps because memory ran out"
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def meaningful_lines(log: str) -> list[str]:
    """A log without stack frames, banner, routes and repetitions: errors, and what led to them."""
    lines: list[str] = []
    for raw in re.split(r"[\r\n]+", log):
        line = _PREFIX.sub("", raw)
        if not _FRAME.match(line) and not _NOISE.match(line) and line.strip() not in lines[-LAST_LINES:]:
            lines.append(line.strip())
    return lines


async def _see_through(work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work` to its end even when cancelled meanwhile, and again; then raises the cancellation."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()
