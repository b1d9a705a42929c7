import pytest

from engine.teacher.concurrency import ConcurrencyController
from engine.teacher.lane import METRICS_MISSES, Lane, Reach
from engine.teacher.metrics import ServerGauges
from tests.engine.asking import Watched, make_completion, make_lane, make_request


class Measured(Watched):
    text: str | None = None

    async def metrics(self) -> str | None:
        return self.text


def test_room_is_what_the_limit_leaves() -> None:
    lane = make_lane(Watched(), 4)
    lane.taken = 3
    assert (lane.room, lane.load) == (1, 0.75)


def test_a_lane_that_cannot_be_reached_has_no_room() -> None:
    lane = make_lane(Watched(), 4)
    for reach in Reach:
        lane.reach = reach
        assert lane.room == (4 if reach is Reach.OPEN else 0)


def test_after_a_refusal_there_is_no_room_until_the_controller_has_heard_of_it() -> None:
    lane = make_lane(Watched(), 4)
    lane.overloaded(2)
    assert lane.room == 0
    assert lane.observe(0.0).overloads == 2
    assert lane.room == 4


def test_an_observation_counts_from_the_one_before() -> None:
    lane = make_lane(Watched(), 8)
    lane.sent(3)
    lane.sent(4)
    lane.returned(3)
    lane.timed_out(3)
    lane.answered([make_completion(make_request(seed)) for seed in range(2)])
    lane.was_short()
    first = lane.observe(1.0)
    assert (first.at_s, first.peak_in_flight, first.in_flight, first.has_backlog) == (1.0, 7, 4, True)
    assert (first.completed, first.completed_tokens, first.timeouts) == (2, 10, 3)
    lane.returned(4)
    second = lane.observe(2.0)
    assert (second.peak_in_flight, second.in_flight, second.has_backlog) == (4, 0, False)
    assert (second.completed, second.completed_tokens, second.timeouts) == (0, 0, 0)
    assert (lane.peak_in_flight, lane.completed) == (7, 2)


def test_the_limit_is_the_controllers() -> None:
    lane = Lane(Watched(), ConcurrencyController(start=100))
    lane.sent(100)
    lane.returned(50)
    lane.overloaded(50)
    lane.observe(0.1)
    assert lane.limit < 100


async def test_gauges_are_kept_until_newer_ones_are_read() -> None:
    teacher = Measured()
    lane = make_lane(teacher)
    assert await lane.read_gauges() is lane.gauges is None
    teacher.text = "vllm:num_requests_running 3\nvllm:num_requests_waiting 1\nvllm:generation_tokens_total 70\n"
    assert await lane.read_gauges() == ServerGauges(3, 1, 0.0, 0, 70, 0)
    teacher.text = None
    assert await lane.read_gauges() is None
    assert lane.gauges is not None


async def test_only_readings_that_fail_in_a_row_end_them() -> None:
    teacher = Measured()
    lane = make_lane(teacher)
    for text in (None, "vllm:num_requests_running 3\nvllm:num_requests_waiting 1\nvllm:generation_tokens_total 70\n", None):
        teacher.text = text
        for _ in range(METRICS_MISSES - 1):
            await lane.read_gauges()
        assert lane.shows_metrics
    await lane.read_gauges()
    assert not lane.shows_metrics


def test_a_lane_is_busy_by_the_clock_however_much_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("engine.teacher.lane.time.monotonic", lambda: now)
    lane = make_lane(Watched(), 8)
    lane.sent(3)
    now = 102.0
    lane.sent(2)
    now = 105.0
    assert lane.busy_s == 5.0
    lane.returned(5)
    now = 200.0
    assert lane.busy_s == 5.0
    lane.sent(1)
    now = 201.0
    lane.returned(1)
    assert lane.busy_s == 6.0
