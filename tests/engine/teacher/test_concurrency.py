"""In virtual time, so that every figure is the same on every machine; only the bursts of answers are left to a seeded chance."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.teacher.concurrency import METRICS_LOST_S, OBSERVE_S, QUEUE_S, ConcurrencyController, Observation, Phase
from engine.teacher.metrics import ServerGauges
from engine.testing.token_rate import TokenRateModel
from tests.engine.closed_loop import Loop

WITH_AND_WITHOUT = pytest.mark.parametrize("metrics", [True, False], ids=["metrics", "blind"])
SETTLED_S = 20.0
"""After the start, and after a change."""
SPEED = 100.0
"""Tokens per second of one sequence that has a place below the knee; an answer takes about two seconds."""


def make_model(knee: int, *, kv_tokens: float = float("inf"), prefill: float = 4.0, **bounds: int) -> TokenRateModel:
    """`prefill` in tokens for each that the decoding of a full batch makes."""
    rate = knee * SPEED
    return TokenRateModel(knee=knee, tokens_per_s=rate, prefill_tokens_per_s=rate * prefill, kv_tokens=kv_tokens, **bounds)


def best_static(make: Callable[[], TokenRateModel], limits: list[int], until_s: float = 50.0) -> float:
    return max(Loop(make(), fixed=limit).run(until_s).throughput(SETTLED_S, until_s) for limit in limits)


def controlled(model: TokenRateModel, *, metrics: bool, start: int = 32) -> Loop:
    return Loop(model, ConcurrencyController(start=start), shows_metrics=lambda _now: metrics)


def mean_limit(loop: Loop, from_s: float) -> float:
    limits = loop.limits[round(from_s / OBSERVE_S) :]
    return sum(limits) / len(limits)


@WITH_AND_WITHOUT
@pytest.mark.parametrize("knee", [8, 32, 128, 500, 2000])
def test_finds_the_knee_and_stays_near_it(knee: int, metrics: bool) -> None:
    best = best_static(lambda: make_model(knee), [knee, knee * 5 // 4], 30.0)
    loop = controlled(make_model(knee), metrics=metrics, start=min(32, 2 * knee)).run(50)
    assert loop.throughput(SETTLED_S, 50) >= 0.95 * best
    if metrics or knee >= 32:
        # Below, so few answers come that chance may hold the limit higher for a minute, which costs nothing but latency.
        assert mean_limit(loop, 30) <= 2.5 * knee


@WITH_AND_WITHOUT
@pytest.mark.parametrize("length", [20, 150, 400])
def test_answers_in_waves(length: int, metrics: bool) -> None:
    def run(loop: Loop) -> float:
        loop.tokens = lambda _random: length
        return loop.run(60).throughput(SETTLED_S, 60)

    best = max(run(Loop(make_model(128), fixed=limit)) for limit in (128, 160))
    assert run(controlled(make_model(128), metrics=metrics)) >= 0.95 * best


@pytest.mark.parametrize("prefill", [1.5, 4.0], ids=["dear", "cheap"])
@pytest.mark.parametrize("places", [128, 300])
def test_a_memory_that_is_smaller_than_the_knee(places: int, prefill: float) -> None:
    def make() -> TokenRateModel:
        return make_model(4 * places, kv_tokens=220 * places, prefill=prefill)

    best = best_static(make, [round(places * part) for part in (0.8, 0.9, 1.0, 1.1)])
    loop = controlled(make(), metrics=True).run(120)
    assert loop.throughput(SETTLED_S, 120) >= 0.95 * best
    assert mean_limit(loop, SETTLED_S) <= 1.2 * places


def test_without_metrics_a_full_memory_shows_in_the_throughput() -> None:
    def make() -> TokenRateModel:
        return make_model(2000, kv_tokens=220 * 500, prefill=0.4)

    best = best_static(make, [400, 450, 500])
    assert controlled(make(), metrics=False).run(80).throughput(SETTLED_S, 80) >= 0.95 * best


def test_keeps_a_few_waiting_where_the_server_bounds_its_batch() -> None:
    loop = controlled(make_model(500, max_running=128), metrics=True).run(60)
    best = best_static(lambda: make_model(500, max_running=128), [128, 160])
    assert loop.throughput(SETTLED_S, 60) >= 0.95 * best
    assert 128 <= mean_limit(loop, SETTLED_S) <= 1.1 * 128


@pytest.mark.parametrize("bound", [256, None], ids=["known", "unknown"])
@pytest.mark.parametrize("knee", [40, 1000], ids=["far below", "far above"])
def test_a_server_of_our_own_is_kept_full(knee: int, bound: int | None) -> None:
    def make() -> TokenRateModel:
        return make_model(knee, max_running=256)

    best = best_static(make, [256, 270], 60)
    loop = Loop(make(), ConcurrencyController.of_own_server(bound), shows_metrics=lambda _now: True).run(60)
    assert loop.throughput(SETTLED_S, 60) >= 0.99 * best
    assert mean_limit(loop, SETTLED_S) <= 1.1 * 256


def test_a_server_of_our_own_whose_memory_is_small_is_sent_less() -> None:
    loop = Loop(make_model(400, kv_tokens=220 * 100), ConcurrencyController.of_own_server(256), shows_metrics=lambda _now: True).run(60)
    assert mean_limit(loop, SETTLED_S) <= 130


@WITH_AND_WITHOUT
@pytest.mark.parametrize("knee", [128, 500])
def test_a_server_that_refuses(knee: int, metrics: bool) -> None:
    def make() -> TokenRateModel:
        return make_model(knee, max_running=knee * 6 // 5, max_waiting=knee // 5)

    loop = controlled(make(), metrics=metrics).run(60)
    assert loop.throughput(SETTLED_S, 60) >= 0.95 * best_static(make, [knee, knee * 6 // 5])
    assert 0 < loop.refused < 0.01 * loop.sent


def test_an_unknown_small_server_is_not_met_with_a_burst() -> None:
    loop = Loop(make_model(8, max_running=8, max_waiting=8), ConcurrencyController(), shows_metrics=lambda _now: True).run(60)
    assert loop.refused < 0.01 * loop.sent


@WITH_AND_WITHOUT
@pytest.mark.parametrize("factor", [0.5, 2.0], ids=["halved", "doubled"])
@pytest.mark.parametrize("knee", [128, 400])
def test_follows_the_capacity(knee: int, factor: float, metrics: bool) -> None:
    loop = controlled(make_model(knee), metrics=metrics)
    loop.events = [(40.0, lambda loop: loop.model.set_capacity(factor, loop.now))]
    loop.run(80)
    changed = round(knee * factor)
    assert loop.throughput(60, 80) >= 0.95 * best_static(lambda: make_model(changed), [changed, changed * 5 // 4])
    # A fall is seen late in answers that take twice as long; until then it costs only latency.
    assert mean_limit(loop, 65) <= (2.5 if metrics else 4.0) * changed


@WITH_AND_WITHOUT
def test_beside_a_second_client_the_server_stays_full_and_neither_starves(metrics: bool) -> None:
    loop = controlled(make_model(500), metrics=metrics)
    loop.events = [(30.0, lambda loop: loop.add_strangers(400))]
    loop.run(80)
    assert loop.throughput(50, 80) >= 0.95 * best_static(lambda: make_model(500), [500, 625], 30.0)
    assert 200 <= mean_limit(loop, 50) <= 2.5 * 500


def test_beside_one_who_queues_half_the_batch_is_still_ours() -> None:
    loop = controlled(make_model(500, max_running=128), metrics=True)
    loop.events = [(20.0, lambda loop: loop.add_strangers(300))]
    assert 50 <= mean_limit(loop.run(60), 40) <= 150


def test_metrics_that_come_and_go() -> None:
    loop = Loop(make_model(128), ConcurrencyController(start=32), shows_metrics=lambda now: now % 1 < 0.5 and not 30 < now < 60)
    loop.run(100)
    best = best_static(lambda: make_model(128), [128, 160])
    assert loop.throughput(SETTLED_S, 100) >= 0.95 * best
    assert mean_limit(loop, SETTLED_S) <= 3.5 * 128


# One step at a time.


def observe(
    controller: ConcurrencyController,
    at_s: float,
    *,
    in_flight: int | None = None,
    completed: int = 10,
    has_backlog: bool = True,
    overloads: int = 0,
    timeouts: int = 0,
    gauges: ServerGauges | None = None,
) -> int:
    in_flight = controller.limit if in_flight is None else in_flight
    return controller.observe(Observation(at_s, in_flight, in_flight, has_backlog, completed, completed * 100, overloads, timeouts, gauges))


def gauges(running: int, *, waiting: int = 0, kv: float = 0.1, preemptions: int = 0, tokens: int = 0) -> ServerGauges:
    return ServerGauges(running, waiting, kv, preemptions, tokens, 0)


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    controller = ConcurrencyController(start=16)
    for tick in range(400):
        assert observe(controller, tick * OBSERVE_S, in_flight=16, has_backlog=False) == 16
        assert observe(controller, tick * OBSERVE_S + OBSERVE_S / 2, in_flight=5) == 16


def test_a_pause_is_no_fall_of_the_capacity() -> None:
    loop = controlled(make_model(128), metrics=True)
    loop.has_backlog = lambda now: not 30 < now < 50
    loop.run(30)
    before = loop.limit
    loop.run(53)
    assert loop.limit >= 0.75 * before


@pytest.mark.parametrize("event", ["overload", "timeouts", "memory", "queue"])
def test_one_event_cuts_once(event: str) -> None:
    controller = ConcurrencyController(start=100)
    observe(controller, 0.0, gauges=gauges(100))
    seen: list[int] = []
    for tick in range(1, 31):
        # The trouble goes on until all have come back that were in flight when it was seen.
        server = gauges(60, waiting=40, kv=1.0, preemptions=50 * tick) if event == "memory" else gauges(60, waiting=40)
        seen.append(
            observe(
                controller,
                tick * QUEUE_S,
                in_flight=100,
                completed=3,
                overloads=5 if event == "overload" else 0,
                timeouts=5 if event == "timeouts" else 0,
                gauges=server if event in ("memory", "queue") else None,
            )
        )
    cuts = [after for before, after in zip([100, *seen], seen, strict=False) if after < before]
    assert len(cuts) == 1
    assert 55 <= cuts[0] <= 90
    assert controller.phase is Phase.DRAIN
    assert controller.reason != "start"


def test_trouble_that_outlasts_what_was_in_flight_is_a_second_event() -> None:
    controller = ConcurrencyController(start=100)
    observe(controller, 0.0)
    first = observe(controller, 0.1, overloads=1, in_flight=100)
    observe(controller, 0.2, completed=100)
    assert controller.phase is Phase.HOLD
    assert observe(controller, 0.3, overloads=1) < first < 100


def test_never_beyond_its_bounds() -> None:
    loop = Loop(make_model(500), ConcurrencyController(start=32, floor=10, ceiling=70)).run(30)
    assert max(loop.limits) == 70
    controller = ConcurrencyController(start=32, floor=10)
    for tick in range(100):
        observe(controller, tick * OBSERVE_S, overloads=1, completed=100)
    assert controller.limit == 10


def test_one_reading_that_fails_changes_nothing_and_a_lasting_loss_begins_anew() -> None:
    controller = ConcurrencyController(start=64)
    for tick in range(100):
        observe(controller, tick * OBSERVE_S, gauges=gauges(64, tokens=tick * 640) if tick % 3 == 0 else None)
    assert controller.reason != "metrics lost"
    limit = controller.limit
    observe(controller, 100 * OBSERVE_S + METRICS_LOST_S)
    assert controller.limit <= limit


def test_a_server_that_started_again_counts_from_zero() -> None:
    controller = ConcurrencyController(start=64)
    for tick in range(300):
        assert observe(controller, tick * OBSERVE_S, gauges=gauges(64, tokens=(tick % 60) * 640)) >= 8
