from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from asyncio_throttle import Throttler  # pyright: ignore[reportPrivateImportUsage]
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import StoreError
from engine.records import Completion, Failure, FailureReason, Outcome, Request
from engine.teacher import batcher as module
from engine.teacher import lanes
from engine.teacher.batcher import BACKOFF_S, MAX_DRAWS, OVERLOADS, Batcher
from engine.teacher.lane import Lane
from engine.teacher.teacher import Teacher, TeacherError
from engine.testing.teacher import Reply, ScriptedTeacher
from tests.engine.asking import (
    FakeTime,
    Gates,
    Records,
    Watched,
    dropped,
    make_completion,
    make_lane,
    make_request,
    overloaded,
    refused,
    settle,
)


@pytest.fixture(autouse=True)
def observe_refusals_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "BURST_S", 0.0)


@asynccontextmanager
async def batching(teacher: Teacher | Lane, *, limit: int = 4, **changes: Any) -> AsyncGenerator[Batcher]:
    """When it is left, no task is."""
    lane = teacher if isinstance(teacher, Lane) else make_lane(teacher, limit)
    fake_time = changes.pop("time", FakeTime())
    defaults: dict[str, Any] = {"attempts": 4, "random": Random(0), "record": Records().record, "sleep": fake_time.sleep}
    before = asyncio.all_tasks()
    async with Batcher([lane], clock=fake_time.clock, **(defaults | changes)) as batcher:
        yield batcher
    await asyncio.sleep(0)
    assert asyncio.all_tasks() - before == set()
    assert lane.in_flight == lane.taken == 0


def apart(number: int) -> Request:
    """Requests that do not travel together, and leave in the order of their numbers."""
    return make_request(10 * number)


def start(batcher: Batcher, *requests: Request) -> list[asyncio.Task[Outcome]]:
    return [asyncio.create_task(batcher.ask(request)) for request in requests]


# Ends.


async def test_an_answer_is_recorded_before_it_is_returned() -> None:
    may_record = asyncio.Event()
    records = Records(until=may_record)
    async with batching(ScriptedTeacher(["[]"]), record=records.record) as batcher:
        (asking,) = start(batcher, make_request())
        await settle()
        assert not asking.done()
        may_record.set()
        assert [await asking] == list(records.outcomes.values())


async def test_a_request_already_recorded_is_replayed_not_sent() -> None:
    known = make_completion(make_request())
    records = Records(known)
    async with batching(ScriptedTeacher([]), replay=records.replay, record=records.record) as batcher:
        assert await batcher.ask(make_request()) is known
        assert (batcher.statistics().replayed, batcher.statistics().sent, batcher.statistics().completion_tokens) == (1, 0, 0)


async def test_what_is_refused_is_not_sent_again() -> None:
    records = Records()
    teacher = ScriptedTeacher([refused()])
    async with batching(teacher, record=records.record) as batcher:
        outcome = await batcher.ask(make_request())
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.detail, outcome.timings.attempts) == (FailureReason.REFUSED, "no such thing", 1)
    assert list(records.outcomes.values()) == [outcome]
    assert len(teacher.requests) == 1


@pytest.mark.parametrize("reason", [FailureReason.SERVER_ERROR, FailureReason.TIMEOUT, FailureReason.BAD_REPLY])
async def test_attempts_are_counted_in_all(reason: FailureReason) -> None:
    teacher = ScriptedTeacher([TeacherError(reason, "no")] * 3)
    before = time.time()
    async with batching(teacher, attempts=3) as batcher:
        outcome = await batcher.ask(make_request())
    assert isinstance(outcome, Failure)
    assert outcome.reason is reason
    assert outcome.timings.attempts == len(teacher.requests) == 3
    assert before <= outcome.timings.started_at <= time.time()


