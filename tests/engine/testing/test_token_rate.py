from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.testing.token_rate import TokenRateModel


def run_out(model: TokenRateModel, now: float = 0.0) -> dict[object, float]:
    """When each sequence ended."""
    ends: dict[object, float] = {}
    while (event := model.next_event(now)) is not None:
        now = event
        ends.update(dict.fromkeys(model.advance(now), now))
    return ends


@pytest.mark.parametrize(("running", "seconds"), [(1, 1.0), (10, 1.0), (20, 2.0)])
def test_below_the_knee_more_cost_nothing_beyond_it_they_take_longer(running: int, seconds: float) -> None:
    model = TokenRateModel(knee=10, tokens_per_s=1000)
    for key in range(running):
        model.submit(key, 5, 100, 0.0)
    assert list(run_out(model).values()) == pytest.approx([seconds] * running)
    assert model.gauges().generation_tokens == pytest.approx(running * 100, abs=1)


def test_who_is_short_leaves_and_the_rest_go_faster() -> None:
    model = TokenRateModel(knee=1, tokens_per_s=100)
    model.submit("long", 0, 150, 0.0)
    model.submit("short", 0, 50, 0.0)
    assert run_out(model) == {"short": pytest.approx(1.0), "long": pytest.approx(2.0)}


def test_prompts_are_computed_one_after_the_other_and_decoding_waits() -> None:
    model = TokenRateModel(knee=10, tokens_per_s=1000, prefill_tokens_per_s=100)
    model.submit("a", 50, 100, 0.0)
    model.submit("b", 50, 100, 0.0)
    assert (model.gauges().running, model.gauges().waiting) == (1, 1)
    assert run_out(model) == {"a": pytest.approx(2.0), "b": pytest.approx(2.0)}
    assert model.gauges().prompt_tokens == 100


def test_places_are_taken_in_order_and_beyond_the_bound_one_is_refused() -> None:
    model = TokenRateModel(knee=1, tokens_per_s=100, max_running=1, max_waiting=1)
    assert [model.submit(key, 0, 100, 0.0) for key in "abc"] == [True, True, False]
    assert (model.gauges().running, model.gauges().waiting) == (1, 1)
    assert run_out(model) == {"a": pytest.approx(1.0), "b": pytest.approx(2.0)}
    assert model.submit("c", 0, 100, 5.0)


def test_a_full_memory_throws_out_the_newest_which_goes_first_again_and_keeps_what_it_had_written() -> None:
    model = TokenRateModel(knee=2, tokens_per_s=200, kv_tokens=160, prefill_tokens_per_s=1000)
    model.submit("old", 0, 100, 0.0)
    model.submit("new", 0, 100, 0.0)
    model.advance(0.81)
    gauges = model.gauges()
    assert (gauges.running, gauges.waiting, gauges.preemptions) == (1, 1, 1)
    assert gauges.kv_cache_use == pytest.approx(81 / 160)
    model.submit("last", 0, 1, 0.81)
    ends = run_out(model, 0.81)
    assert list(ends) == ["old", "last", "new"]
    # 80 tokens computed again at 1000/s, 20 left to write at 100/s.
    assert ends["new"] == pytest.approx(1.0 + 0.08 + 0.2)
    assert model.gauges().generation_tokens == pytest.approx(201, abs=1)


def test_beyond_the_memory_throughput_falls() -> None:
    def throughput(in_flight: int) -> float:
        model = TokenRateModel(knee=1000, tokens_per_s=100_000, kv_tokens=20_000, prefill_tokens_per_s=30_000)
        now, key = 0.0, 0
        for key in range(in_flight):
            model.submit(key, 100, 100 + key % 100, now)
        while now < 20:
            event = model.next_event(now)
            assert event is not None
            now = event
            for _ in model.advance(now):
                key += 1
                model.submit(key, 100, 100 + key % 100, now)
        return model.gauges().generation_tokens / now

    assert throughput(50) < throughput(100) > throughput(300)


def test_cancelled_sequences_make_room() -> None:
    model = TokenRateModel(knee=1, tokens_per_s=100, max_running=1)
    for key in "abc":
        model.submit(key, 10, 100, 0.0)
    model.cancel("a", 0.5)
    model.cancel("c", 0.5)
    model.cancel("never seen", 0.5)
    assert run_out(model, 0.5) == {"b": pytest.approx(1.5)}


def test_capacity_changes_in_the_middle() -> None:
    model = TokenRateModel(knee=1, tokens_per_s=100)
    model.submit("a", 0, 100, 0.0)
    model.submit("b", 0, 100, 0.0)
    model.set_capacity(2.0, 1.0)
    assert run_out(model, 1.0) == {"a": pytest.approx(1.5), "b": pytest.approx(1.5)}


def test_what_could_never_end_is_an_error() -> None:
    model = TokenRateModel(knee=1, tokens_per_s=100, kv_tokens=50)
    model.submit("a", 10, 40, 0.0)
    with pytest.raises(ValueError, match="under way"):
        model.submit("a", 1, 1, 0.0)
    with pytest.raises(ValueError, match="never fit"):
        model.submit("b", 10, 41, 0.0)


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.integers(0, 40), st.integers(1, 60), st.booleans()),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from([100.0, 250.0, math.inf]),
    st.integers(1, 12),
)
def test_every_sequence_ends_once_whatever_comes_when(
    sequences: list[tuple[float, int, int, bool]], kv_tokens: float, max_running: int
) -> None:
    model = TokenRateModel(knee=4, tokens_per_s=100, kv_tokens=kv_tokens, max_running=max_running, prefill_tokens_per_s=500)
    ended: list[object] = []
    now, expected = 0.0, set[int]()
    for key, (gap_s, prompt_tokens, output_tokens, is_cancelled) in enumerate(sequences):
        now += gap_s / 10
        ended += model.advance(now)
        assert model.submit(key, prompt_tokens, output_tokens, now)
        expected.add(key)
        if is_cancelled and key - 1 not in ended and key - 1 in expected:
            model.cancel(key - 1, now)
            ended += model.advance(now)
            expected -= {key - 1} - set(ended)
        gauges = model.gauges()
        assert gauges.running <= max_running
        assert 0 <= gauges.kv_cache_use <= 1
    ended += run_out(model, now)
    assert sorted(ended, key=str) == sorted(expected, key=str)
    assert (model.gauges().running, model.gauges().waiting) == (0, 0)
