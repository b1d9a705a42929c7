"""Tells everybody how a run stands while it goes on: a fresh Status twice a second, and status.json once a second.

Invariants: a Status is made in the event loop, so a heartbeat means that the loop turns; it is written in a thread of its own, so that a
slow disk holds up nothing, and one that takes no more only ends the writing until it does. The last word is written before the block is
left.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from engine.config import RunConfig
from engine.cost.meter import CostMeter
from engine.progress import Progress
from engine.records import Finish
from engine.rundir import RunDir, read_json
from engine.status import Stage, Status, write_status
from engine.watching.scoreboard import Scoreboard, open_scoreboard

PUBLISH_S = 0.5
WRITE_S = 1.0
LAST_WORD_S = 5.0
"""That a disk has for the last status, before it is left behind."""


@asynccontextmanager
async def keep_status(run: RunDir, config: RunConfig, progress: Progress, wall_s: float = 0.0) -> AsyncGenerator[Scoreboard]:
    """Inside the block all is told to the Scoreboard, which passes it on to `progress`. `wall_s`: that earlier processes worked."""
    board = await asyncio.to_thread(open_scoreboard, run, config, wall_s, progress)
    meter = board.meter = await asyncio.to_thread(CostMeter, run, config)
    heart = _Heart(board, run.status)
    progress.follow(heart.latest)
    heart.start()
    meter.start()
    try:
        yield board
    except BaseException as error:
        await heart.stop(Stage.STOPPED, _words(error))
        raise
    else:
        await heart.stop(Stage.FINISHED, read_json(run.finish, Finish).reason)


class _Heart:
    """Asks the scoreboard, and keeps what it said last."""

    def __init__(self, board: Scoreboard, path: Path) -> None:
        self._board = board
        self._latest = board.status()
        self._writer = _Writer(path, self.latest)
        self._timer: asyncio.TimerHandle | None = None
        self._is_writing = True

    def latest(self) -> Status:
        return self._latest

    def start(self) -> None:
        self._writer.start()
        self._beat()

    async def stop(self, stage: Stage, phase: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._board.meter is not None:
            await asyncio.to_thread(self._board.meter.stop)
        self._latest = self._board.status(stage, phase)
        self._writer.is_over.set()
        await asyncio.to_thread(self._writer.join, LAST_WORD_S)

    def _beat(self) -> None:
        self._latest = self._board.status()
        if self._is_writing != (self._writer.error is None):
            self._is_writing = not self._is_writing
            reason = "is written again" if self._is_writing else f"cannot be written ({self._writer.error}); the run goes on"
            self._board.notice(f"status.json {reason}")
        self._timer = asyncio.get_running_loop().call_later(PUBLISH_S, self._beat)


class _Writer(threading.Thread):
    """A daemon, for a disk that hangs must not keep the process from ending."""

    def __init__(self, path: Path, latest: Callable[[], Status]) -> None:
        super().__init__(name="status", daemon=True)
        self._path = path
        self._latest = latest
        self.is_over = threading.Event()
        self.error: str | None = None
        """Why the last one could not be written."""

    def run(self) -> None:
        while not self.is_over.is_set():
            self._write()
            self.is_over.wait(WRITE_S)
        self._write()

    def _write(self) -> None:
        try:
            write_status(self._path, self._latest())
            self.error = None
        except OSError as error:
            self.error = error.strerror or str(error)


def _words(error: BaseException) -> str:
    """Why a run has stopped."""
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return "stopped by the user"
    return next(iter(str(error).splitlines()), "") or type(error).__name__