async def test_an_answer_at_last_says_when_it_was_first_asked_for() -> None:
    async with batching(ScriptedTeacher([overloaded(), TeacherError(FailureReason.TIMEOUT, "too slow"), "[]"])) as batcher:
        before = time.time()
        outcome = await batcher.ask(make_request())
        assert (outcome.timings.attempts, batcher.statistics().sent, batcher.statistics().retried) == (3, 3, 2)
    assert before <= outcome.timings.started_at <= time.time()


async def test_equal_requests_under_way_are_sent_once() -> None:
    gates = Gates()
    teacher = ScriptedTeacher(gates)
    async with batching(teacher) as batcher:
        asking = start(batcher, make_request(), make_request(), make_request())
        await settle()
        gates.open(0)
        one, two, three = await asyncio.gather(*asking)
        assert one is two is three
        assert len(teacher.requests) == 1
        assert (batcher.statistics().asked, batcher.statistics().shared, batcher.statistics().completed) == (3, 2, 1)


async def test_a_record_that_cannot_be_written_stops_everyone() -> None:
    async def record(_outcome: Outcome) -> None:
        raise StoreError("disk full")

    gates = Gates()
    teacher = ScriptedTeacher(gates)
    async with batching(teacher, limit=2, record=record) as batcher:
        asking = start(batcher, *map(apart, range(4)))
        await settle()
        gates.open(0)
        ends = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(end) for end in ends] == [StoreError] * 4
        with pytest.raises(StoreError, match="disk full"):
            await batcher.ask(apart(5))
        assert (batcher.statistics().completed, batcher.statistics().waiting) == (0, 0)
        await settle()
    assert [request.sampling.seed for request in teacher.requests] == [0, 10, 20]


async def test_a_mistake_in_a_teacher_stops_everyone() -> None:
    async with batching(ScriptedTeacher(["[]"]), limit=1) as batcher:
        ends = await asyncio.gather(*start(batcher, *map(apart, range(3))), return_exceptions=True)
    assert [type(end) for end in ends] == [Completion, AssertionError, AssertionError]


# Places and order.


async def test_at_most_so_many_are_in_flight_and_places_are_refilled_one_by_one() -> None:
    gates = Gates()
    teacher = ScriptedTeacher(gates)
    async with batching(teacher, limit=2) as batcher:
        asking = start(batcher, *map(apart, range(4)))
        await settle()
        assert [request.sampling.seed for request in teacher.requests] == [0, 10]
        assert (batcher.statistics().in_flight, batcher.statistics().waiting) == (2, 2)
        gates.open(10)
        await settle()
        assert [request.sampling.seed for request in teacher.requests] == [0, 10, 20]
        for seed in (0, 20, 30):
            gates.open(seed)
        await asyncio.gather(*asking)
        assert teacher.peak_in_flight == batcher.statistics().peak_in_flight == 2
        assert (batcher.statistics().in_flight, batcher.statistics().waiting) == (0, 0)


async def test_a_later_turn_of_a_conversation_goes_before_a_first_turn() -> None:
    gates = Gates()
    teacher = Watched(gates)
    async with batching(teacher, limit=1) as batcher:
        first = [*start(batcher, *map(apart, range(3)))]
        await settle()
        second = asyncio.create_task(batcher.ask(apart(9), 1))
        await settle()
        for seed in (0, 90, 10, 20):
            gates.open(seed)
        await asyncio.gather(*first, second)
    assert teacher.posts == [[0], [90], [10], [20]]


async def test_who_waits_for_the_record_holds_no_place() -> None:
    may_record = asyncio.Event()
    teacher = ScriptedTeacher(lambda _: "[]")
    async with batching(teacher, limit=1, record=Records(until=may_record).record) as batcher:
        asking = start(batcher, *map(apart, range(3)))
        await settle()
        assert len(teacher.requests) == batcher.statistics().waiting == 3
        may_record.set()
        await asyncio.gather(*asking)


# Draws.


