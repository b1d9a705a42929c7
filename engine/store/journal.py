"""The teacher's answers, on disk before anybody acts on them.

Invariants: `append` returns only after its record is synced, and a record once synced is read back by every later open, until its file is
dropped because the calls table holds all that is in it. A file is only ever written by the process that began it, so what a kill tore is
never appended to. A file that is full is followed by the next, so that dropped files keep the journal short however long a round is.

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
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import msgspec

from engine.errors import StoreError
from engine.records import Alternative, Completion, Failure, FailureReason, FinishReason, Outcome, Timings, Usage
from engine.rundir import sync_folder
from engine.store.text import escape, unescape

P = ParamSpec("P")
T = TypeVar("T")

GATHER_S = 0.01
"""How long a group gathers at most before it is written. A sync costs 0.2 ms of processor time: at thousands of answers a second,
groups of the few that come while the last one is synced would cost more than all else that is done with an answer."""
QUIET_S = 0.002
"""Without a new answer for so long it is written at once: who could add to it may all be waiting for it."""
GROUP_RECORDS = 256
"""As many make a group at once, and no more: while one is synced, what came of the last is worked on, and neither waits."""
MAX_FILE_BYTES = 16 * 2**20
"""A file that has reached this is full. Smaller ones are dropped sooner, and cost more folder syncs."""

_HEADER = struct.Struct("<II")
_NAME = re.compile(r"\d{6,}\.log")


class _Completed(msgspec.Struct, tag="completed", array_like=True):
    """A Completion laid flat, which is three times as fast to encode."""

    request_id: str
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    started_at: float
    latency_s: float
    attempts: int
    logprobs: tuple[tuple[Alternative, ...], ...] = ()
    """Last, and with a default: records from before there were any are read as they stand."""


class _Failed(msgspec.Struct, tag="failed", array_like=True):
    request_id: str
    reason: FailureReason
    detail: str
    started_at: float
    latency_s: float
    attempts: int


_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[_Completed | _Failed] = msgspec.msgpack.Decoder(_Completed | _Failed)


def encode_record(outcome: Outcome) -> bytes:
    timings = outcome.timings
    moments = timings.started_at, timings.latency_s, timings.attempts
    match outcome:
        case Completion(usage=usage):
            logprobs = outcome.logprobs and tuple(
                tuple(Alternative(escape(token), logprob) for token, logprob in place) for place in outcome.logprobs
            )
            record = _Completed(
                outcome.request_id,
                escape(outcome.text),
                outcome.finish_reason,
                usage.prompt_tokens,
                usage.completion_tokens,
                *moments,
                logprobs,
            )
        case Failure():
            record = _Failed(outcome.request_id, outcome.reason, escape(outcome.detail), *moments)
    payload = _ENCODER.encode(record)
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
    record = _DECODER.decode(payload)
    timings = Timings(record.started_at, record.latency_s, record.attempts)
    match record:
        case _Completed():
            usage = Usage(record.prompt_tokens, record.completion_tokens)
            logprobs = record.logprobs and tuple(
                tuple(Alternative(unescape(token), logprob) for token, logprob in place) for place in record.logprobs
            )
            return Completion(record.request_id, unescape(record.text), record.finish_reason, usage, timings, logprobs)
        case _Failed():
            return Failure(record.request_id, record.reason, unescape(record.detail), timings)


def _checksum(payload: bytes) -> int:
    return zlib.crc32(payload, len(payload) ^ 0xFFFFFFFF)


class _Waiting(NamedTuple):
    outcome: Outcome
    synced: asyncio.Future[None]


class Journal:
    """Opening it reads what earlier processes left (blocking: call it in a thread) and begins a new file.

    Appends are grouped: those of a few milliseconds, and while one group is written and synced, the next gathers. The group is bounded by
    the callers, since each waits for its record. A disk that refuses once is not trusted again: everyone in that group, and everyone
    after, gets the StoreError.
    """

    def __init__(self, folder: Path, is_committed: Callable[[str], bool]) -> None:
        """`is_committed` says whether the calls table holds the answer to a request id."""
        self.answers: dict[str, Outcome] = {}
        """What was found on opening and is not committed, by request id; of two answers to one request the first, which was acted on."""
        self._folder = folder
        self._holders: dict[str, Path] = {}
        """The file that has the answer to a request, while that is not committed."""
        self._num_held: Counter[Path] = Counter()
        """Such answers of each file."""
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        # All that touches the files runs here one after another, even if whoever asked for it is cancelled meanwhile.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        for path in self._files():
            self._num_held[path] = 0
            for outcome in _read(path):
                if not is_committed(outcome.request_id):
                    self.answers.setdefault(outcome.request_id, outcome)
                    self._hold(outcome.request_id, path)
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

    def release(self, request_ids: Sequence[str]) -> None:
        """The answers to these are committed, and files that hold no other may go. Returns at once, from any thread."""
        self._thread.submit(self._guarded, self._release, request_ids)

    async def rotate(self) -> None:
        """Go on in a new file, and delete earlier ones in which every answer is committed. A file with one that is not stays whole."""
        await self._in_order(self._rotate)

    async def close(self) -> None:
        if self._writer is not None:
            await asyncio.wait([self._writer])
        await asyncio.to_thread(self._thread.shutdown)
        self._file.close()

    async def _write_groups(self) -> None:
        while self._waiting:
            await self._gather()
            group, self._waiting = self._waiting[:GROUP_RECORDS], self._waiting[GROUP_RECORDS:]
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

    async def _gather(self) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + GATHER_S
        count = 0
        while count != len(self._waiting) < GROUP_RECORDS and clock() < deadline:
            count = len(self._waiting)
            await asyncio.sleep(QUIET_S)

    async def _in_order(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: self._guarded(function, *args, **kwargs))

    def _guarded(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            self._failure = self._cannot_write(error) if isinstance(error, OSError) else error
            raise self._failure from error

    def _cannot_write(self, error: OSError) -> StoreError:
        return StoreError(f"cannot write the journal {self._folder}: {error.strerror}")

    def _write(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self._hold(outcome.request_id, self._path)
        content = memoryview(b"".join(map(encode_record, outcomes)))
        self._size += len(content)
        while content:
            content = content[self._file.write(content) :]
        os.fsync(self._file.fileno())
        if self._size >= MAX_FILE_BYTES:
            self._rotate()

    def _hold(self, request_id: str, path: Path) -> None:
        if request_id not in self._holders:
            self._holders[request_id] = path
            self._num_held[path] += 1

    def _release(self, request_ids: Iterable[str]) -> None:
        for request_id in request_ids:
            if (path := self._holders.pop(request_id, None)) is not None:
                self._num_held[path] -= 1
        self._drop_committed(in_use=self._path)

    def _rotate(self) -> None:
        full = self._file
        self._begin_file()
        full.close()

    def _begin_file(self) -> None:
        last = self._files()[-1:]
        path = self._folder / f"{int(last[0].stem) + 1 if last else 1:06d}.log"
        file = path.open("xb", buffering=0)
        try:
            self._drop_committed(in_use=path)
            sync_folder(self._folder)
        except BaseException:
            file.close()
            raise
        self._file, self._path, self._size = file, path, 0
        self._num_held[path] = 0

    def _drop_committed(self, in_use: Path) -> None:
        for path in [path for path, count in self._num_held.items() if count == 0 and path != in_use]:
            path.unlink()
            del self._num_held[path]

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
