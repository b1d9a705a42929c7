"""Where one assignment is worked off: asked, parsed, judged, and put into the tables.

Invariants: every request made ends as one row of the calls table; every candidate ends as one Sample or one Rejection;
requested = accepted + rejected + failed for every call, and the rows requested in the calls of an assignment are those it asks for. A row
that has ended before (a replayed round) keeps its end.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import chain, repeat
from typing import Protocol

from msgspec.structs import replace

from engine.gates.gates import Gates, Refusal
from engine.prompting import Prompt, Prompter
from engine.records import (
    Assignment,
    Call,
    Candidate,
    Completion,
    Failure,
    FinishReason,
    Origin,
    Outcome,
    Rejection,
    RejectionReason,
    Request,
    RowCounts,
    Sample,
    Timings,
    Usage,
)
from engine.reports import WeaknessReport
from engine.store import Store
from engine.strategies import Answer, Strategy

SURPLUS = Refusal(RejectionReason.SURPLUS, "more rows than asked for")


class Send(Protocol):
    """Brings a request to its outcome; higher priorities first."""

    def __call__(self, request: Request, priority: int) -> Awaitable[Outcome]: ...


class Desk:
    """Carries out the assignments of one run; many at once."""

    def __init__(
        self,
        strategy: Strategy,
        prompter: Prompter,
        gatekeeper: Gates,
        store: Store,
        send: Send,
        *,
        max_tokens_bound: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """A reply that `max_tokens` cut off is asked for once more with twice as many, and so on up to `max_tokens_bound`."""
        self._strategy = strategy
        self._prompter = prompter
        self._gatekeeper = gatekeeper
        self._store = store
        self._send = send
        self._max_tokens_bound = max_tokens_bound
        self._clock = clock
        self.handling_s = 0.0
        """Spent on what was answered: parsing, gates, records."""
        self.storing_s = 0.0
        """Waited for the store to take a call, in all assignments together."""
        self.lost = Counter[str]()
        """Rows that did not become samples, by reason; `missing` are those that a reply ended before."""

    async def work_off(self, assignment: Assignment, report: WeaknessReport) -> list[Call]:
        """All calls it took; what they brought is in the store's hands when this returns."""
        answers: list[Answer] = []
        turn = 0
        resumed = self._clock()

        async def ask(prompt: Prompt) -> Answer:
            nonlocal turn, resumed
            prompt = self._prompter.word(prompt, assignment)
            request = self._prompter.assigned(prompt, assignment, turn)
            turn += 1
            usable: Answer | None = None
            while True:
                self.handling_s += (begun := self._clock()) - resumed
                resumed = begun  # others of the assignment may be sent before this is answered
                # Who has begun goes on before another begins: fewer are open at once, and none waits behind all new ones.
                outcome = await (self._reply(request, prompt.reply) if prompt.reply is not None else self._send(request, len(answers)))
                resumed = self._clock()
                answers.append(answer := Answer(prompt, request, outcome))
                if usable is not None and not isinstance(outcome, Completion):
                    return usable  # no place for more in the teacher's context: what was written has to do
                usable = answer
                if prompt.code is not None or not _is_cut_off(outcome) or (more := self._with_more_tokens(request)) is None:
                    return answer
                request = more

        written = {part.answer.request.id: part for part in await self._strategy.carry_out(assignment, report, ask)}
        num_rows = sum(part.num_rows for part in written.values())
        assert num_rows == assignment.num_rows, f"{self._strategy.name}: {num_rows} rows asked for, {assignment.num_rows} planned"
        calls: list[Call] = []
        for answer in answers:
            if answer.prompt.is_once and self._store.round_of(answer.request.id) not in (None, assignment.round):
                continue  # asked, and counted, in an earlier round
            part = written.get(answer.request.id)
            origin = self._origin(assignment, answer)
            rows = self._file(part.candidates, part.num_rows, origin) if part else RowCounts()
            if rows.failed:
                self.lost[answer.outcome.reason.value if isinstance(answer.outcome, Failure) else "missing"] += rows.failed
            call = Call(answer.request, origin, answer.outcome, rows)
            handled = self._clock()
            self.handling_s += handled - resumed
            await self._store.add_call(call)
            resumed = self._clock()
            self.storing_s += resumed - handled
            calls.append(call)
        return calls

    async def _reply(self, request: Request, text: str) -> Outcome:
        """What a program of ours answers is recorded like what a teacher does, so that it is counted, and replayed, the same way."""
        if (known := self._store.replay(request.id)) is not None:
            return known
        outcome = Completion(request.id, text, FinishReason.STOP, Usage(0, 0), Timings(time.time(), 0.0, attempts=0))
        await self._store.record(outcome)
        return outcome

    def _with_more_tokens(self, request: Request) -> Request | None:
        """The same sent again would be cut off again."""
        if request.sampling.max_tokens >= self._max_tokens_bound:
            return None
        max_tokens = min(2 * request.sampling.max_tokens, self._max_tokens_bound)
        return replace(request, sampling=replace(request.sampling, max_tokens=max_tokens))

    def _file(self, candidates: tuple[Candidate, ...], num_rows: int, origin: Origin) -> RowCounts:
        """Every candidate becomes a sample or a rejection; rows that were asked for and not written have failed."""
        request_id = origin.request_id
        # What has ended keeps its end, and no gate is asked about it.
        ended = self._store.endings(request_id)[: len(candidates)]
        places = [*range(len(candidates))] if not ended else [n for n in range(len(candidates)) if n >= len(ended) or ended[n] is None]
        refusals = self._gatekeeper.judge([candidates[place] for place in places if place < num_rows])
        accepted = ended.count("accepted")
        rows: list[Sample | Rejection] = []
        for place, refusal in zip(places, chain(refusals, repeat(SURPLUS)), strict=False):  # surplus rows are the last
            if refusal is None:
                accepted += 1
            else:
                self.lost[refusal.reason.value] += 1
            rows.append(_end(f"{request_id}-{place}", candidates[place], origin, refusal))
        self._store.add_rows(request_id, rows)
        written = min(len(candidates), num_rows)
        return RowCounts(
            requested=num_rows,
            accepted=accepted,
            rejected=written - accepted,
            failed=num_rows - written,
            surplus=len(candidates) - written,
        )

    def _origin(self, assignment: Assignment, answer: Answer) -> Origin:
        return Origin(
            round=assignment.round,
            report=assignment.report,
            assignment=assignment.id,
            weakness=assignment.weakness,
            strategy=self._strategy.name,
            template=answer.prompt.template,
            prompt_hash=answer.request.prompt_hash,
            teacher=answer.request.model,
            request_id=answer.request.id,
            replays=assignment.replays,
        )


def _end(row_id: str, candidate: Candidate, origin: Origin, refusal: Refusal | None) -> Sample | Rejection:
    if candidate.weakness:
        origin = replace(origin, weakness=candidate.weakness)
    if refusal is None:
        return Sample(row_id, candidate.text, candidate.label, origin, candidate.annotation)
    return Rejection(row_id, *refusal, candidate.raw, candidate.text, candidate.label, origin, candidate.annotation)


def _is_cut_off(outcome: Outcome) -> bool:
    return isinstance(outcome, Completion) and outcome.finish_reason is FinishReason.LENGTH