async def test_draws_of_one_prompt_travel_together_and_end_each_for_itself() -> None:
    teacher = Watched(lambda request: f"[{request.sampling.seed}]")
    async with batching(teacher, limit=100) as batcher:
        asking = start(batcher, *(make_request(seed) for seed in (7, 5, 9, 6)), make_request(8, prompt="Something else."))
        outcomes = await asyncio.gather(*asking)
        assert [outcome.text for outcome in outcomes if isinstance(outcome, Completion)] == ["[7]", "[5]", "[9]", "[6]", "[8]"]
        assert (batcher.statistics().posts, batcher.statistics().sent, batcher.statistics().completed) == (3, 5, 5)
    assert sorted(teacher.posts) == [[5, 6, 7], [8], [9]]


async def test_draws_take_as_many_places_as_they_are() -> None:
    gates = Gates()
    teacher = Watched(gates)
    async with batching(teacher, limit=4) as batcher:
        asking = start(batcher, *(make_request(seed) for seed in range(6)))
        await settle()
        assert teacher.posts == [[0, 1, 2, 3]]
        assert batcher.statistics().in_flight == 4
        for seed in range(6):
            gates.open(seed)
        await asyncio.gather(*asking)
    assert teacher.posts == [[0, 1, 2, 3], [4, 5]]


async def test_draws_are_bounded() -> None:
    teacher = Watched()
    async with batching(teacher, limit=100) as batcher:
        await asyncio.gather(*start(batcher, *(make_request(seed) for seed in range(3 * MAX_DRAWS))))
    assert list(map(len, teacher.posts)) == [MAX_DRAWS] * 3


class OneAtATime(Watched):
    """Refuses several draws, as some servers do; and what its script refuses."""

    takes_several = False

    async def complete(self, draws: Any) -> list[Completion]:
        if len(draws) > 1 and not self.takes_several:
            self.posts.append([request.sampling.seed for request in draws])
            raise refused()
        return await super().complete(draws)


async def test_a_server_that_refuses_several_draws_gets_them_one_by_one() -> None:
    teacher = OneAtATime()
    lane = make_lane(teacher, 4)
    async with batching(lane) as batcher:
        for seed in range(0, 40, 8):
            outcomes = await asyncio.gather(*start(batcher, *(make_request(seed + number) for number in range(8))))
            assert all(isinstance(outcome, Completion) and outcome.timings.attempts == 1 for outcome in outcomes)
        statistics = batcher.statistics()
        assert statistics.sent - statistics.retried == statistics.completed
    assert not lane.takes_draws
    assert [post for post in teacher.posts if len(post) > 1] == [[0, 1, 2, 3]]


async def test_of_draws_refused_together_each_is_judged_alone_and_others_still_travel_together() -> None:
    def script(request: Request) -> Reply:
        return refused() if request.messages[-1].content == "Too long." else "[]"

    teacher = Watched(script)
    lane = make_lane(teacher, 4)
    async with batching(lane) as batcher:
        outcomes = await asyncio.gather(*start(batcher, *(make_request(seed, prompt="Too long.") for seed in range(12))))
        assert [type(outcome) for outcome in outcomes] == [Failure] * 12
        await asyncio.gather(*start(batcher, *(make_request(seed) for seed in range(4))))
    assert [post for post in teacher.posts if len(post) > 1] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [0, 1, 2, 3]]
    assert all(teacher.posts.count([seed]) == 1 for seed in range(12))


async def test_draws_that_failed_together_are_tried_one_by_one() -> None:
    broken = TeacherError(FailureReason.SERVER_ERROR, "broke")
    teacher = Watched(lambda request: broken if request.sampling.seed == 2 else "[]")
    async with batching(teacher) as batcher:
        outcomes = await asyncio.gather(*start(batcher, *(make_request(seed) for seed in range(4))))
    assert [type(outcome) for outcome in outcomes] == [Completion, Completion, Failure, Completion]
    assert teacher.posts[0] == [0, 1, 2, 3]
    assert sorted(teacher.posts[1:]) == [[0], [1], [2], [2], [2], [3]]


