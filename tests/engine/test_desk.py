import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.config import PgkdConfig, SamplingConfig
from engine.desk import Desk
from engine.gates.gates import Gatekeeper
from engine.parsing import parse_rows
from engine.prompting import Prompt, Prompter, rows_schema
from engine.records import (
    Assignment,
    Call,
    Completion,
    Failure,
    FailureReason,
    FinishReason,
    Message,
    Outcome,
    Request,
    RowCounts,
    Timings,
    Usage,
    hash_messages,
)
from engine.reports import WeaknessReport
from engine.rundir import RunDir
from engine.store import Store, connect, read_samples
from engine.strategies import Ask, Strategy, Written
from engine.strategies.pgkd import Pgkd
from prompts import PromptLibrary
from tests.engine.builders import LABELS, make_report, make_task

TIMINGS = Timings(0.0, 0.1, 1)
ASSIGNMENT = Assignment("r0001-a0000", number=0, round=1, report=0, weakness="class:track", focus=("track",), num_rows=3)

Say = Callable[[Request], str | FinishReason | FailureReason]
"""What the teacher makes of a request: a reply, the reason of a failure, or LENGTH for one that is cut off."""


class Office:
    """A desk with a store, and a teacher who answers at once."""

    def __init__(self, store: Store, say: Say, strategy: Strategy | None = None, *, max_tokens: int = 64, bound: int = 256) -> None:
        self.requests: list[Request] = []
        self.priorities: list[int] = []
        self._store = store
        self._say = say
        task = make_task()
        prompter = Prompter(PromptLibrary(), "teacher", SamplingConfig(max_tokens=max_tokens), seed=1)
        gatekeeper = Gatekeeper(LABELS, 100, known=(row.text for row in task.seed), held_out=(row.text for row in task.test))
        strategy = strategy or Pgkd(PgkdConfig(), task, prompter, 1)
        self.desk = Desk(strategy, prompter, gatekeeper, store, self.send, max_tokens_bound=bound)

    async def send(self, request: Request, priority: int) -> Outcome:
        self.requests.append(request)
        self.priorities.append(priority)
        if (known := self._store.replay(request.id)) is not None:
            return known
        said = self._say(request)
        outcome: Outcome
        if isinstance(said, FailureReason):
            outcome = Failure(request.id, said, "scripted", TIMINGS)
        elif isinstance(said, FinishReason):
            outcome = Completion(request.id, rows("cut")[:-1], said, Usage(10, 5), TIMINGS)
        else:
            outcome = Completion(request.id, said, FinishReason.STOP, Usage(10, 5), TIMINGS)
        await self._store.record(outcome)
        return outcome

    async def work_off(self, assignment: Assignment = ASSIGNMENT) -> list[Call]:
        return await self.desk.work_off(assignment, make_report())


@asynccontextmanager
async def opened(root: Path) -> AsyncGenerator[Store]:
    run = RunDir(root)
    run.create()
    async with Store(run) as store:
        yield store


async def work_off(root: Path, reply: str | FailureReason) -> RowCounts:
    """One assignment of three rows, answered like this."""
    async with opened(root) as store:
        (call,) = await Office(store, lambda _: reply).work_off()
    return call.rows


def rows(*texts: str, label: str = "track") -> str:
    return json.dumps([{"text": text, "label": label} for text in texts])


@pytest.mark.parametrize(
    ("reply", "counts"),
    [
        (rows("a", "b", "c"), RowCounts(3, accepted=3)),
        (rows("a", "b"), RowCounts(3, accepted=2, failed=1)),
        (rows("a", "b", "c", "d", "e"), RowCounts(3, accepted=3, surplus=2)),
        (rows("a", "A!", "test text 0 about track"), RowCounts(3, accepted=1, rejected=2)),
        (rows("a", "b", "c", label="unheard of"), RowCounts(3, rejected=3)),
        ("no rows today", RowCounts(3, rejected=1, failed=2)),
        ("", RowCounts(3, failed=3)),
        (FailureReason.TIMEOUT, RowCounts(3, failed=3)),
    ],
)
async def test_every_row_ends_once(tmp_path: Path, reply: str | FailureReason, counts: RowCounts) -> None:
    assert await work_off(tmp_path, reply) == counts
    with connect(RunDir(tmp_path)) as connection:
        (reasons,) = connection.execute("select count(*) from rejections").fetchall()
        (calls,) = connection.execute("select count(*) from calls").fetchall()
    assert reasons == (counts.rejected + counts.surplus,)
    assert calls == (1,)


