from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.crew import SPARE, Crew
from engine.records import (
    Assignment,
    Call,
    Completion,
    Failure,
    FailureReason,
    FinishReason,
    Origin,
    Outcome,
    RowCounts,
    Timings,
    Usage,
)
from tests.engine.asking import make_request, settle

TIMINGS = Timings(0.0, 0.1, 1)


def make_assignment(number: int) -> Assignment:
    return Assignment(f"r0001-a{number:04d}", number, 1, 0, "none", (), 2)


def make_call(outcome: Outcome | None = None, rows: RowCounts = RowCounts(2, accepted=2)) -> Call:  # noqa: B008 - it is frozen
    request = make_request()
    answer = outcome or Completion(request.id, "[]", FinishReason.STOP, Usage(10, 5), TIMINGS)
    return Call(request, Origin(1, 0, "a", "none", "pgkd", "t", "p", "m", request.id), answer, rows)


class Work:
    """Assignments that are open until the test ends them."""

    def __init__(self) -> None:
        self.taken = 0
        self.open: list[asyncio.Future[list[Call]]] = []

    def endless(self) -> Iterator[Assignment]:
        for number in count():
            self.taken += 1
            yield make_assignment(number)

    async def carry_out(self, _assignment: Assignment) -> list[Call]:
        ending: asyncio.Future[list[Call]] = asyncio.get_running_loop().create_future()
        self.open.append(ending)
        try:
            return await ending
        finally:
            self.open.remove(ending)

    async def end(self, number: int = 1) -> None:
        for ending in self.open[:number]:
            ending.set_result([make_call()])
        await settle()


def ignore(_rows: RowCounts) -> None:
    pass


async def test_an_endless_plan_is_taken_only_as_far_as_it_can_be_worked_on() -> None:
    limit = 3
    work = Work()
    crew = Crew(lambda: limit)
    working = asyncio.create_task(crew.work_off(work.endless(), work.carry_out, ignore))
    await settle()
    assert work.taken == len(work.open) == crew.num_working == 2 * limit + SPARE
    for _ in range(50):
        await work.end()
        assert len(work.open) == 2 * limit + SPARE
    assert work.taken == 2 * limit + SPARE + 50
    working.cancel()
    await asyncio.wait([working])
    assert (crew.num_working, work.open) == (0, [])


async def test_the_crew_follows_the_limit() -> None:
    limit = 1
    work = Work()
    crew = Crew(lambda: limit)
    working = asyncio.create_task(crew.work_off(work.endless(), work.carry_out, ignore))
    await settle()
    limit = 50
    assert len(work.open) == 2 + SPARE
    crew.grow()
    await settle()
    assert len(work.open) == 100 + SPARE
    limit = 10
    crew.grow()
    await work.end(80)
    assert len(work.open) == 20 + SPARE
    await work.end(5)
    assert len(work.open) == 20 + SPARE
    working.cancel()
    await asyncio.wait([working])


async def test_all_is_counted_and_told() -> None:
    failure = Failure(make_request().id, FailureReason.TIMEOUT, "no", TIMINGS)

    async def carry_out(assignment: Assignment) -> list[Call]:
        await asyncio.sleep(0)
        return [make_call(failure, RowCounts(2, failed=2)), make_call()] if assignment.number % 2 else [make_call()]

    told: list[RowCounts] = []
    crew = Crew(lambda: 4)
    tally = await crew.work_off(map(make_assignment, range(400)), carry_out, told.append)
    assert (tally.assignments, tally.calls) == (400, 600)
    assert tally.rows == sum(told, RowCounts()) == RowCounts(1200, accepted=800, failed=400)
    assert (tally.prompt_tokens, tally.completion_tokens) == (4000, 2000)
    assert crew.num_working == 0


async def test_an_empty_plan_is_done_at_once() -> None:
    work = Work()
    tally = await Crew(lambda: 4).work_off([], work.carry_out, ignore)
    assert tally.assignments == 0


async def test_one_plan_after_another() -> None:
    async def carry_out(_: Assignment) -> list[Call]:
        return [make_call()]

    crew = Crew(lambda: 4)
    for num_assignments in (5, 0, 300):
        tally = await crew.work_off(map(make_assignment, range(num_assignments)), carry_out, ignore)
        assert tally.assignments == num_assignments


@pytest.mark.parametrize("where", ["work", "plan", "telling"])
async def test_the_first_error_ends_the_others(where: str) -> None:
    work = Work()

    def plan() -> Iterator[Assignment]:
        for number in range(40):
            if where == "plan" and number == 20:
                raise ValueError("no more ideas")
            yield make_assignment(number)

    async def carry_out(assignment: Assignment) -> list[Call]:
        if assignment.number == 30:
            if where == "work":
                raise ValueError("no more ideas")
            return [make_call()]
        return await work.carry_out(assignment)

    def done(_rows: RowCounts) -> None:
        if where == "telling":
            raise ValueError("no more ideas")

    crew = Crew(lambda: 4)
    with pytest.raises(ExceptionGroup) as raised:
        await crew.work_off(plan(), carry_out, done)
    assert raised.group_contains(ValueError, match="no more ideas", depth=1)
    assert len(raised.value.exceptions) == 1
    assert (crew.num_working, work.open) == (0, [])


async def test_growing_when_nothing_is_worked_off_does_nothing() -> None:
    crew = Crew(lambda: 4)
    crew.grow()
    await crew.work_off([], Work().carry_out, ignore)
    crew.grow()
    assert crew.num_working == 0


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_the_limit_may_change_while_the_work_ends_in_an_error(how: str, turns: int) -> None:
    limit = 1
    work = Work()
    crew = Crew(lambda: limit)
    working = asyncio.create_task(crew.work_off(work.endless(), work.carry_out, ignore))
    await settle()
    if how == "fails":
        work.open[0].set_exception(ValueError("no more ideas"))
    else:
        working.cancel()
    for _ in range(turns):
        await asyncio.sleep(0)
    limit = 100
    crew.grow()
    await asyncio.wait([working])
    assert working.cancelled() == (how == "is cancelled")
    assert working.cancelled() or isinstance(working.exception(), ExceptionGroup)
    assert (crew.num_working, work.open) == (0, [])


@given(limits=st.lists(st.integers(1, 60), min_size=1, max_size=20), num_assignments=st.integers(0, 250))
def test_whatever_the_limit_does_all_is_done_once_and_never_too_much_at_once(limits: list[int], num_assignments: int) -> None:
    async def main() -> None:
        done: list[int] = []
        limit = limits[0]
        highest = limit
        num_open = 0

        async def carry_out(assignment: Assignment) -> list[Call]:
            nonlocal num_open, limit, highest
            num_open += 1
            assert num_open <= 2 * highest + SPARE
            await asyncio.sleep(0)
            limit = limits[len(done) % len(limits)]
            highest = max(highest, limit)
            crew.grow()
            await asyncio.sleep(0)
            num_open -= 1
            done.append(assignment.number)
            return [make_call()]

        crew = Crew(lambda: limit)
        tally = await crew.work_off(map(make_assignment, range(num_assignments)), carry_out, ignore)
        assert sorted(done) == list(range(num_assignments))
        assert tally.assignments == num_assignments

    asyncio.run(main())
