from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batcher import BACKOFF_S, Batcher
from engine.errors import ServerError, StoreError
from engine.records import Completion, Failure, FailureReason, Outcome, Request
from engine.teacher import TeacherError
from engine.testing.teacher import Reply, Script, ScriptedTeacher
from tests.engine.asking import dropped, make_completion, make_request, overloaded, refused


class Gates:
    """A script in which each request waits until the test lets it go; a gate is closed until then."""

    def __init__(self) -> None:
        self._gates: dict[int, asyncio.Future[Reply]] = {}
        self.cancelled: list[int] = []

    def gate(self, seed: int) -> asyncio.Future[Reply]:
        return self._gates.setdefault(seed, asyncio.get_running_loop().create_future())

    def open(self, seed: int, reply: Reply = "[]") -> None:
        """Let the request through that waits here; the next with this seed waits anew."""
        self._gates.pop(seed).set_result(reply)

    async def __call__(self, request: Request) -> Reply:
        try:
            return await asyncio.shield(self.gate(request.sampling.seed))
        except asyncio.CancelledError:
            self.cancelled.append(request.sampling.seed)
            raise


class Sleeps:
    """Stands in for asyncio.sleep: notes how long, and returns at once, or when the test says so."""

    def __init__(self, *, until: asyncio.Event | None = None) -> None:
        self.delays: list[float] = []
        self._until = until

    async def __call__(self, delay_s: float) -> None:
        self.delays.append(delay_s)
        if self._until is not None:
            await self._until.wait()


