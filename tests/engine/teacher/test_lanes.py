"""Servers that go away and come back, seen by those who ask."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from engine.errors import ServerError
from engine.records import Completion, Outcome, Request
from engine.teacher import lanes as module
from engine.teacher.batcher import Batcher, ignore
from engine.teacher.concurrency import Observation
from engine.teacher.lane import METRICS_MISSES, Lane, Reach
from engine.teacher.lanes import Observed
from engine.testing.teacher import Reply
from tests.engine.asking import FakeTime, Gates, Records, Watched, dropped, make_lane, make_request, overloaded, settle


def make_batcher(*lanes: Lane, observed: Observed = ignore, **changes: Any) -> Batcher:
    fake_time = changes.pop("time", FakeTime())
    defaults: dict[str, Any] = {"attempts": 4, "random": Random(0), "record": Records().record, "patience_s": 60.0}
    return Batcher(lanes, sleep=fake_time.sleep, clock=fake_time.clock, observed=observed, **(defaults | changes))


def start(batcher: Batcher, *numbers: int) -> list[asyncio.Task[Outcome]]:
    """Requests that do not travel together."""
    return [asyncio.create_task(batcher.ask(make_request(10 * number))) for number in numbers]


async def wait_until(fake_time: FakeTime, now_s: float) -> None:
    """For something that sleeps again and again."""
    for _ in range(100):
        await settle()
    assert fake_time.now_s > now_s


class Mortal(Watched):
    """Drops all that comes while it is dead."""

    def __init__(self) -> None:
        super().__init__(lambda _: "[]" if self.alive else dropped())


async def test_while_the_server_is_away_requests_wait_and_when_it_is_back_all_complete() -> None:
    fake_time = FakeTime()
    teacher = Mortal()
    teacher.alive, teacher.alive_after = False, 6
    async with make_batcher(make_lane(teacher, 2), time=fake_time) as batcher:
        outcomes = await asyncio.gather(*start(batcher, *range(6)))
    assert all(isinstance(outcome, Completion) for outcome in outcomes)
    assert len(teacher.requests) == 6 + 2
    assert teacher.num_probes == 6
    assert fake_time.delays == [0.1, 0.2, 0.4, 0.8, 1.6]


async def test_a_server_that_dies_under_a_full_load_fails_nothing() -> None:
    gates = Gates()
    teacher = Watched(gates)
    async with make_batcher(make_lane(teacher, 4), time=FakeTime(until=(looked := asyncio.Event()))) as batcher:
        asking = start(batcher, *range(4))
        await settle()
        teacher.alive = False
        for number in range(4):
            gates.open(10 * number, dropped())
        await settle()
        assert (batcher.statistics().in_flight, batcher.statistics().waiting) == (0, 4)
        teacher.alive = True
        looked.set()
        await settle()
        for number in range(4):
            gates.open(10 * number)
        assert all(isinstance(outcome, Completion) for outcome in await asyncio.gather(*asking))


async def test_a_server_away_for_too_long_is_an_error_for_everyone_who_asks() -> None:
    fake_time = FakeTime()
    records = Records()
    teacher = Mortal()
    teacher.alive = False
    async with make_batcher(make_lane(teacher, 2, name="http://one/v1"), time=fake_time, record=records.record) as batcher:
        ends = await asyncio.gather(*start(batcher, *range(5)), return_exceptions=True)
        assert [type(end) for end in ends] == [ServerError] * 5
        with pytest.raises(ServerError, match="http://one/v1 is gone: no answer for 60 s"):
            await batcher.ask(make_request(999))
    assert 60 <= fake_time.now_s < 60 + 2 * module.MAX_PROBE_S
    assert records.outcomes == {}


async def test_without_patience_the_first_silence_is_the_end() -> None:
    teacher = Mortal()
    teacher.alive = False
    async with make_batcher(make_lane(teacher), patience_s=0.0) as batcher:
        with pytest.raises(ServerError):
            await batcher.ask(make_request())
    assert teacher.num_probes == 1


async def test_a_supervised_server_is_waited_for_without_end() -> None:
    fake_time = FakeTime()
    teacher = Mortal()
    teacher.alive, teacher.alive_after = False, 200
    async with make_batcher(make_lane(teacher, is_supervised=True), time=fake_time) as batcher:
        assert isinstance(await batcher.ask(make_request()), Completion)
    assert fake_time.now_s > 10 * 60


async def test_while_a_server_is_suspended_it_is_neither_asked_nor_probed() -> None:
    teacher = Watched()
    lane = make_lane(teacher, is_supervised=True)
    async with make_batcher(lane) as batcher:
        batcher.suspend(lane)
        (asking,) = start(batcher, 0)
        await settle()
        assert (teacher.posts, teacher.num_probes) == ([], 0)
        batcher.resume(lane)
        await asking


async def test_a_server_suspended_while_it_is_probed_stays_so_though_it_answers() -> None:
    """It stalls, but says that it is well; who watches it is about to end it."""
    looked = asyncio.Event()
    teacher = Watched([dropped(), "[]"])
    teacher.alive = False
    lane = make_lane(teacher, is_supervised=True)
    async with make_batcher(lane, time=FakeTime(until=looked)) as batcher:
        (asking,) = start(batcher, 0)
        await settle()
        batcher.suspend(lane)
        teacher.alive = True
        looked.set()
        await settle()
        assert lane.reach is Reach.SUSPENDED
        batcher.resume(lane)
        assert isinstance(await asking, Completion)


async def test_a_server_suspended_in_the_middle_of_a_probe_stays_so_though_it_answers() -> None:
    may_answer = asyncio.Event()

    class Slow(Watched):
        async def is_alive(self) -> bool:
            await may_answer.wait()
            return True

    lane = make_lane(Slow([dropped(), "[]"]), is_supervised=True)
    async with make_batcher(lane) as batcher:
        (asking,) = start(batcher, 0)
        await settle()
        assert lane.reach is Reach.DOUBTED
        batcher.suspend(lane)
        may_answer.set()
        await settle()
        assert lane.reach is Reach.SUSPENDED
        batcher.resume(lane)
        assert isinstance(await asking, Completion)


async def test_when_one_of_two_servers_goes_the_other_does_the_work() -> None:
    fake_time = FakeTime()
    dead, living = Mortal(), Watched()
    dead.alive = False
    async with make_batcher(make_lane(dead, 2), make_lane(living, 2), time=fake_time) as batcher:
        outcomes = await asyncio.gather(*start(batcher, *range(8)))
        await wait_until(fake_time, 120)
        assert isinstance((await asyncio.gather(*start(batcher, 9)))[0], Completion)
    assert all(isinstance(outcome, Completion) for outcome in outcomes)
    assert len(dead.posts) <= 2


async def test_patience_begins_when_the_last_server_goes() -> None:
    """One has been away for long; that another drops a connection is no reason to give up at once."""
    fake_time = FakeTime()
    is_over = False

    def script(_: Request) -> Reply:
        return dropped() if is_over and not second.num_probes else "[]"

    first, second = Mortal(), Watched(script)
    first.alive = False
    async with make_batcher(make_lane(first, 1), make_lane(second, 1), time=fake_time) as batcher:
        await asyncio.gather(*start(batcher, 0, 1))
        await wait_until(fake_time, 120)
        is_over = True
        assert isinstance((await asyncio.gather(*start(batcher, 2)))[0], Completion)
    assert second.num_probes == 1


async def test_when_all_of_several_servers_are_gone_for_too_long_that_is_an_error() -> None:
    first, second = Mortal(), Mortal()
    first.alive = second.alive = False
    async with make_batcher(make_lane(first), make_lane(second)) as batcher:
        ends = await asyncio.gather(*start(batcher, *range(4)), return_exceptions=True)
    assert [type(end) for end in ends] == [ServerError] * 4


class Locked(Watched):
    """Wants another key."""

    async def complete(self, draws: Any) -> list[Completion]:
        self.posts.append([request.sampling.seed for request in draws])
        raise ServerError("no longer serves 'scripted' to us (status 401)")


async def test_of_two_servers_one_may_lock_us_out() -> None:
    locked, other = Locked(), Watched()
    lanes = make_lane(locked, 2), make_lane(other, 2)
    async with make_batcher(*lanes) as batcher:
        outcomes = await asyncio.gather(*start(batcher, *range(8)))
        assert batcher.limit == 2
        batcher.resume(lanes[0])
    assert all(isinstance(outcome, Completion) for outcome in outcomes)
    assert len(locked.posts) <= 2
    assert lanes[0].reach is Reach.LOST


async def test_the_last_server_that_locks_us_out_is_an_error_for_everyone() -> None:
    async with make_batcher(make_lane(Locked(), 1), make_lane(Locked(), 1)) as batcher:
        ends = await asyncio.gather(*start(batcher, *range(5)), return_exceptions=True)
        with pytest.raises(ServerError, match="status 401"):
            await batcher.ask(make_request(999))
    assert [type(end) for end in ends] == [ServerError] * 5


async def test_the_server_with_the_most_room_is_asked_first() -> None:
    large, small = Watched(Gates()), Watched(Gates())
    async with make_batcher(make_lane(large, 6), make_lane(small, 2)) as batcher:
        asking = start(batcher, *range(6))
        await settle()
        assert sorted([large.in_flight, small.in_flight]) == [2, 4] or (large.in_flight, small.in_flight) == (5, 1)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)


# Observations.


class Ticks:
    """Stands in for the time between observations: it passes when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._sleepers: dict[float, list[asyncio.Future[None]]] = {}
        monkeypatch.setattr(module, "OBSERVE_S", 1.0)
        monkeypatch.setattr(module, "READ_METRICS_S", 2.0)
        monkeypatch.setattr(module, "BURST_S", 3.0)
        monkeypatch.setattr(module, "asyncio", self)

    def sleep(self, delay_s: float) -> asyncio.Future[None]:
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.setdefault(delay_s, []).append(sleeper)
        return sleeper

    async def tick(self, delay_s: float) -> None:
        sleepers = self._sleepers.pop(delay_s, [])
        for sleeper in sleepers:
            if not sleeper.done():
                sleeper.set_result(None)
        await settle()

    observe_s, read_metrics_s, burst_s = 1.0, 2.0, 3.0


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    return Ticks(monkeypatch)


