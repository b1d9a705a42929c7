"""The one writer of the engine's tables.

Invariants:
- Journalled before acted on: a call enters the tables only if its answer is in the journal. What `record` has returned for is never asked
  again.
- A row id appears once, over samples and rejections together: a replayed round writes no row twice, and no row ends in two ways.
- Rows before their call, calls before their round: a committed call has all its rows committed, a committed round all its calls.
- requested = accepted + rejected + failed, in every call and round that is let in.
- An answer leaves the journal only once its call is committed.

So a kill at any moment loses nothing that was acknowledged: opening reads the tables and the journal, the loop runs the unfinished round
again, `replay` answers what was answered, and what is committed already is not written again.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import StoreError
from engine.records import Call, Origin, Outcome, Rejection, RejectionReason, RoundRecord, RowCounts, Sample
from engine.rundir import RunDir
from engine.store.journal import Journal
from engine.store.schemas import SCHEMAS, pack_calls, pack_rejections, pack_rounds, pack_samples, unpack_calls
from engine.store.segments import read_table, remove_leftovers, write_segment
from engine.store.tables import read_rounds

P = ParamSpec("P")
T = TypeVar("T")

MAX_BUFFERED_ROWS = 1000
"""Samples, rejections and calls held in memory. The call that reaches it waits until they are sealed: a slow disk slows the teacher."""

Ending: TypeAlias = RejectionReason | Literal["accepted"]
"""How a row ended: as a Sample, or as a Rejection for a reason."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What a run has asked and got in its completed rounds, over all the processes that worked on it."""

    rounds: int = 0
    calls: int = 0
    rows: RowCounts = field(default_factory=RowCounts)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    generation_s: float = 0.0


