"""Rejected rows before the gates once more. No teacher is asked: a row that passes now joins a new round, one that does not stays as it is.

Rows that pass stand in a call of their own, with the reply of the call they came from, no attempt and no tokens; it asks for as many rows
as pass. Ids follow from the round and from what is replayed, so that doing it again after a kill writes nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import pyarrow.compute as pc
from msgspec.structs import replace

from engine.gates.gates import Gatekeeper
from engine.records import Call, Candidate, Completion, Origin, Rejection, RejectionReason, RowCounts, Sample, Timings, Usage
from engine.replay.dead_letters import DeadLetters
from engine.replay.fates import Fates
from engine.rundir import RunDir
from engine.store import Store, read_calls

Parse: TypeAlias = Callable[[str], list[Candidate]]
"""The rows in a reply."""

CALLS_AT_ONCE = 1000
"""Whose rows are put into the tables together."""


class _Passing(NamedTuple):
    rejection: Rejection
    candidate: Candidate


class JudgedAgain:
    """Rejections on their way into the round of a replay."""

    def __init__(self, run: RunDir, round: int, store: Store, gatekeeper: Gatekeeper, fates: Fates, parse: Parse) -> None:
        self._run = run
        self._parse = parse
        self._round = round
        self._store = store
        self._gatekeeper = gatekeeper
        self._fates = fates

    async def judge(self, letters: DeadLetters) -> None:
        """In the order written; what passes is held in memory until all have been judged."""
        passing: dict[str, list[_Passing]] = {}
        batches = letters.rejections()
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            is_accepted = [self._store.ending(self._row_id(rejection)) == "accepted" for rejection in batch]
            for row in await asyncio.to_thread(self._judge, batch, is_accepted):
                passing.setdefault(row.rejection.origin.request_id, []).append(row)
        for start in range(0, len(passing), CALLS_AT_ONCE):
            request_ids = list(passing)[start : start + CALLS_AT_ONCE]
            calls = await asyncio.to_thread(read_calls, self._run, pc.field("request_id").isin(request_ids))
            await asyncio.gather(*(self._accept(call, passing[call.origin.request_id]) for call in calls))

    def _judge(self, batch: Sequence[Rejection], is_accepted: Sequence[bool]) -> list[_Passing]:
        """Those that pass. What this replay accepted before it was stopped passes unasked: the gates know it."""
        rows = [_Passing(rejection, as_candidate(rejection, self._parse)) for rejection in batch]
        unasked = iter(self._gatekeeper.judge([row.candidate for row, is_known in zip(rows, is_accepted, strict=True) if not is_known]))
        passing = [row for row, is_known in zip(rows, is_accepted, strict=True) if is_known or next(unasked) is None]
        for ended, count in Counter(rejection.reason for rejection in batch).items():
            self._fates.add("judged", ended, count, RowCounts())
        return passing

    async def _accept(self, call: Call, passing: Sequence[_Passing]) -> None:
        assert isinstance(call.outcome, Completion), "rows stand in replies"
        request_id = self._request_id(call.origin.request_id)
        outcome = self._store.replay(request_id)
        if outcome is None:
            timings = Timings(time.time(), 0.0, attempts=0)
            outcome = replace(call.outcome, request_id=request_id, usage=Usage(0, 0), timings=timings)
            await self._store.record(outcome)
        samples = [
            Sample(
                self._row_id(rejection), candidate.text, candidate.label, self._origin(rejection.origin, rejection.id), candidate.annotation
            )
            for rejection, candidate in passing
        ]
        self._store.add_rows(request_id, samples)
        # Neither new nor accepted before: its call was committed without it, as the gates refused it then.
        accepted = Counter(
            rejection.reason for (rejection, _), sample in zip(passing, samples, strict=True) if self._store.ending(sample.id) == "accepted"
        )
        rows = all_accepted(accepted.total())
        await self._store.add_call(Call(call.request, self._origin(call.origin, passing[0].rejection.id), outcome, rows))
        for ended, count in accepted.items():
            self._fates.add("judged", ended, 0, all_accepted(count))
        self._fates.tally.assignments += 1
        self._fates.tally.calls += 1
        self._fates.tally.rows += rows

    def _origin(self, origin: Origin, replays: str) -> Origin:
        return replace(
            origin,
            round=self._round,
            assignment=f"r{self._round:04d}-{origin.assignment}",
            request_id=self._request_id(origin.request_id),
            replays=replays,
        )

    def _row_id(self, rejection: Rejection) -> str:
        """At the same place of the reply."""
        return f"{self._request_id(rejection.origin.request_id)}-{rejection.id.rpartition('-')[2]}"

    def _request_id(self, request_id: str) -> str:
        return hashlib.sha256(f"judged again in round {self._round}: {request_id}".encode()).hexdigest()[:32]


def as_candidate(rejection: Rejection, parse: Parse) -> Candidate:
    """The row as the present parser reads it; what was a row then is one now."""
    if rejection.reason in (RejectionReason.SCHEMA, RejectionReason.SPANS, RejectionReason.SURPLUS) and not rejection.text:
        rows = [row for row in parse(rejection.raw) if row.problem is None]
        return rows[0] if rows else Candidate(rejection.raw, problem=rejection.detail, reason=rejection.reason)
    if rejection.reason in (RejectionReason.UNLABELLED, RejectionReason.SPANS, RejectionReason.DISAGREEMENT, RejectionReason.UNCERTAIN):
        return Candidate(rejection.raw, rejection.text, rejection.label, problem=rejection.detail, reason=rejection.reason)
    return Candidate(rejection.raw, rejection.text, rejection.label, annotation=rejection.annotation)


def all_accepted(count: int) -> RowCounts:
    return RowCounts(requested=count, accepted=count)