async def test_the_controller_is_told_what_happened_since_the_last_time(ticks: Ticks) -> None:
    gates = Gates()
    observations: list[Observation] = []
    lane = make_lane(Watched(gates), 2)
    async with make_batcher(lane, observed=lambda _lane, observation: observations.append(observation)) as batcher:
        asking = start(batcher, 0, 1, 2)
        await settle()
        gates.open(0, "three tokens here")
        await settle()
        await ticks.tick(ticks.observe_s)
        for number in (1, 2):
            gates.open(10 * number)
        await asyncio.gather(*asking)
        await ticks.tick(ticks.observe_s)
        await ticks.tick(ticks.observe_s)
    first, second, third = observations
    assert (first.peak_in_flight, first.in_flight, first.has_backlog, first.completed, first.completed_tokens) == (2, 2, True, 1, 3)
    assert (second.peak_in_flight, second.in_flight, second.has_backlog, second.completed) == (2, 0, False, 2)
    assert (third.peak_in_flight, third.completed, third.overloads, third.gauges) == (0, 0, 0, None)


async def test_a_burst_of_refusals_is_observed_once_and_soon(ticks: Ticks) -> None:
    observations: list[Observation] = []
    lane = make_lane(Watched(lambda _: overloaded()), 3)
    fake_time = FakeTime(until=asyncio.Event())
    async with make_batcher(lane, time=fake_time, observed=lambda _lane, observation: observations.append(observation)) as batcher:
        asking = start(batcher, *range(9))
        await settle()
        assert observations == []
        await ticks.tick(ticks.burst_s)
        assert [observation.overloads for observation in observations] == [3]
        assert batcher.statistics().overloads == 6
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)


