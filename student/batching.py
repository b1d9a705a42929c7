"""Dynamic batching: callers come one by one, the student computes many rows at once.

Invariants: every text that is taken gets its answer or an error, once; at most `max_waiting` texts wait, whoever comes then is sent away.
Nobody waits for a batch to fill: while one is computed the next gathers, so that batches grow with the load by themselves. The student is
asked by one thread at a time, and the event loop never waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from engine.text import Content
from student.predictions import AnyPredictions, TextPredictor, joined


class BusyError(Exception):
    """More waits than may."""


@dataclass(slots=True, eq=False)
class _Job:
    texts: Sequence[Content]
    answer: asyncio.Future[AnyPredictions]
    parts: list[AnyPredictions] = field(default_factory=list[AnyPredictions])
    num_taken: int = 0


class Batcher:
    """Use it as a context manager; leaving it cancels what still waits."""

    def __init__(
        self, predictor: TextPredictor, *, batch_size: int = 64, max_waiting: int = 1024, on_batch: Callable[[int], None] = lambda _: None
    ) -> None:
        self.max_waiting = max_waiting
        self._predictor = predictor
        self._batch_size = batch_size
        self._on_batch = on_batch
        self._jobs: deque[_Job] = deque()
        self._open: set[_Job] = set()
        self._num_waiting = 0
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="student")
        self._worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._worker is not None
        self._worker.cancel()
        await asyncio.wait([self._worker])
        for job in self._open:
            job.answer.cancel()
        self._thread.shutdown(wait=False)

    @property
    def num_waiting(self) -> int:
        """Texts that no batch has taken yet."""
        return self._num_waiting

    async def predict(self, texts: Sequence[Content]) -> AnyPredictions:
        """In the order of the texts. BusyError if they are more than may wait now. Who is cancelled gives up the places of his texts."""
        if self._num_waiting + len(texts) > self.max_waiting:
            raise BusyError
        job = _Job(texts, asyncio.get_running_loop().create_future())
        self._open.add(job)
        self._jobs.append(job)
        self._num_waiting += len(texts)
        self._wake.set()
        try:
            return await job.answer
        finally:
            self._open.remove(job)
            if job in self._jobs:
                self._drop(job)

    def _drop(self, job: _Job) -> None:
        self._jobs.remove(job)
        self._num_waiting -= len(job.texts) - job.num_taken

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while shares := self._take():
                texts = [text for job, first, last in shares for text in job.texts[first:last]]
                self._on_batch(len(texts))
                try:
                    found = await loop.run_in_executor(self._thread, self._predictor.predict_texts, texts, self._batch_size)
                except Exception as error:  # theirs who asked; the next batch may go well
                    self._fail([job for job, _, _ in shares], error)
                else:
                    self._hand_out(shares, found)

    def _take(self) -> list[tuple[_Job, int, int]]:
        """The next batch: (job, first, last) of the texts of each."""
        shares: list[tuple[_Job, int, int]] = []
        room = self._batch_size
        while room and self._jobs:
            job = self._jobs[0]
            last = min(len(job.texts), job.num_taken + room)
            shares.append((job, job.num_taken, last))
            room -= last - job.num_taken
            self._num_waiting -= last - job.num_taken
            job.num_taken = last
            if last == len(job.texts):
                self._jobs.popleft()
        return shares

    def _hand_out(self, shares: Sequence[tuple[_Job, int, int]], found: AnyPredictions) -> None:
        start = 0
        for job, first, last in shares:
            end = start + last - first
            job.parts.append(found.part(start, end))
            start = end
            if last == len(job.texts) and not job.answer.done():
                job.answer.set_result(joined(job.parts))

    def _fail(self, jobs: Sequence[_Job], error: Exception) -> None:
        for job in jobs:
            if job in self._jobs:
                self._drop(job)
            if not job.answer.done():
                job.answer.set_exception(error)