async def test_draws_under_which_a_connection_drops_stay_together_once() -> None:
    teacher = Watched([dropped(), dropped(), "[]", "[]"])
    async with batching(teacher) as batcher:
        await asyncio.gather(*start(batcher, make_request(0), make_request(1)))
    assert teacher.posts[:2] == [[0, 1], [0, 1]]
    assert sorted(teacher.posts[2:]) == [[0], [1]]


async def test_one_of_several_draws_gives_up_and_the_others_go_on() -> None:
    gates = Gates()
    teacher = Watched(gates)
    records = Records()
    async with batching(teacher, record=records.record) as batcher:
        asking = start(batcher, make_request(0), make_request(1))
        await settle()
        asking[0].cancel()
        await settle()
        (again,) = start(batcher, make_request(0))
        await settle()
        assert gates.cancelled == []
        for seed in (0, 1):
            gates.open(seed)
        assert isinstance(await asking[1], Completion)
        assert isinstance(await again, Completion)
    assert teacher.posts == [[0, 1]]
    assert len(records.outcomes) == 2


async def test_of_draws_that_fail_only_those_still_wanted_are_sent_again() -> None:
    gates = Gates()
    teacher = Watched(gates)
    async with batching(teacher) as batcher:
        asking = start(batcher, make_request(0), make_request(1))
        await settle()
        asking[0].cancel()
        await settle()
        gates.open(0, TeacherError(FailureReason.SERVER_ERROR, "broke"))
        gates.open(1)
        assert isinstance(await asking[1], Completion)
        assert batcher.statistics().waiting == 0
    assert teacher.posts == [[0, 1], [1]]


async def test_when_all_draws_are_given_up_their_request_ends() -> None:
    gates = Gates()
    teacher = Watched(gates)
    async with batching(teacher, limit=2) as batcher:
        asking = start(batcher, make_request(0), make_request(1))
        await settle()
        assert batcher.statistics().in_flight == 2
        for task in asking:
            task.cancel()
        await settle()
        assert (batcher.statistics().in_flight, batcher.statistics().waiting, teacher.in_flight) == (0, 0, 0)


# Drops, overload and back-off.


async def test_a_dropped_connection_is_tried_again_at_once_and_in_front() -> None:
    fake_time = FakeTime()
    teacher = Watched([dropped(), "[]", "[]"])
    async with batching(teacher, limit=1, time=fake_time) as batcher:
        first, _ = await asyncio.gather(*start(batcher, apart(1), apart(2)))
    assert teacher.posts == [[10], [10], [20]]
    assert (teacher.num_probes, fake_time.delays, first.timings.attempts) == (1, [], 2)


async def test_a_request_that_breaks_every_connection_fails_alone() -> None:
    teacher = Watched(lambda request: dropped() if request.sampling.seed == 10 else "[]")
    async with batching(teacher) as batcher:
        outcomes = await asyncio.gather(*start(batcher, apart(0), apart(1), apart(2)))
    assert [type(outcome) for outcome in outcomes] == [Completion, Failure, Completion]
    assert isinstance(outcomes[1], Failure)
    assert outcomes[1].reason is FailureReason.CONNECTION
    assert outcomes[1].timings.attempts == teacher.posts.count([10]) == 4


async def test_a_drop_is_tried_again_even_where_one_attempt_is_all() -> None:
    async with batching(ScriptedTeacher([dropped(), "[]"]), attempts=1) as batcher:
        assert isinstance(await batcher.ask(make_request()), Completion)


async def test_who_backs_off_holds_no_place() -> None:
    awake = asyncio.Event()
    teacher = ScriptedTeacher(lambda request: overloaded() if request.sampling.seed == 10 and not awake.is_set() else "[]")
    async with batching(teacher, limit=1, time=FakeTime(until=awake)) as batcher:
        (refused_at_first,) = start(batcher, apart(1))
        await batcher.ask(apart(2))
        assert not refused_at_first.done()
        awake.set()
        assert isinstance(await refused_at_first, Completion)


