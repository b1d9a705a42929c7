"""The teacher's answers, on disk before anybody acts on them.

Invariants: `append` returns only after its record is synced, and a record once synced is read back by every later open, until its file is
dropped because the calls table holds it. A file is only ever written by the process that began it, so what a kill tore is never appended
to.

A record is the payload's length and a checksum (both little-endian, 4 bytes) and the payload. Reading stops at the first record that is not
whole: nothing behind it can have been acknowledged. The checksum covers the length too, so that a tail of zeros, which some file systems
leave after a power cut, is no empty record.
"""

from __future__ import annotations

import asyncio
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from engine.errors import StoreError
from engine.records import Completion, Failure, Outcome
from engine.rundir import sync_folder
from engine.store.text import escape, unescape

P = ParamSpec("P")
T = TypeVar("T")

_LENGTH = struct.Struct("<I")
_HEADER = struct.Struct("<II")
_NAME = re.compile(r"\d{6,}\.log")


class _Completed(msgspec.Struct, tag="completed"):
    outcome: Completion


class _Failed(msgspec.Struct, tag="failed"):
    outcome: Failure


_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[_Completed | _Failed] = msgspec.msgpack.Decoder(_Completed | _Failed)


def encode_record(outcome: Outcome) -> bytes:
    match outcome:
        case Completion():
            payload = _ENCODER.encode(_Completed(replace(outcome, text=escape(outcome.text))))
        case Failure():
            payload = _ENCODER.encode(_Failed(replace(outcome, detail=escape(outcome.detail))))
    return _HEADER.pack(len(payload), _checksum(payload)) + payload


def decode_records(data: bytes) -> list[Outcome]:
    """Every whole record up to the first that is not."""
    outcomes: list[Outcome] = []
    position = 0
    while len(data) - position >= _HEADER.size:
        length, checksum = _HEADER.unpack_from(data, position)
        payload = data[position + _HEADER.size : position + _HEADER.size + length]
        if len(payload) != length or _checksum(payload) != checksum:
            break
        outcomes.append(_decode(payload))
        position += _HEADER.size + length
    return outcomes


def _decode(payload: bytes) -> Outcome:
    outcome = _DECODER.decode(payload).outcome
    match outcome:
        case Completion():
            return replace(outcome, text=unescape(outcome.text))
        case Failure():
            return replace(outcome, detail=unescape(outcome.detail))


def _checksum(payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_LENGTH.pack(len(payload))))


@dataclass(frozen=True, slots=True)
class _Waiting:
    outcome: Outcome
    synced: asyncio.Future[None]


class Journal:
    """Opening it reads what earlier processes left (blocking: call it in a thread) and begins a new file.

    Appends are grouped: while one group is written and synced, the next gathers. The group is bounded by the callers, since each waits
    for its record. A disk that refuses once is not trusted again: everyone in that group, and everyone after, gets the StoreError.
    """

    def __init__(self, folder: Path, is_sealed: Callable[[str], bool]) -> None:
        """`is_sealed` says whether the calls table holds the answer to a request id; it is asked from another thread than the loop's."""
        self.answers: dict[str, Outcome] = {}
        """What was found on opening, by request id; of two answers to one request the first, which was acted on."""
        self._folder = folder
        self._is_sealed = is_sealed
        self._request_ids: dict[Path, set[str]] = {}
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        # All that touches the file runs here one after another, even if whoever asked for it is cancelled meanwhile.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        for path in self._files():
            outcomes = _read(path)
            self._request_ids[path] = {outcome.request_id for outcome in outcomes}
            for outcome in outcomes:
                self.answers.setdefault(outcome.request_id, outcome)
        try:
            self._begin_file()
        except OSError as error:
            raise self._cannot_write(error) from error

    async def append(self, outcome: Outcome) -> None:
        """Returns when the answer is on disk. When cancelled, it may be there or not."""
        waiting = _Waiting(outcome, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_groups())
        await waiting.synced

    async def rotate(self) -> None:
        """Go on in a new file, and delete earlier ones in which every answer is sealed. A file with one that is not stays whole."""
        await self._in_order(self._rotate)

    async def close(self) -> None:
        if self._writer is not None:
            await asyncio.wait([self._writer])
        await asyncio.to_thread(self._thread.shutdown)
        self._file.close()

    async def _write_groups(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            if self._failure is None:
                # Whatever it was is raised where the answer was appended; nobody waits for ever.
                with suppress(Exception):
                    await self._in_order(self._write, [waiting.outcome for waiting in group])
            for waiting in group:
                if waiting.synced.done():  # its caller was cancelled
                    continue
                if self._failure is None:
                    waiting.synced.set_result(None)
                else:
                    waiting.synced.set_exception(self._failure)

    async def _in_order(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args, **kwargs))
        except Exception as error:
            self._failure = self._cannot_write(error) if isinstance(error, OSError) else error
            raise self._failure from error

    def _cannot_write(self, error: OSError) -> StoreError:
        return StoreError(f"cannot write the journal {self._folder}: {error.strerror}")

    def _write(self, outcomes: Iterable[Outcome]) -> None:
        self._request_ids[self._path].update(outcome.request_id for outcome in outcomes)
        content = memoryview(b"".join(encode_record(outcome) for outcome in outcomes))
        while content:
            content = content[self._file.write(content) :]
        os.fsync(self._file.fileno())

    def _rotate(self) -> None:
        full = self._file
        self._begin_file()
        full.close()

    def _begin_file(self) -> None:
        last = self._files()[-1:]
        path = self._folder / f"{int(last[0].stem) + 1 if last else 1:06d}.log"
        file = path.open("xb", buffering=0)
        try:
            self._drop_sealed()
            sync_folder(self._folder)
        except BaseException:
            file.close()
            raise
        self._file, self._path = file, path
        self._request_ids[path] = set()

    def _drop_sealed(self) -> None:
        for earlier, request_ids in list(self._request_ids.items()):
            if all(map(self._is_sealed, request_ids)):
                earlier.unlink()
                del self._request_ids[earlier]

    def _files(self) -> list[Path]:
        try:
            return sorted((path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)), key=lambda path: int(path.stem))
        except OSError as error:
            raise StoreError(f"cannot read the journal {self._folder}: {error.strerror}") from error


def _read(path: Path) -> list[Outcome]:
    try:
        with path.open("rb") as file:
            # Its writer may have died between write and sync; what is replayed is acted on, so it has to be on disk.
            os.fsync(file.fileno())
            return decode_records(file.read())
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise StoreError(f"{path} was written by another version of Reflux, which alone can resume this run: {error}") from error
