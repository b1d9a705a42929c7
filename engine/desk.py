"""Where one assignment is worked off: asked, parsed, judged, and put into the tables.

Invariants: every request made ends as one row of the calls table; every candidate ends as one Sample or one Rejection;
requested = accepted + rejected + failed for every call. A row that has ended before (a replayed round) keeps its end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from engine.gates import Gatekeeper
from engine.prompting import Prompt, Prompter
from engine.records import (
    Assignment,
    Call,
    Candidate,
    Completion,
    Origin,
    Outcome,
    Rejection,
    RejectionReason,
    Request,
    RowCounts,
    Sample,
    WeaknessReport,
)
from engine.store import Store
from engine.strategies import Answer, Strategy


class Desk:
    """Carries out the assignments of one run; many at once."""

    def __init__(
        self, strategy: Strategy, prompter: Prompter, gatekeeper: Gatekeeper, store: Store, send: Callable[[Request], Awaitable[Outcome]]
    ) -> None:
        self._strategy = strategy
        self._prompter = prompter
        self._gatekeeper = gatekeeper
        self._store = store
        self._send = send

    async def work_off(self, assignment: Assignment, report: WeaknessReport) -> list[Call]:
        """All calls it took; what they brought is in the store's hands when this returns."""
        answers: list[Answer] = []

        async def ask(prompt: Prompt) -> Answer:
            request = self._prompter.request(prompt, draw=f"{assignment.id} {len(answers)}")
            answer = Answer(prompt, request, await self._send(request))
            answers.append(answer)
            return answer

        written = await self._strategy.carry_out(assignment, report, ask)
        calls: list[Call] = []
        for answer in answers:
            is_last = answer is written.answer
            origin = self._origin(assignment, answer)
            rows = self._file(written.candidates, assignment.num_rows, origin) if is_last else RowCounts()
            call = Call(answer.request, origin, answer.outcome, rows)
            await self._store.add_call(call)
            calls.append(call)
        return calls

    def _file(self, candidates: tuple[Candidate, ...], num_rows: int, origin: Origin) -> RowCounts:
        """Every candidate becomes a sample or a rejection; rows that were asked for and not written have failed."""
        accepted = 0
        for number, candidate in enumerate(candidates):
            row_id = f"{origin.request_id}-{number}"
            ending = self._store.ending(row_id) or self._decide(row_id, candidate, origin, is_surplus=number >= num_rows)
            accepted += ending == "accepted"
        written = min(len(candidates), num_rows)
        return RowCounts(
            requested=num_rows,
            accepted=accepted,
            rejected=written - accepted,
            failed=num_rows - written,
            surplus=len(candidates) - written,
        )

    def _decide(self, row_id: str, candidate: Candidate, origin: Origin, *, is_surplus: bool) -> str:
        if is_surplus:
            reason, detail = RejectionReason.SURPLUS, "more rows than asked for"
        elif (refusal := self._gatekeeper.judge(candidate)) is not None:
            reason, detail = refusal
        else:
            self._store.add_sample(Sample(row_id, candidate.text, candidate.label, origin))
            return "accepted"
        self._store.add_rejection(Rejection(row_id, reason, detail, candidate.raw, candidate.text, candidate.label, origin))
        return reason

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
        )


def count_tokens(calls: list[Call]) -> tuple[int, int]:
    """Prompt and completion tokens of the calls that were answered."""
    usages = [call.outcome.usage for call in calls if isinstance(call.outcome, Completion)]
    return sum(usage.prompt_tokens for usage in usages), sum(usage.completion_tokens for usage in usages)