async def test_back_off_doubles_and_is_spread() -> None:
    fake_time = FakeTime()
    async with batching(ScriptedTeacher([overloaded()] * 3 + ["[]"]), time=fake_time) as batcher:
        await batcher.ask(make_request())
    for delay_s, least_s in zip(fake_time.delays, (BACKOFF_S, 2 * BACKOFF_S, 4 * BACKOFF_S), strict=True):
        assert least_s < delay_s < 1.5 * least_s
    assert len({delay_s / 2**times for times, delay_s in enumerate(fake_time.delays)}) == 3


async def test_back_off_is_never_shorter_than_the_server_asks_for() -> None:
    fake_time = FakeTime()
    async with batching(ScriptedTeacher([overloaded(retry_after_s=30), "[]"]), time=fake_time) as batcher:
        await batcher.ask(make_request())
    assert 30 < fake_time.delays[0] < 45


async def test_overloads_are_no_attempts_and_have_a_bound_of_their_own() -> None:
    fake_time = FakeTime()
    teacher = ScriptedTeacher([overloaded()] * OVERLOADS)
    async with batching(teacher, attempts=1, time=fake_time) as batcher:
        outcome = await batcher.ask(make_request())
        assert batcher.statistics().overloads == OVERLOADS
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.timings.attempts) == (FailureReason.OVERLOADED, OVERLOADS)
    assert max(fake_time.delays) <= 1.5 * module.MAX_BACKOFF_S


async def test_a_refusal_makes_no_room_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "BURST_S", 3600.0)
    monkeypatch.setattr(lanes, "OBSERVE_S", 3600.0)
    teacher = ScriptedTeacher(lambda _: overloaded())
    async with batching(teacher, limit=3, time=FakeTime(until=asyncio.Event())) as batcher:
        asking = start(batcher, *map(apart, range(9)))
        await settle()
        assert len(teacher.requests) == batcher.statistics().overloads == 3
        for task in asking:
            task.cancel()
        await settle()


# The user's ceilings.


async def test_the_users_ceiling_holds_the_rest_back() -> None:
    teacher = ScriptedTeacher(lambda _: "[]")
    async with batching(teacher, ceilings=[Throttler(2, 3600.0, 0.001)]) as batcher:
        asking = start(batcher, *map(apart, range(3)))
        await asyncio.gather(*asking[:2])
        await settle()
        assert not asking[2].done()
        assert (batcher.statistics().sent, batcher.statistics().in_flight, batcher.statistics().waiting) == (2, 0, 1)
        asking[2].cancel()
        await asyncio.wait([asking[2]])
        assert batcher.statistics().waiting == 0


async def test_the_lowest_of_several_ceilings_counts() -> None:
    teacher = ScriptedTeacher(lambda _: "[]")
    async with batching(teacher, ceilings=[Throttler(3, 3600.0, 0.001), Throttler(1, 3600.0, 0.001)]) as batcher:
        asking = start(batcher, *map(apart, range(3)))
        await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        await settle()
        assert len(teacher.requests) == 1
        for task in asking:
            task.cancel()
        await settle()


# Giving up.


async def test_one_who_gives_up_does_not_speak_for_the_others() -> None:
    gates = Gates()
    async with batching(ScriptedTeacher(gates)) as batcher:
        first, second = start(batcher, make_request(), make_request())
        await settle()
        first.cancel()
        await settle()
        assert first.cancelled()
        assert gates.cancelled == []
        gates.open(0)
        assert isinstance(await second, Completion)


async def test_when_all_give_up_the_request_ends_and_can_be_asked_anew() -> None:
    gates = Gates()
    teacher = ScriptedTeacher(gates)
    async with batching(teacher) as batcher:
        asking = start(batcher, make_request(), make_request())
        await settle()
        for task in asking:
            task.cancel()
        (again,) = start(batcher, make_request())  # before the cancelling is through
        await settle()
        assert gates.cancelled == [0]
        assert all(task.cancelled() for task in asking)
        gates.open(0)
        assert isinstance(await again, Completion)
        assert teacher.in_flight == 0
        assert batcher.statistics().waiting == 0