async def test_a_row_knows_where_it_comes_from(tmp_path: Path) -> None:
    await work_off(tmp_path, rows("a"))
    (sample,) = read_samples(RunDir(tmp_path))
    origin = sample.origin
    assert (origin.round, origin.report, origin.assignment, origin.weakness) == (1, 0, "r0001-a0000", "class:track")
    assert (origin.strategy, origin.teacher) == ("pgkd", "teacher")
    assert origin.template.startswith("pgkd/generate@")
    assert sample.id == f"{origin.request_id}-0"


async def test_a_replayed_assignment_writes_nothing_twice(tmp_path: Path) -> None:
    first = await work_off(tmp_path, rows("a", "a", "b"))
    second = await work_off(tmp_path, rows("a", "a", "b"))
    assert first == second == RowCounts(3, accepted=2, rejected=1)
    assert [sample.text for sample in read_samples(RunDir(tmp_path))] == ["a", "b"]


# Replies that were cut off.


async def test_a_reply_that_was_cut_off_is_asked_for_with_more_tokens(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        office = Office(store, lambda request: rows("a", "b", "c") if request.sampling.max_tokens >= 256 else FinishReason.LENGTH)
        calls = await office.work_off()
    assert [request.sampling.max_tokens for request in office.requests] == [64, 128, 256]
    assert len({request.id for request in office.requests}) == len({request.sampling.seed for request in office.requests}) + 2 == 3
    assert office.priorities == [0, 1, 2]
    assert [call.rows for call in calls] == [RowCounts(), RowCounts(), RowCounts(3, accepted=3)]
    with connect(RunDir(tmp_path)) as connection:
        assert connection.execute("select count(*) from calls").fetchall() == [(3,)]
    assert {sample.origin.request_id for sample in read_samples(RunDir(tmp_path))} == {office.requests[-1].id}


@pytest.mark.parametrize(("bound", "sent"), [(64, [64]), (100, [64, 100]), (150, [64, 128, 150]), (10, [64])])
async def test_more_tokens_are_asked_for_within_the_bound_and_nothing_is_sent_unchanged(
    tmp_path: Path, bound: int, sent: list[int]
) -> None:
    async with opened(tmp_path) as store:
        office = Office(store, lambda _: FinishReason.LENGTH, bound=bound)
        calls = await office.work_off()
    assert [request.sampling.max_tokens for request in office.requests] == sent
    assert sum((call.rows for call in calls), RowCounts()) == RowCounts(3, accepted=1, failed=2)


async def test_when_the_larger_request_fails_what_was_written_before_counts(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        office = Office(store, lambda request: FinishReason.LENGTH if request.sampling.max_tokens < 128 else FailureReason.REFUSED)
        first, second = await office.work_off()
    assert [request.sampling.max_tokens for request in office.requests] == [64, 128]
    assert isinstance(second.outcome, Failure)
    assert (first.rows, second.rows) == (RowCounts(3, accepted=1, failed=2), RowCounts())


async def test_a_resumed_assignment_takes_the_same_way_and_asks_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        first = await Office(store, lambda request: FinishReason.LENGTH if request.sampling.max_tokens < 256 else rows("a")).work_off()
    asked: list[Request] = []
    async with opened(tmp_path) as store:
        second = await Office(store, lambda request: asked.append(request) or "").work_off()
    assert asked == []
    assert [call.rows for call in first] == [call.rows for call in second]
    assert len(read_samples(RunDir(tmp_path))) == 1


# Conversations.


class Interview:
    """Asks the same thing again and again, one after another or all at once."""

    name = "interview"
    rows_per_round = 3

    def __init__(self, num_turns: int, *, is_parallel: bool = False) -> None:
        self._num_turns = num_turns
        self._is_parallel = is_parallel

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> list[Assignment]:
        return [ASSIGNMENT]

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> list[Written]:
        messages = (Message("user", "Tell me more."),)
        prompt = Prompt("interview@0", messages, rows_schema(LABELS, 3), hash_messages(messages))
        if self._is_parallel:
            answer = (await asyncio.gather(*(ask(prompt) for _ in range(self._num_turns))))[-1]
        else:
            answer = [await ask(prompt) for _ in range(self._num_turns)][-1]
        return [Written(answer, tuple(parse_rows(answer.text)), assignment.num_rows)]

    def blocks(self, round: int, report: WeaknessReport) -> dict[str, int]:
        return {}


class Relay(Interview):
    """Asks for a row in one turn and for two in the next, and has the third answered here; `num_rows` of them all in all."""

    def __init__(self, num_rows: int = 3) -> None:
        super().__init__(0)
        self._num_rows = num_rows

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> list[Written]:
        messages = (Message("user", "Tell me more."),)
        prompt = Prompt("relay@0", messages, rows_schema(LABELS, 1), hash_messages(messages))
        first, second, own = await ask(prompt), await ask(prompt), await ask(replace(prompt, reply=rows("own", "own too")))
        easy = [replace(candidate, weakness="easy") for candidate in parse_rows(own.text)]
        return [Written(first, tuple(parse_rows(first.text)), self._num_rows - 2), Written(own, tuple(easy), 2), Written(second, (), 0)]


async def test_rows_belong_to_the_call_in_which_they_were_written(tmp_path: Path) -> None:
    replies = iter([rows("a", "b"), "no rows at all"])
    async with opened(tmp_path) as store:
        office = Office(store, lambda _: next(replies), Relay())
        calls = await office.work_off()
    assert [call.rows for call in calls] == [RowCounts(1, accepted=1, surplus=1), RowCounts(), RowCounts(2, accepted=2)]
    assert [request.model for request in office.requests] == ["teacher", "teacher"]
    assert calls[2].request.model == "local"
    samples = read_samples(RunDir(tmp_path))
    assert {(sample.text, sample.origin.weakness) for sample in samples} == {("a", "class:track"), ("own", "easy"), ("own too", "easy")}
    assert {sample.origin.request_id for sample in samples} == {calls[0].request.id, calls[2].request.id}
    async with opened(tmp_path) as store:
        again = await Office(store, lambda _: "", Relay()).work_off()
    assert [call.rows for call in again] == [call.rows for call in calls]


async def test_a_method_that_loses_rows_is_found_out(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(AssertionError, match="4 rows asked for, 3 planned"):
            await Office(store, lambda _: rows("a"), Relay(4)).work_off()


@pytest.mark.parametrize("is_parallel", [False, True])
async def test_asking_the_same_prompt_again_is_another_draw(tmp_path: Path, is_parallel: bool) -> None:
    async with opened(tmp_path) as store:
        office = Office(store, lambda _: rows("a", "b", "c"), Interview(3, is_parallel=is_parallel))
        calls = await office.work_off()
    assert len({request.id for request in office.requests}) == 3
    assert sum((call.rows for call in calls), RowCounts()) == RowCounts(3, accepted=3)
    with connect(RunDir(tmp_path)) as connection:
        assert connection.execute("select count(*) from calls").fetchall() == [(3,)]


async def test_later_turns_go_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        office = Office(store, lambda _: rows("a"), Interview(3))
        await office.work_off()
    assert office.priorities == [0, 1, 2]


async def test_neighbouring_assignments_ask_for_neighbouring_draws(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        office = Office(store, lambda request: rows(request.id))
        for number in range(4):
            await office.work_off(replace(ASSIGNMENT, id=f"r0001-a{number:04d}", number=number))
    seeds = [request.sampling.seed for request in office.requests]
    assert seeds == list(range(seeds[0], seeds[0] + 4))
    assert len({request.prompt_hash for request in office.requests}) == 1


async def test_the_time_that_answers_take_here_is_measured(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        office = Office(store, lambda _: rows("a", "b", "c"))
        await office.work_off()
    assert office.desk.handling_s > 0
    assert office.desk.storing_s >= 0
