"""The one writer of the engine's tables.

Invariants:
- Journalled before acted on: a call enters the tables only if its answer is in the journal. What `record` has returned for is never asked
  again.
- A row id appears once, over samples and rejections together: a replayed round writes no row twice, and no row ends in two ways. Rows
  are added before their call and none after, so that a committed call, which remembers how its rows ended, answers for them all.
- Prompt and rows before their call, calls before their round: what a committed call or round refers to is committed.
- requested = accepted + rejected + failed, in every call and round that is let in.
- An answer leaves the journal only once its call is committed.
- Memory holds what is not committed, and twenty bytes for each call and prompt that is.

So a kill at any moment loses nothing that was acknowledged: opening reads the ids in the tables and the journal, the loop runs the
unfinished round again, `replay` answers what was answered, and what is committed already is not written again.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from engine.records import Call, Completion, Origin, Outcome, Rejection, RejectionReason, Request, RoundRecord, Sample, Totals
from engine.rundir import RunDir
from engine.store.answers import CommittedCalls
from engine.store.ids import Ids
from engine.store.journal import Journal
from engine.store.schemas import SCHEMAS, Ending, RowBuffer, pack_calls, pack_prompts, pack_rounds
from engine.store.segments import prepare_folder, read_table, write_segment
from engine.store.tables import read_rounds

P = ParamSpec("P")
T = TypeVar("T")

SEAL_ROWS = 65_536
"""Samples, rejections and calls in memory that are worth a segment of each. Large ones cost less, for the writer as for every reader."""
SEAL_BYTES = 32 * 2**20
"""The same for the text in them."""
SEAL_AFTER_S = 10.0
"""A row waits no longer, so that SQL over a slow run is not far behind."""
MAX_BUFFERED = 2
"""Times the above. The call that reaches this waits until rows are committed: a slow disk slows the teacher."""


@dataclass(slots=True)
class _OpenRequest:
    """A request that has an answer or rows, and no committed call."""

    outcome: Outcome | None = None
    endings: list[Ending | None] = field(default_factory=list)
    """Of its rows, by their place in the reply; None for one that has not ended."""
    has_call: bool = False

    def end(self, place: int, ending: Ending) -> None:
        if place == len(self.endings):
            self.endings.append(ending)
        else:
            self.endings += [None] * (place + 1 - len(self.endings))
            self.endings[place] = ending


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
        self._prompts: list[Request] = []
        """One for each prompt that is not committed yet."""
        self._new_prompts: set[str] = set()
        """Their hashes."""
        self._samples = RowBuffer("samples")
        self._rejections = RowBuffer("rejections")
        self._calls: list[Call] = []
        self._num_bytes = 0
        """Of text in the buffered calls, put in so far."""
        self._num_bytes_sealed = 0
        self._sealing: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failure: Exception | None = None

    async def __aenter__(self) -> Self:
        await self._in_order(self._read)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if self._timer is not None:
                self._timer.cancel()
            if error is None:
                await self.seal()
        finally:
            # In this order: what is being sealed is then released from the journal.
            await asyncio.to_thread(self._thread.shutdown)
            await self._journal.close()

    @property
    def last_round(self) -> int:
        """The last completed round; 0 before the first."""
        return self._rounds[-1].round if self._rounds else 0

    @property
    def rounds(self) -> Sequence[RoundRecord]:
        """The completed ones, in order."""
        return self._rounds

    @property
    def totals(self) -> Totals:
        return Totals.of(self._rounds)

    @property
    def num_open(self) -> int:
        """Requests with an answer or rows, whose call is not committed: what a round that is being asked has come to."""
        return len(self._requests)

    def replay(self, request_id: str) -> Outcome | None:
        """The answer this request has got, in this process or an earlier one. One of a committed call is read from its segment, which now
        and then takes some ms.
        """
        if (request := self._requests.get(request_id)) is not None:
            return request.outcome
        found = self._committed.find(request_id)
        return None if found is None else found.outcome

    def round_of(self, request_id: str) -> int | None:
        """To which its committed call belongs; None if that is not committed."""
        if request_id in self._requests or (found := self._committed.find(request_id)) is None:
            return None
        return found.round

    async def record(self, outcome: Outcome) -> None:
        """Returns once the answer is on disk; act on it only then. Of two answers to one request the first stays."""
        request_id = outcome.request_id
        if request_id not in self._requests and request_id in self._committed:
            return
        await self._journal.append(outcome)
        if (request := self._requests.get(request_id)) is None:
            self._requests[request_id] = _OpenRequest(outcome)
        elif request.outcome is None:
            request.outcome = outcome

    def endings(self, request_id: str) -> Sequence[Ending | None]:
        """How the rows of this request ended, here or before a kill, by their place in the reply; None, or nothing, for those that have
        not. A resumed round takes this before it asks any gate: answers come back in another order, and a gate that remembers earlier
        rows might judge differently now.
        """
        if (request := self._requests.get(request_id)) is not None:
            return request.endings
        found = self._committed.find(request_id)
        return () if found is None else found.endings

    def ending(self, row_id: str) -> Ending | None:
        """As `endings`, of one row."""
        request_id, _, place = row_id.rpartition("-")
        endings = self.endings(request_id)
        return endings[int(place)] if int(place) < len(endings) else None

    def add_rows(self, request_id: str, rows: Sequence[Sample | Rejection]) -> int:
        """Rows of one reply. Those that have ended already are left, as are all if their call has been added. How many were taken."""
        request = self._requests.get(request_id)
        if request is None:
            if request_id in self._committed:
                return 0
            request = self._requests[request_id] = _OpenRequest()
        if request.has_call or not rows:
            return 0
        self._check_open(rows[0].origin)
        samples: list[Sample] = []
        rejections: list[Rejection] = []
        start = len(request_id) + 1  # a row's id is its request's, a hyphen, and its place in the reply
        endings = request.endings
        for row in rows:
            place = int(row.id[start:])
            if place >= len(endings):
                endings += [None] * (place + 1 - len(endings))
            elif endings[place] is not None:
                continue
            if isinstance(row, Sample):
                endings[place] = "accepted"
                samples.append(row)
            else:
                endings[place] = row.reason
                rejections.append(row)
        self._samples.add(samples)
        self._rejections.add(rejections)
        return len(samples) + len(rejections)

    async def add_call(self, call: Call) -> bool:
        """False if this call is there already. Its rows are added first, and without an await in between."""
        request_id = call.outcome.request_id
        request = self._requests.get(request_id)
        if request.has_call if request is not None else request_id in self._committed:
            return False
        self._check_disk()
        self._check_open(call.origin)
        assert call.rows.is_balanced, f"call {request_id} does not add up: {call.rows}"
        assert request is not None, f"call {request_id} was not recorded before it was acted on"
        assert request.outcome is not None, f"call {request_id} was not recorded before it was acted on"
        request.has_call = True
        self._buffer(call)
        if self._fullness >= 1.0:
            await self._make_room()
        return True

    async def seal(self) -> None:
        """Commit what is buffered."""
        await self._in_order(self._seal)

    async def complete_round(self, record: RoundRecord) -> None:
        """Commit what is buffered, then the round. From here on its rows may be learned from, and none may be added."""
        assert record.round > self.last_round, f"round {record.round} is complete already"
        assert record.rows.is_balanced, f"round {record.round} does not add up: {record.rows}"
        await self._in_order(self._complete_round, record)
        await self._journal.rotate()

    def _buffer(self, call: Call) -> None:
        prompt = call.request.prompt_hash
        if prompt not in self._new_prompts and prompt not in self._prompt_ids:
            self._new_prompts.add(prompt)
            self._prompts.append(call.request)
            self._num_bytes += sum([len(message.content) for message in call.request.messages])
        self._calls.append(call)
        if isinstance(call.outcome, Completion):
            self._num_bytes += len(call.outcome.text)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SEAL_AFTER_S, self._seal_in_time)

    def _seal_in_time(self) -> None:
        if self._failure is None:  # else the next call is told
            self._begin_sealing()

    async def _make_room(self) -> None:
        while (fullness := self._fullness) >= 1.0:
            sealing = self._begin_sealing()
            if fullness < MAX_BUFFERED:
                return
            await asyncio.wait([sealing])
            self._check_disk()

    @property
    def _fullness(self) -> float:
        """Of the buffers, in segments."""
        num_rows = len(self._samples) + len(self._rejections) + len(self._calls)
        return max(num_rows / SEAL_ROWS, (self._num_bytes - self._num_bytes_sealed) / SEAL_BYTES)

    def _begin_sealing(self) -> asyncio.Future[None]:
        """In the background, where it is not going on already. What fails there is raised to the next who writes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sealing is None or self._sealing.done():
            self._check_disk()
            self._sealing = asyncio.get_running_loop().run_in_executor(self._thread, self._seal)
            self._sealing.add_done_callback(lambda sealing: sealing.cancelled() or sealing.exception())
        return self._sealing

    async def _in_order(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args, **kwargs))

    def _read(self) -> None:
        for name in ("prompts", "samples", "rejections", "calls", "rounds"):
            prepare_folder(self._run.table(name))
        self._rounds = read_rounds(self._run)
        self._committed = CommittedCalls(self._run.table("calls"))
        self._prompt_ids = Ids()
        self._prompt_ids.add_column(self._column("prompts", "prompt_hash").column(0))
        self._journal = Journal(self._run.journal, is_committed=self._committed.__contains__)
        self._requests = {request_id: _OpenRequest(outcome) for request_id, outcome in self._journal.answers.items()}
        self._journal.answers.clear()
        self._read_endings()

    def _read_endings(self) -> None:
        """Of rows that were committed without their call, because the process died in between."""
        is_unfinished = pc.field("round") > self.last_round
        calls = self._column("calls", "request_id", filter=is_unfinished)
        for name, columns in (("samples", ["id"]), ("rejections", ["id", "reason"])):
            rows = self._column(name, "request_id", *columns, filter=is_unfinished)
            has_call = pc.call_function("is_in", [rows.column("request_id")], pc.SetLookupOptions(calls.column("request_id")))
            for row in rows.filter(pc.call_function("invert", [has_call])).to_pylist():
                request = self._requests.setdefault(row["request_id"], _OpenRequest())
                place = int(row["id"].rpartition("-")[2])
                request.end(place, RejectionReason(row["reason"]) if "reason" in row else "accepted")

    def _column(self, table: str, *names: str, filter: pc.Expression | None = None) -> pa.Table:
        return read_table(self._run.table(table), SCHEMAS[table], [*names], filter)

    def _check_open(self, origin: Origin) -> None:
        assert origin.round > self.last_round, f"round {origin.round} is complete; nothing can be added to it"

    def _check_disk(self) -> None:
        # A disk that refused once is not trusted again: the rename may have happened, and a second try would write the rows twice.
        if self._failure is not None:
            raise self._failure

    def _seal(self) -> None:
        # Counted before the rows: they were put in before their call, so what these calls refer to is among what is written first.
        num_calls, num_bytes = len(self._calls), self._num_bytes
        prompts = self._commit_first("prompts", self._prompts, len(self._prompts), pack_prompts)
        self._prompt_ids.add(request.prompt_hash for request in prompts)
        self._new_prompts.difference_update([request.prompt_hash for request in prompts])
        for rows in (self._samples, self._rejections):
            if num_rows := len(rows):
                self._commit(rows.table, rows.pack, num_rows)
                rows.drop(num_rows)
        calls = self._commit_first("calls", self._calls, num_calls, self._pack_calls)
        request_ids = [call.outcome.request_id for call in calls]
        # In this order, so that each is found at every moment.
        self._committed.add(request_ids)
        for request_id in request_ids:
            del self._requests[request_id]
        self._journal.release(request_ids)
        self._num_bytes_sealed = num_bytes

    def _pack_calls(self, calls: Sequence[Call]) -> pa.Table:
        return pack_calls(calls, [self._requests[call.outcome.request_id].endings for call in calls])

    def _complete_round(self, record: RoundRecord) -> None:
        self._seal()
        self._commit("rounds", pack_rounds, [record])
        self._rounds.append(record)

    def _commit_first(self, table: str, buffer: list[T], count: int, pack: Callable[[Sequence[T]], pa.Table]) -> list[T]:
        rows = buffer[:count]
        if rows:
            self._commit(table, pack, rows)
            del buffer[:count]
        return rows

    def _commit(self, table: str, pack: Callable[[T], pa.Table], rows: T) -> None:
        self._check_disk()
        try:
            write_segment(self._run.table(table), pack(rows))
        except Exception as error:
            self._failure = error
            raise