async def cancel_while(batcher: Batcher, is_waiting: Callable[[], bool]) -> None:
    (asking,) = start(batcher, make_request())
    await settle()
    assert is_waiting()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await settle()
    assert (batcher.statistics().in_flight, batcher.statistics().waiting) == (0, 0)


async def test_cancelled_at_the_teacher() -> None:
    async with batching(ScriptedTeacher(Gates())) as batcher:
        await cancel_while(batcher, lambda: batcher.statistics().in_flight == 1)


async def test_cancelled_in_back_off() -> None:
    fake_time = FakeTime(until=asyncio.Event())
    async with batching(ScriptedTeacher([overloaded()]), time=fake_time) as batcher:
        await cancel_while(batcher, lambda: len(fake_time.delays) == 1)


async def test_cancelled_while_the_server_is_probed() -> None:
    fake_time = FakeTime(until=asyncio.Event())
    teacher = Watched([dropped()])
    teacher.alive = False
    async with batching(teacher, time=fake_time) as batcher:
        await cancel_while(batcher, lambda: teacher.num_probes == 1)


async def test_cancelled_at_the_users_ceiling() -> None:
    ceiling = Throttler(1, 3600.0, 0.001)
    await ceiling.acquire()
    async with batching(ScriptedTeacher([]), ceilings=[ceiling]) as batcher:
        await cancel_while(batcher, lambda: batcher.statistics().waiting == 1)


async def test_cancelled_while_waiting_for_a_place() -> None:
    gates = Gates()
    async with batching(ScriptedTeacher(gates), limit=1) as batcher:
        (other,) = start(batcher, apart(9))
        await settle()
        (asking,) = start(batcher, apart(0))
        await settle()
        assert (batcher.statistics().in_flight, batcher.statistics().waiting) == (1, 1)
        asking.cancel()
        await settle()
        assert asking.cancelled()
        gates.open(90)
        await other


@pytest.mark.parametrize("reply", ["[]", refused()])
async def test_cancelled_while_recording_the_record_is_finished_and_found_by_who_asks_again(reply: Reply) -> None:
    may_record = asyncio.Event()
    records = Records(until=may_record)
    async with batching(ScriptedTeacher([reply]), record=records.record, replay=records.replay) as batcher:
        asking, late = [*start(batcher, make_request()), asyncio.create_task(asyncio.sleep(0))]
        await records.is_recording.wait()
        asking.cancel()
        await asyncio.wait([asking, late])
        (again,) = start(batcher, make_request())
        await settle()
        assert not again.done()
        may_record.set()
        assert await again is records.outcomes[make_request().id]
        assert batcher.statistics().sent == 1


async def test_leaving_lets_what_was_answered_be_recorded() -> None:
    may_record = asyncio.Event()
    records = Records(until=may_record)
    async with batching(ScriptedTeacher(lambda _: "[]"), limit=100, record=records.record) as batcher:
        asking = start(batcher, *(make_request(seed) for seed in range(8)))
        await settle()
        for task in asking:
            task.cancel()
        asyncio.get_running_loop().call_soon(may_record.set)
    assert len(records.outcomes) == 8


async def test_leaving_ends_those_who_wait_whatever_for() -> None:
    gates = Gates()
    async with batching(ScriptedTeacher(gates), limit=2, time=FakeTime(until=asyncio.Event())) as batcher:
        asking = start(batcher, *map(apart, range(5)))
        await settle()
        gates.open(0, overloaded())
        await settle()
        ends = asyncio.gather(*asking, return_exceptions=True)
    assert sorted(gates.cancelled) == [10, 20]
    assert [type(end) for end in await ends] == [RuntimeError] * 5


async def test_a_place_given_up_before_its_request_left_is_free_again() -> None:
    """The one who asked is cancelled in the moment in which another's answer gives it a place."""
    gates = Gates()
    teacher = Watched(gates)
    lane = make_lane(teacher, 1)
    async with batching(lane) as batcher:
        first, second, third = start(batcher, *map(apart, range(3)))
        await settle()
        gates.open(0)
        for _ in range(6):
            await asyncio.sleep(0)
            if lane.in_flight == 0:
                break
        second.cancel()
        await settle()
        gates.open(20)
        assert isinstance(await third, Completion)
        await first


