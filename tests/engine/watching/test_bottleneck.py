from dataclasses import replace

import pytest

from engine.records import RoundRecord, RowCounts
from engine.teacher.concurrency import Observation
from engine.teacher.metrics import ServerGauges
from engine.views.display import SHORT, speed_line
from engine.watching.bottleneck import FlowMeter, Limit, Tick, combine, judge

CALM = ServerGauges(running=8, waiting=0, kv_cache_use=0.2, preemptions=0, generation_tokens=100, prompt_tokens=100)


def make_tick(
    at_s: float = 1.0, *, tokens: int = 0, backlog: bool = True, gauges: ServerGauges | None = CALM, duration_s: float = 0.5
) -> Tick:
    observation = Observation(
        at_s=at_s,
        peak_in_flight=8,
        in_flight=8,
        has_backlog=backlog,
        completed=4,
        completed_tokens=tokens,
        overloads=0,
        timeouts=0,
        gauges=None,
    )
    return Tick("one", observation, gauges, duration_s, is_fixed=False, at_ceiling=False, busy=0.1, handling=0.05, storing=0.0)


SHORT_OF_PLACES = make_tick()
SHORT_OF_REQUESTS = make_tick(backlog=False)


@pytest.mark.parametrize(
    ("tick", "limit"),
    [
        (SHORT_OF_PLACES, Limit.COMPUTE),
        (replace(SHORT_OF_PLACES, gauges=None), Limit.COMPUTE),
        (replace(SHORT_OF_PLACES, is_fixed=True), Limit.CONCURRENCY),
        (replace(SHORT_OF_PLACES, gauges=replace(CALM, waiting=3)), Limit.QUEUE),
        (replace(SHORT_OF_PLACES, gauges=replace(CALM, waiting=3), is_fixed=True), Limit.QUEUE),
        (replace(SHORT_OF_PLACES, gauges=replace(CALM, waiting=3, kv_cache_use=0.95)), Limit.MEMORY),
        (replace(SHORT_OF_PLACES, busy=0.95), Limit.COMPUTE),
        (SHORT_OF_REQUESTS, Limit.SUPPLY),
        (replace(SHORT_OF_REQUESTS, at_ceiling=True, busy=0.95), Limit.CEILING),
        (replace(SHORT_OF_REQUESTS, storing=0.7, busy=0.95), Limit.STORAGE),
        (replace(SHORT_OF_REQUESTS, busy=0.95, handling=0.1), Limit.CLIENT),
        (replace(SHORT_OF_REQUESTS, busy=0.95, handling=0.6), Limit.PARSING),
    ],
)
def test_one_thing_was_short(tick: Tick, limit: Limit) -> None:
    assert judge(tick) is limit


def test_a_round_is_measured_against_its_own_best_two_seconds() -> None:
    meter = FlowMeter()
    for number in range(1, 17):
        meter.add(make_tick(at_s=number * 0.5, tokens=100 if 8 < number <= 12 else 25, backlog=number <= 12))
    flow = meter.flow()
    assert flow.tokens_per_s == pytest.approx((4 * 100 + 12 * 25) / 8)
    assert flow.peak_tokens_per_s == pytest.approx(200, rel=0.15)
    assert flow.roofline_share == pytest.approx(flow.tokens_per_s / flow.peak_tokens_per_s)
    assert flow.limited_s == {"compute": 6.0, "supply": 2.0}
    assert flow.limit == "compute"


def test_a_server_with_a_counter_is_measured_by_it() -> None:
    """All answers end in the last moment, as they do when all were asked in the first."""
    meter = FlowMeter()
    for number in range(1, 9):
        tick = make_tick(at_s=number * 0.5, tokens=800 if number == 8 else 0)
        meter.add(replace(tick, observation=replace(tick.observation, gauges=replace(CALM, generation_tokens=100 * number))))
    flow = meter.flow()
    assert flow.tokens_per_s == 200
    assert flow.peak_tokens_per_s == pytest.approx(200, rel=0.3)


def test_nothing_seen_is_no_speed() -> None:
    flow = FlowMeter().flow()
    assert (flow.tokens_per_s, flow.roofline_share, flow.limit) == (0.0, 0.0, "supply")
    assert combine([]).roofline_share == 0.0


def test_rounds_add_up_and_the_greatest_limit_stands_first() -> None:
    def record(round: int, peak: float, **limited_s: float) -> RoundRecord:
        return RoundRecord(round, round - 1, 1, 1, RowCounts(), 10, 100, 2.0, limited_s=limited_s, peak_tokens_per_s=peak)

    flow = combine([record(1, 60.0, supply=1.5, compute=0.5), record(2, 80.0, compute=2.0)])
    assert (flow.tokens_per_s, flow.peak_tokens_per_s, flow.roofline_share) == (50.0, 80.0, 0.625)
    assert list(flow.limited_s.items()) == [("compute", 2.5), ("supply", 1.5)]


def test_every_limit_has_words() -> None:
    assert set(SHORT) == set(Limit)
    line = speed_line(1234.5, 0.5, {"compute": 9.0, "supply": 1.5, "storage": 0.2})
    assert line == (
        "1,234 tokens/s, 50% of the servers' best two seconds; limited by the server's computing 84%, "
        "too few requests (rounds that begin and end) 14%"
    )
    assert speed_line(1234.5, 0.0, {}) == "1,234 tokens/s", "of rounds shorter than what the best is measured over"