class Journal:
    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    async def record(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def make_batcher(script: Script | ScriptedTeacher, **changes: Any) -> Batcher:
    teacher = script if isinstance(script, ScriptedTeacher) else ScriptedTeacher(script)
    defaults: dict[str, Any] = {"concurrency": 4, "attempts": 4, "random": Random(0), "record": Journal().record, "sleep": Sleeps()}
    return Batcher(teacher, **(defaults | changes))


async def settle() -> None:
    """Let every task run until all of them wait for something outside."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_an_answer_is_recorded_before_it_is_returned() -> None:
    recorded = asyncio.Event()
    journal = Journal()

    async def record(outcome: Outcome) -> None:
        await recorded.wait()
        await journal.record(outcome)

    asking = asyncio.create_task(make_batcher(["[]"], record=record).ask(make_request()))
    await settle()
    assert not asking.done()
    recorded.set()
    assert [await asking] == journal.outcomes


async def test_a_request_already_recorded_is_replayed_not_sent() -> None:
    request = make_request()
    known = make_completion(request)
    journal = Journal()
    batcher = make_batcher([], replay={request.id: known}.get, record=journal.record)
    assert await batcher.ask(request) is known
    assert journal.outcomes == []
    assert batcher.statistics().replayed == 1
    assert batcher.statistics().completion_tokens == 0


async def test_at_most_so_many_are_in_flight_and_places_are_refilled_one_by_one() -> None:
    gates = Gates()
    teacher = ScriptedTeacher(gates)
    batcher = make_batcher(teacher, concurrency=2)
    asking = [asyncio.create_task(batcher.ask(make_request(seed))) for seed in range(4)]
    await settle()
    assert [request.sampling.seed for request in teacher.requests] == [0, 1]
    assert (batcher.statistics().in_flight, batcher.statistics().waiting) == (2, 2)
    gates.open(1)
    await settle()
    assert [request.sampling.seed for request in teacher.requests] == [0, 1, 2]
    for seed in (0, 2):
        gates.open(seed)
    await settle()
    gates.open(3)
    await asyncio.gather(*asking)
    assert teacher.peak_in_flight == batcher.statistics().peak_in_flight == 2
    assert (batcher.statistics().in_flight, batcher.statistics().waiting) == (0, 0)


async def test_a_dropped_connection_is_tried_again_at_once_in_its_place() -> None:
    sleeps = Sleeps()
    teacher = ScriptedTeacher([dropped(), "[]", "[]"])
    batcher = make_batcher(teacher, concurrency=1, sleep=sleeps)
    first, _ = await asyncio.gather(batcher.ask(make_request(1)), batcher.ask(make_request(2)))
    assert [request.sampling.seed for request in teacher.requests] == [1, 1, 2]
    assert sleeps.delays == []
    assert first.timings.attempts == 2


async def test_a_connection_that_drops_again_waits_like_the_others() -> None:
    sleeps = Sleeps()
    outcome = await make_batcher([dropped(), dropped(), dropped(), "[]"], sleep=sleeps).ask(make_request())
    assert isinstance(outcome, Completion)
    assert outcome.timings.attempts == 4
    assert len(sleeps.delays) == 2


async def test_a_timeout_after_a_drop_waits_too() -> None:
    sleeps = Sleeps()
    timeout = TeacherError(FailureReason.TIMEOUT, "too slow")
    await make_batcher([dropped(), timeout, timeout, "[]"], sleep=sleeps).ask(make_request())
    assert len(sleeps.delays) == 2


async def test_who_backs_off_holds_no_place() -> None:
    awake = asyncio.Event()
    teacher = ScriptedTeacher(lambda request: overloaded() if request.sampling.seed == 1 and not awake.is_set() else "[]")
    batcher = make_batcher(teacher, concurrency=1, sleep=Sleeps(until=awake))
    refused_at_first = asyncio.create_task(batcher.ask(make_request(1)))
    await batcher.ask(make_request(2))
    assert not refused_at_first.done()
    awake.set()
    assert isinstance(await refused_at_first, Completion)


async def test_back_off_doubles_and_is_spread() -> None:
    sleeps = Sleeps()
    outcome = await make_batcher([overloaded()] * 4, sleep=sleeps).ask(make_request())
    assert isinstance(outcome, Failure)
    for delay_s, least_s in zip(sleeps.delays, (BACKOFF_S, 2 * BACKOFF_S, 4 * BACKOFF_S), strict=True):
        assert least_s < delay_s < 1.5 * least_s
    assert len({delay_s / 2**times for times, delay_s in enumerate(sleeps.delays)}) == 3


async def test_back_off_is_never_shorter_than_the_server_asks_for() -> None:
    sleeps = Sleeps()
    await make_batcher([overloaded(retry_after_s=30), "[]"], sleep=sleeps).ask(make_request())
    assert 30 < sleeps.delays[0] < 45


async def test_what_is_refused_is_not_sent_again() -> None:
    journal = Journal()
    teacher = ScriptedTeacher([refused()])
    outcome = await make_batcher(teacher, record=journal.record).ask(make_request())
    assert isinstance(outcome, Failure)
    assert outcome.reason is FailureReason.REFUSED
    assert outcome.detail == "no such thing"
    assert outcome.timings.attempts == 1
    assert journal.outcomes == [outcome]


@pytest.mark.parametrize("reason", [FailureReason.OVERLOADED, FailureReason.SERVER_ERROR, FailureReason.TIMEOUT, FailureReason.BAD_REPLY])
async def test_attempts_are_counted_in_all(reason: FailureReason) -> None:
    teacher = ScriptedTeacher([TeacherError(reason, "no")] * 3)
    before = time.time()
    outcome = await make_batcher(teacher, attempts=3).ask(make_request())
    assert isinstance(outcome, Failure)
    assert outcome.reason is reason
    assert outcome.timings.attempts == len(teacher.requests) == 3
    assert before <= outcome.timings.started_at <= time.time()


async def test_a_server_that_is_gone_stops_the_run() -> None:
    journal = Journal()
    batcher = make_batcher([dropped()] * 4, record=journal.record)
    with pytest.raises(ServerError, match=r"server is gone: the connection dropped \(after 4 attempts"):
        await batcher.ask(make_request())
    assert journal.outcomes == []


async def test_the_only_attempt_is_not_repeated_for_a_drop() -> None:
    teacher = ScriptedTeacher([dropped()])
    with pytest.raises(ServerError):
        await make_batcher(teacher, attempts=1).ask(make_request())


async def test_a_server_that_dies_under_a_full_load_fails_no_row() -> None:
    """All were in flight, and others were answered, when it died: none of that says that it still lives."""
    gates = Gates()
    journal = Journal()
    is_dead = False

    async def script(request: Request) -> Reply:
        return dropped() if is_dead else await gates(request)

    batcher = make_batcher(script, record=journal.record)
    asking = [asyncio.create_task(batcher.ask(make_request(seed))) for seed in range(4)]
    await settle()
    gates.open(0)
    await settle()
    is_dead = True
    for seed in (1, 2, 3):
        gates.open(seed, dropped())
    ends = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(ends[0], Completion)
    assert [type(end) for end in ends[1:]] == [ServerError] * 3
    assert journal.outcomes == ends[:1]


async def test_a_request_that_breaks_every_connection_fails_alone() -> None:
    async def ask_another(_delay_s: float) -> None:
        await batcher.ask(make_request(2))

    batcher = make_batcher(lambda request: dropped() if request.sampling.seed == 1 else "[]", sleep=ask_another)
    outcome = await batcher.ask(make_request(1))
    assert isinstance(outcome, Failure)
    assert outcome.reason is FailureReason.CONNECTION


async def test_a_server_known_to_be_dead_is_not_asked_again() -> None:
    def check() -> None:
        raise ServerError("the teacher's server ended in the middle of the run")

    teacher = ScriptedTeacher([dropped()])
    with pytest.raises(ServerError, match="in the middle"):
        await make_batcher(teacher, check=check).ask(make_request())


async def test_a_record_that_cannot_be_written_stops_the_run() -> None:
    async def record(_outcome: Outcome) -> None:
        raise StoreError("disk full")

    batcher = make_batcher(["[]"], record=record)
    with pytest.raises(StoreError):
        await batcher.ask(make_request())
    assert batcher.statistics().completed == 0
    assert batcher.statistics().waiting == 0


async def test_equal_requests_under_way_are_sent_once() -> None:
    gates = Gates()
    teacher = ScriptedTeacher(gates)
    batcher = make_batcher(teacher)
    asking = [asyncio.create_task(batcher.ask(make_request())) for _ in range(3)]
    await settle()
    gates.open(0)
    one, two, three = await asyncio.gather(*asking)
    assert one is two is three
    assert len(teacher.requests) == 1
    assert (batcher.statistics().asked, batcher.statistics().shared, batcher.statistics().completed) == (3, 2, 1)


async def test_one_who_gives_up_does_not_speak_for_the_others() -> None:
    gates = Gates()
    batcher = make_batcher(gates)
    first, second = (asyncio.create_task(batcher.ask(make_request())) for _ in range(2))
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
    batcher = make_batcher(teacher)
    asking = [asyncio.create_task(batcher.ask(make_request())) for _ in range(2)]
    await settle()
    for task in asking:
        task.cancel()
    again = asyncio.create_task(batcher.ask(make_request()))  # before the cancelling is through
    await settle()
    assert gates.cancelled == [0]
    assert all(task.cancelled() for task in asking)
    gates.open(0)
    assert isinstance(await again, Completion)
    assert teacher.in_flight == 0
    assert batcher.statistics().waiting == 0


async def cancel_while(batcher: Batcher, is_waiting: Callable[[], bool]) -> None:
    asking = asyncio.create_task(batcher.ask(make_request()))
    await settle()
    assert is_waiting()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (batcher.statistics().in_flight, batcher.statistics().waiting) == (0, 0)


async def test_cancelled_at_the_teacher() -> None:
    batcher = make_batcher(Gates())
    await cancel_while(batcher, lambda: batcher.statistics().in_flight == 1)


async def test_cancelled_in_back_off() -> None:
    sleeps = Sleeps(until=asyncio.Event())
    await cancel_while(make_batcher([overloaded()], sleep=sleeps), lambda: len(sleeps.delays) == 1)


async def test_cancelled_while_waiting_for_a_place() -> None:
    gates = Gates()
    batcher = make_batcher(gates, concurrency=1)
    other = asyncio.create_task(batcher.ask(make_request(9)))
    await settle()
    asking = asyncio.create_task(batcher.ask(make_request()))
    await settle()
    assert (batcher.statistics().in_flight, batcher.statistics().waiting) == (1, 1)
    asking.cancel()
    await settle()
    assert asking.cancelled()
    gates.open(9)
    await other


async def test_cancelled_while_recording() -> None:
    recording = asyncio.Event()

    async def record(_outcome: Outcome) -> None:
        recording.set()
        await asyncio.Event().wait()

    await cancel_while(make_batcher(["[]"], record=record), recording.is_set)


async def test_the_users_ceiling_holds_the_rest_back() -> None:
    teacher = ScriptedTeacher(lambda _: "[]")
    batcher = make_batcher(teacher, requests_per_minute=2)
    asking = [asyncio.create_task(batcher.ask(make_request(seed))) for seed in range(3)]
    await asyncio.gather(*asking[:2])
    await settle()
    assert not asking[2].done()
    assert (batcher.statistics().sent, batcher.statistics().waiting) == (2, 1)
    asking[2].cancel()
    await asyncio.wait([asking[2]])


KINDS: dict[str, Callable[[], Reply]] = {"answer": lambda: "[]", "drop": dropped, "busy": overloaded, "refuse": refused}


@given(
    plan=st.lists(st.lists(st.sampled_from(sorted(KINDS)), min_size=4, max_size=4), min_size=1, max_size=8),
    seeds=st.lists(st.integers(0, 7), max_size=30),
    concurrency=st.integers(1, 5),
    known=st.sets(st.integers(0, 7)),
)
def test_every_request_ends_once_and_the_counts_add_up(plan: list[list[str]], seeds: list[int], concurrency: int, known: set[int]) -> None:
    """Whatever the teacher does in whatever order; a run that a vanished server stopped is not counted here."""

    async def main() -> None:
        attempts: dict[int, int] = {}

        async def script(request: Request) -> Reply:
            await asyncio.sleep(0)
            seed = request.sampling.seed
            attempts[seed] = attempts.get(seed, 0) + 1
            return KINDS[plan[seed % len(plan)][(attempts[seed] - 1) % 4]]()

        journal: dict[str, Outcome] = {make_request(seed).id: make_completion(make_request(seed)) for seed in known}
        num_known = len(journal)

        async def record(outcome: Outcome) -> None:
            assert outcome.request_id not in journal
            journal[outcome.request_id] = outcome

        teacher = ScriptedTeacher(script)
        batcher = make_batcher(teacher, concurrency=concurrency, record=record, replay=journal.get)
        ends = await asyncio.gather(*(batcher.ask(make_request(seed)) for seed in seeds), return_exceptions=True)
        statistics = batcher.statistics()
        stopped = 0
        for seed, end in zip(seeds, ends, strict=True):
            if isinstance(end, ServerError):
                stopped += 1
            else:
                assert journal[make_request(seed).id] is end
        stopped_alone = len({id(end) for end in ends if isinstance(end, ServerError)})
        assert statistics.asked == len(seeds)
        assert statistics.asked == statistics.shared + statistics.replayed + statistics.completed + statistics.failed + stopped_alone
        assert statistics.completed + statistics.failed == len(journal) - num_known
        assert statistics.sent == len(teacher.requests)
        assert statistics.sent - statistics.retried == len(attempts)
        assert teacher.peak_in_flight == statistics.peak_in_flight <= concurrency
        assert (statistics.in_flight, statistics.waiting) == (0, 0)
        assert stopped >= stopped_alone

    asyncio.run(main())