@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_after_any_number_of_turns_nothing_is_left(turns: int) -> None:
    gates = Gates()
    lane = make_lane(Watched(gates), 1)
    async with batching(lane) as batcher:
        first, second = start(batcher, apart(0), apart(1))
        await settle()
        gates.open(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([first, second])
        await settle()
        assert lane.taken == lane.in_flight == batcher.statistics().waiting == 0
        (third,) = start(batcher, apart(2))
        gates.open(20)
        assert isinstance(await third, Completion)


# Whatever happens.

KINDS: dict[str, Callable[[], Reply]] = {
    "answer": lambda: "[]",
    "drop": dropped,
    "busy": overloaded,
    "refuse": refused,
    "break": lambda: TeacherError(FailureReason.SERVER_ERROR, "broke"),
}


def endless(kinds: list[str]) -> Iterator[str]:
    """An answer at the end, as a server that only says that it is busy is asked very often."""
    yield from kinds
    while True:
        yield "answer"


@given(
    plan=st.lists(st.lists(st.sampled_from(sorted(KINDS)), max_size=5), min_size=1, max_size=8),
    seeds=st.lists(st.integers(0, 12), max_size=40),
    given_up=st.sets(st.integers(0, 39), max_size=6),
    turns=st.integers(0, 12),
    limits=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    known=st.sets(st.integers(0, 12)),
)
def test_every_request_ends_once_and_the_counts_add_up(
    plan: list[list[str]], seeds: list[int], given_up: set[int], turns: int, limits: list[int], known: set[int]
) -> None:
    """Whatever the teachers do in whatever order, and whoever gives up when."""

    async def main() -> None:
        replies = {seed: endless(plan[seed % len(plan)]) for seed in range(13)}

        async def script(request: Request) -> Reply:
            await asyncio.sleep(0)
            return KINDS[next(replies[request.sampling.seed])]()

        records = Records(*(make_completion(make_request(seed)) for seed in known))
        teachers = [Watched(script) for _ in limits]
        servers = [make_lane(teacher, limit) for teacher, limit in zip(teachers, limits, strict=True)]
        fake_time = FakeTime()
        async with Batcher(
            servers,
            attempts=3,
            random=Random(0),
            record=records.record,
            replay=records.replay,
            sleep=fake_time.sleep,
            clock=fake_time.clock,
        ) as batcher:
            asking = start(batcher, *map(make_request, seeds))
            for _ in range(turns):
                await asyncio.sleep(0)
            for number in given_up & set(range(len(asking))):
                asking[number].cancel()
            ends = await asyncio.gather(*asking, return_exceptions=True)
            await settle()
            statistics = batcher.statistics()
            await asyncio.sleep(0)
        cancelled = sum(isinstance(end, asyncio.CancelledError) for end in ends)
        for seed, end in zip(seeds, ends, strict=True):
            assert isinstance(end, asyncio.CancelledError) or records.outcomes[make_request(seed).id] is end
        num_ended = statistics.completed + statistics.failed
        assert statistics.asked <= len(seeds)
        assert 0 <= statistics.asked - statistics.shared - statistics.replayed - num_ended <= cancelled
        assert num_ended == len(records.outcomes) - len(known)
        assert statistics.sent == sum(len(teacher.requests) for teacher in teachers)
        assert statistics.posts == sum(len(teacher.posts) for teacher in teachers)
        assert statistics.sent - statistics.retried >= len({request.id for teacher in teachers for request in teacher.requests})
        assert all(teacher.peak_in_flight <= limit for teacher, limit in zip(teachers, limits, strict=True))
        assert statistics.peak_in_flight <= sum(limits) == statistics.limit
        assert (statistics.in_flight, statistics.waiting) == (0, 0)
        assert all(server.taken == 0 for server in servers)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
