"""Records with plain values, and a small loop over a store as the engine runs it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec.structs import replace

from engine.records import (
    Call,
    Completion,
    Failure,
    FailureReason,
    FinishReason,
    Message,
    Origin,
    Outcome,
    Rejection,
    RejectionReason,
    Request,
    RoundRecord,
    RowCounts,
    Sample,
    SamplingParams,
    Timings,
    Usage,
)
from engine.reports import ClassScore, Scores
from engine.rundir import RunDir
from engine.store import SCHEMAS, Evaluation, Store, read_calls, read_rounds, read_samples
from engine.store.segments import read_table

TIMINGS = Timings(started_at=1_700_000_000.25, latency_s=0.5, attempts=1)


def make_run(folder: Path) -> RunDir:
    run = RunDir(folder / "run")
    run.create()
    return run


def make_request(content: str = "write", seed: int = 0) -> Request:
    return Request("teacher", (Message("user", content),), SamplingParams(1.0, 0.95, 64, seed, '{"type": "array"}'))


def make_origin(request_id: str = "a1", round: int = 1, request: Request | None = None) -> Origin:
    prompt = (request or make_request()).prompt_hash
    return Origin(round, round - 1, f"r{round:04d}-a0001", "class:refund", "pgkd", "pgkd/generate@1f2e", prompt, "teacher", request_id)


def add_row(store: Store, row: Sample | Rejection) -> bool:
    return store.add_rows(row.id.rpartition("-")[0], [row]) == 1


def make_sample(id: str = "a1-0", text: str = "where is my refund", round: int = 1) -> Sample:
    return Sample(id, text, "refund", make_origin(id.rsplit("-", 1)[0], round))


def make_rejection(id: str = "a1-1", reason: RejectionReason = RejectionReason.DUPLICATE, round: int = 1) -> Rejection:
    return Rejection(id, reason, "of the seed", '{"text": ""}', "", "refund", make_origin(id.rsplit("-", 1)[0], round))


def make_completion(request_id: str = "a1", text: str = "reply") -> Completion:
    return Completion(request_id, text, FinishReason.STOP, Usage(100, 20), TIMINGS)


def make_failure(request_id: str = "a1", detail: str = "no answer in 300 s") -> Failure:
    return Failure(request_id, FailureReason.TIMEOUT, detail, TIMINGS)


def make_call(request_id: str = "a1", round: int = 1, rows: RowCounts | None = None, outcome: Outcome | None = None) -> Call:
    outcome = outcome or make_completion(request_id)
    return Call(make_request(), make_origin(request_id, round), outcome, rows or RowCounts(requested=1, failed=1))


def make_round(round: int = 1, rows: RowCounts | None = None, calls: int = 1) -> RoundRecord:
    return RoundRecord(round, round - 1, calls, calls, rows or RowCounts(), 100 * calls, 20 * calls, 1.5, {"examples": 16})


def make_evaluation(round: int = 1, split: str = "validation", macro_f1: float = 0.5) -> Evaluation:
    scores = Scores(accuracy=0.6, macro_f1=macro_f1, weighted_f1=0.55, num_rows=20, mcc=0.45)
    return Evaluation(round, split, scores, (ClassScore("refund", 0.5, 0.25, 1 / 3, 10),), 1.25, 40, 3.0, 7)


def refuse_to_answer(request: Request) -> Awaitable[Outcome]:
    raise AssertionError(f"asked again: {request}")


ROWS_A_CALL = 3


async def work(run: RunDir, answer: Callable[[Request], Awaitable[Outcome]], num_rounds: int, num_calls: int) -> None:
    """Every call asks for three rows; of a completion two are accepted and one is rejected, and each carries the completion's text."""
    async with Store(run) as store:
        for round in range(store.last_round + 1, num_rounds + 1):
            await one_round(store, answer, round, num_calls)


async def one_round(store: Store, answer: Callable[[Request], Awaitable[Outcome]], round: int, num_calls: int) -> None:
    counts = await asyncio.gather(*(one_call(store, answer, round, number) for number in range(num_calls)))
    await store.complete_round(make_round(round, sum(counts, RowCounts()), num_calls))


async def one_call(store: Store, answer: Callable[[Request], Awaitable[Outcome]], round: int, number: int) -> RowCounts:
    request = numbered_request(round, number)
    outcome = store.replay(request.id)
    if outcome is None:
        outcome = await answer(request)
        await store.record(outcome)
    add_rows(store, outcome, round)
    rows = RowCounts(ROWS_A_CALL, accepted=2, rejected=1) if isinstance(outcome, Completion) else RowCounts(ROWS_A_CALL, failed=ROWS_A_CALL)
    await store.add_call(Call(request, make_origin(request.id, round, request), outcome, rows))
    return rows


def numbered_request(round: int, number: int) -> Request:
    return make_request(f"round {round}", seed=number)


def add_rows(store: Store, outcome: Outcome, round: int) -> None:
    if isinstance(outcome, Completion):
        request_id = outcome.request_id
        add_row(store, make_sample(f"{request_id}-0", outcome.text, round))
        add_row(store, make_sample(f"{request_id}-1", outcome.text, round))
        add_row(store, replace(make_rejection(f"{request_id}-2", round=round), text=outcome.text))


def assert_whole(run: RunDir, num_rounds: int, num_calls: int) -> None:
    """Everything that `work` did is in the tables, once, and agrees; the journal is empty and nothing is left over."""
    rounds = read_rounds(run)
    assert [record.round for record in rounds] == list(range(1, num_rounds + 1))
    calls = read_calls(run)
    assert sorted((call.origin.round, call.request.sampling.seed) for call in calls) == [
        (round, number) for round in range(1, num_rounds + 1) for number in range(num_calls)
    ]
    assert sum((call.rows for call in calls), RowCounts()) == sum((record.rows for record in rounds), RowCounts())
    answered = {call.outcome.request_id: call.outcome for call in calls}
    samples, rejections = read_samples(run), read_table(run.table("rejections"), SCHEMAS["rejections"]).to_pylist()
    row_ids = [sample.id for sample in samples] + [rejection["id"] for rejection in rejections]
    assert len(set(row_ids)) == len(row_ids)
    accepted = Counter(sample.origin.request_id for sample in samples)
    rejected = Counter(rejection["request_id"] for rejection in rejections)
    for call in calls:
        request_id = call.outcome.request_id
        assert (accepted[request_id], rejected[request_id]) == (call.rows.accepted, call.rows.rejected)
    texts = [(sample.origin.request_id, sample.text) for sample in samples] + [(row["request_id"], row["text"]) for row in rejections]
    for request_id, text in texts:
        outcome = answered[request_id]
        assert isinstance(outcome, Completion)
        assert outcome.text == text
    assert [path.stat().st_size for path in run.journal.iterdir()] == [0]
    assert not list(run.tables.rglob(".*"))
