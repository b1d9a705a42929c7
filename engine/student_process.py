"""The student worker as seen from the engine: a subprocess that is started, watched and stopped. They meet in the run directory only.

A worker that is killed, as by a kernel short of memory, is started again, and goes on from its checkpoint; after MAX_RESTARTS in a row that
brought no report it is not. One that ends with an error has said why, and would say so again.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeVar

from engine.errors import StoreError, StudentError, UserError
from engine.reports import FinalReport, WeaknessReport
from engine.rundir import RunDir, read_json
from engine.server.tether import tethered

T = TypeVar("T", WeaknessReport, FinalReport)

POLL_S = 0.05
"""Between two looks for a file of the student."""
STOP_TIMEOUT_S = 10.0
MAX_RESTARTS = 3
LAST_LINES = 15
WORKER = (sys.executable, "-m", "student")


class StudentProcess:
    """Starts the worker on entering, ends it on leaving; whatever it has checkpointed stays for the next one."""

    def __init__(
        self,
        run: RunDir,
        program: tuple[str, ...] = WORKER,
        cores: Sequence[int] = (),
        on_restart: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`cores`: logical processors that it may use; none restrict it to none. `on_restart` is told why."""
        self._run = run
        self._program = program
        self._cores = cores
        self._on_restart = on_restart
        self._fruitless = 0
        """Restarts since the last report."""
        self._log = run.logs / "student.log"
        self._log_start = 0
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> StudentProcess:
        await self._start()
        return self

    async def _start(self) -> None:
        with self._open_log() as log:
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *tethered((*self._program, str(self._run.root)), self._cores),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _open_log(self) -> BinaryIO:
        try:
            return self._log.open("ab")
        except OSError as error:
            raise StoreError(f"cannot write {self._log}: {error.strerror}") from error

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.shield(self._stop())

    @property
    def pid(self) -> int:
        return self._process.pid

    async def report_after(self, round: int) -> WeaknessReport:
        """Waits for the next report behind that of a round (-1: for the first); StudentError, or UserError, if the worker ends without."""

        def find() -> Path | None:
            # Looked for in a folder of some files, which takes some microseconds; a thread for it would take longer.
            return next((self._run.report(number) for number in self._run.reported_rounds() if number > round), None)

        return await self._wait_for(find, WeaknessReport)

    async def final_report(self) -> FinalReport:
        path = self._run.final_report
        return await self._wait_for(lambda: path if path.exists() else None, FinalReport)

    async def _wait_for(self, find: Callable[[], Path | None], kind: type[T]) -> T:
        while (path := find()) is None:
            if (status := self._process.returncode) is not None and find() is None:
                await self._restart(status)
            await asyncio.sleep(POLL_S)
        self._fruitless = 0
        return await asyncio.to_thread(read_json, path, kind)

    async def _restart(self, status: int) -> None:
        if status != -signal.SIGKILL or self._fruitless == MAX_RESTARTS:
            raise self._obituary(status)
        self._fruitless += 1
        self._on_restart("the student worker was killed (by SIGKILL, perhaps because memory ran out); it is started again")
        await self._start()

    def _obituary(self, status: int) -> Exception:
        lines = self._last_lines()
        if status == UserError.exit_status and lines:
            return UserError(lines[-1].removeprefix("error: "))
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        words = "\n".join(f"    {line}" for line in lines)
        return StudentError(f"the student worker ended ({how}); its log {self._log} ends with:\n{words}")

    def _last_lines(self) -> list[str]:
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()][-LAST_LINES:]

    async def _stop(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