class Store:
    """An async context manager: entering reads what is there, leaving in peace seals what is buffered. On an error nothing is sealed; the
    journal has it.

    The caller holds the run's engine lock.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run
        # Only this thread takes rows out of the buffers, one job after another; the event loop only puts rows in. A job once begun goes
        # on to its end even if whoever asked for it is cancelled; one that was cancelled before it began has taken nothing.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._samples: list[Sample] = []
        self._rejections: list[Rejection] = []
        self._calls: list[Call] = []
        self._failure: StoreError | None = None

    async def __aenter__(self) -> Self:
        await self._in_order(self._open)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if error is None:
                await self.seal()
        finally:
            await self._journal.close()
            await asyncio.to_thread(self._thread.shutdown)

    @property
    def last_round(self) -> int:
        """The last completed round; 0 before the first."""
        return self._rounds[-1].round if self._rounds else 0

    @property
    def totals(self) -> Totals:
        return Totals(
            rounds=len(self._rounds),
            calls=sum(record.calls for record in self._rounds),
            rows=sum((record.rows for record in self._rounds), RowCounts()),
            prompt_tokens=sum(record.prompt_tokens for record in self._rounds),
            completion_tokens=sum(record.completion_tokens for record in self._rounds),
            generation_s=sum(record.generation_s for record in self._rounds),
        )

    def replay(self, request_id: str) -> Outcome | None:
        """The answer this request has got in a round that is not complete yet, in this process or an earlier one."""
        return self._answers.get(request_id)

    async def record(self, outcome: Outcome) -> None:
        """Returns once the answer is on disk; act on it only then."""
        await self._journal.append(outcome)
        self._answers.setdefault(outcome.request_id, outcome)

    def ending(self, row_id: str) -> Ending | None:
        """How this row ended, here or before a kill; None if it has not. A resumed round takes this before it asks any gate: answers come
        back in another order, and a gate that remembers earlier rows might judge differently now.
        """
        return self._endings.get(row_id)

    def add_sample(self, sample: Sample) -> bool:
        """False, and no second row, if a row of this id has ended already."""
        if not self._end(sample.id, "accepted", sample.origin):
            return False
        self._samples.append(sample)
        return True

    def add_rejection(self, rejection: Rejection) -> bool:
        """False, and no second row, if a row of this id has ended already."""
        if not self._end(rejection.id, rejection.reason, rejection.origin):
            return False
        self._rejections.append(rejection)
        return True

    async def add_call(self, call: Call) -> bool:
        """False if this call is there already. Its rows are added first, and without an await in between."""
        request_id = call.outcome.request_id
        if request_id in self._call_ids:
            return False
        self._check_open(call.origin)
        assert call.rows.is_balanced, f"call {request_id} does not add up: {call.rows}"
        assert request_id in self._answers, f"call {request_id} was not recorded before it was acted on"
        self._call_ids.add(request_id)
        self._calls.append(call)
        if self._num_buffered >= MAX_BUFFERED_ROWS:
            await self._in_order(self._seal, MAX_BUFFERED_ROWS)
        return True

    async def seal(self) -> None:
        """Commit what is buffered."""
        await self._in_order(self._seal)

    async def complete_round(self, record: RoundRecord) -> None:
        """Commit what is buffered, then the round. From here on its rows may be learned from, and none may be added."""
        assert record.round > self.last_round, f"round {record.round} is complete already"
        assert record.rows.is_balanced, f"round {record.round} does not add up: {record.rows}"
        await self._in_order(self._complete_round, record)
        self._answers = {key: outcome for key, outcome in self._answers.items() if not self._is_settled(key)}
        await self._journal.rotate()

    async def _in_order(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args, **kwargs))

    def _open(self) -> None:
        for name in ("samples", "rejections", "calls", "rounds"):
            remove_leftovers(self._run.table(name))
        self._rounds = read_rounds(self._run)
        self._endings: dict[str, Ending] = {row["id"]: "accepted" for row in self._committed("samples", "id")}
        self._endings |= {row["id"]: RejectionReason(row["reason"]) for row in self._committed("rejections", "id", "reason")}
        self._sealed: dict[str, int] = {row["request_id"]: row["round"] for row in self._committed("calls", "request_id", "round")}
        """Committed calls, with their round."""
        self._call_ids = set(self._sealed)
        """Committed and buffered calls."""
        unfinished = unpack_calls(read_table(self._run.table("calls"), SCHEMAS["calls"], filter=pc.field("round") > self.last_round))
        self._journal = Journal(self._run.journal, is_sealed=self._sealed.__contains__)
        self._answers = {key: outcome for key, outcome in self._journal.answers.items() if not self._is_settled(key)}
        self._answers |= {call.outcome.request_id: call.outcome for call in unfinished}

    def _committed(self, table: str, *columns: str) -> list[dict[str, Any]]:
        return read_table(self._run.table(table), SCHEMAS[table], list(columns)).to_pylist()

    def _is_settled(self, request_id: str) -> bool:
        """Whether its round is complete, so that it will never be asked for again."""
        return self._sealed.get(request_id, self.last_round + 1) <= self.last_round

    def _end(self, row_id: str, ending: Ending, origin: Origin) -> bool:
        """Whether the row ends now, as it has not before."""
        if row_id in self._endings:
            return False
        self._check_open(origin)
        self._endings[row_id] = ending
        return True

    def _check_open(self, origin: Origin) -> None:
        assert origin.round > self.last_round, f"round {origin.round} is complete; nothing can be added to it"

    @property
    def _num_buffered(self) -> int:
        return len(self._samples) + len(self._rejections) + len(self._calls)

    def _seal(self, at_least: int = 1) -> None:
        if self._num_buffered < at_least:  # an earlier job has written it
            return
        # Counted before the rows: they were put in before their call, so the rows of these calls are among those written next.
        num_calls = len(self._calls)
        self._commit_first("samples", self._samples, len(self._samples), pack_samples)
        self._commit_first("rejections", self._rejections, len(self._rejections), pack_rejections)
        for call in self._commit_first("calls", self._calls, num_calls, pack_calls):
            self._sealed[call.outcome.request_id] = call.origin.round

    def _commit_first(self, table: str, buffer: list[T], count: int, pack: Callable[[Iterable[T]], pa.Table]) -> list[T]:
        rows = buffer[:count]
        if rows:
            self._commit(table, pack(rows))
            del buffer[:count]
        return rows

    def _complete_round(self, record: RoundRecord) -> None:
        self._seal()
        self._commit("rounds", pack_rounds([record]))
        self._rounds.append(record)

    def _commit(self, table: str, rows: pa.Table) -> None:
        # A disk that refused once is not trusted again: the rename may have happened, and a second try would write the rows twice.
        if self._failure is not None:
            raise self._failure
        try:
            write_segment(self._run.table(table), rows)
        except StoreError as error:
            self._failure = error
            raise