class Measured(Watched):
    """Shows metrics as long as `text` is set."""

    text: str | None = None
    num_readings = 0

    async def metrics(self) -> str | None:
        self.num_readings += 1
        return self.text


async def test_metrics_are_read_beside_the_other_observations(ticks: Ticks) -> None:
    observations: list[Observation] = []
    teacher = Measured()
    teacher.text = "vllm:num_requests_running 3\nvllm:num_requests_waiting 1\nvllm:generation_tokens_total 70\n"
    lane = make_lane(teacher)
    async with make_batcher(lane, observed=lambda _lane, observation: observations.append(observation)):
        await settle()
        await ticks.tick(ticks.observe_s)
        await ticks.tick(ticks.read_metrics_s)
        await ticks.tick(ticks.observe_s)
    assert [observation.gauges and observation.gauges.running for observation in observations] == [None, 3, None]
    assert lane.gauges is not None
    assert teacher.num_readings == 1


async def test_a_server_that_never_shows_metrics_is_no_longer_asked(ticks: Ticks) -> None:
    teacher = Measured()
    async with make_batcher(make_lane(teacher)):
        await settle()
        for _ in range(METRICS_MISSES + 5):
            await ticks.tick(ticks.read_metrics_s)
    assert teacher.num_readings == METRICS_MISSES


async def test_nothing_is_observed_of_a_server_that_is_away(ticks: Ticks) -> None:
    observations: list[Observation] = []
    teacher = Measured()
    lane = make_lane(teacher, is_supervised=True)
    async with make_batcher(lane, observed=lambda _lane, observation: observations.append(observation)) as batcher:
        batcher.suspend(lane)
        await settle()
        await ticks.tick(ticks.observe_s)
        await ticks.tick(ticks.read_metrics_s)
    assert (observations, teacher.num_readings) == ([], 0)
