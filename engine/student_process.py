"""The student worker as seen from the engine: a subprocess that is started, watched and stopped. They meet in the run directory only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeVar

from engine import tether
from engine.errors import StoreError, StudentError, UserError
from engine.reports import FinalReport, WeaknessReport
from engine.rundir import RunDir, read_json

T = TypeVar("T", WeaknessReport, FinalReport)

POLL_S = 0.05
"""Between two looks for a file of the student."""
STOP_TIMEOUT_S = 10.0
LAST_LINES = 15
WORKER = (sys.executable, "-m", "student")


class StudentProcess:
    """Starts the worker on entering, ends it on leaving; whatever it has checkpointed stays for the next one."""

    def __init__(self, run: RunDir, program: tuple[str, ...] = WORKER) -> None:
        self._run = run
        self._program = program
        self._log = run.logs / "student.log"
        self._log_start = 0
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> StudentProcess:
        with self._open_log() as log:
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", tether.__file__, str(os.getpid())),
                *self._program,
                str(self._run.root),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

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

    async def report(self, round: int) -> WeaknessReport:
        """Waits for the report of a round; StudentError (or UserError) if the worker ends without it."""
        return await self._wait_for(self._run.report(round), WeaknessReport)

    async def final_report(self) -> FinalReport:
        return await self._wait_for(self._run.final_report, FinalReport)

    async def _wait_for(self, path: Path, kind: type[T]) -> T:
        exists = path.exists  # one stat, a few microseconds; a thread for it would take longer
        while not exists():
            if self._process.returncode is not None and not exists():
                raise self._obituary(self._process.returncode)
            await asyncio.sleep(POLL_S)
        return await asyncio.to_thread(read_json, path, kind)

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
