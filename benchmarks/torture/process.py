"""A process to torture: started by a fork of one that has imported all it needs, watched and killed from the event loop."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

from benchmarks.torture import subject

_CHUNK_BYTES = 1 << 16


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*subject.PRELOADED])
    return context


class Drain:
    """The read end of a pipe, emptied as it fills, until all writers are gone."""

    def __init__(self, line_came: Callable[[str], None]) -> None:
        self._reader, self.writer = _context().Pipe(duplex=False)
        os.set_blocking(self._reader.fileno(), False)
        self._line_came = line_came
        self._rest = b""
        self._closed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._reader.fileno(), self._read)

    async def closed(self) -> None:
        """Returns when all that was written has been read."""
        await self._closed.wait()

    def _read(self) -> None:
        data = os.read(self._reader.fileno(), _CHUNK_BYTES)
        if not data:
            asyncio.get_running_loop().remove_reader(self._reader.fileno())
            self._reader.close()
            if self._rest:
                self._line_came(self._rest.decode(errors="replace"))
            self._closed.set()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line_came(line.decode(errors="replace"))


class Subject:
    """A process that runs `target(*arguments)`. Whoever starts one waits for its end, or kills it."""

    def __init__(self, target: Callable[..., None], *arguments: Any, writers: tuple[Connection, ...] = ()) -> None:
        """`writers` are the ends of pipes that are its alone: closed here once it has them."""
        self._process = _context().Process(target=target, args=arguments, daemon=True)
        self._process.start()
        for writer in writers:
            writer.close()
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._process.sentinel, self._end)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return not self._ended.is_set()

    def send(self, number: signal.Signals) -> None:
        if self.is_running:
            with suppress(ProcessLookupError):  # it has ended, and we are told of that only next
                os.kill(self.pid, number)

    async def wait(self) -> int:
        """Its exit status; below zero, the signal that killed it."""
        await self._ended.wait()
        assert self._process.exitcode is not None
        return self._process.exitcode

    async def kill(self) -> int:
        self.send(signal.SIGKILL)
        return await self.wait()

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._process.join()
        self._ended.set()
