"""Tokens and requests over time, from calls alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.html_report.timeline import PAUSE_S, Timeline, timeline


def draw(*calls: tuple[float, float, float]) -> Timeline:
    """Each begun at, lasting, with tokens."""
    started, latency, tokens = np.array(sorted(calls), dtype=float).T
    return timeline(started, latency, tokens)


def test_two_calls_side_by_side() -> None:
    found = draw((100, 10, 50), (100, 10, 150))
    assert np.allclose(found.tokens_per_s, 20)
    assert np.allclose(found.in_flight, 2)
    assert found.at_s[0] < 0.1
    assert found.pauses_s == ()


def test_one_after_the_other_with_a_rest_between() -> None:
    found = draw((0, 10, 100), (20, 10, 100))
    at = found.at_s
    assert np.allclose(found.tokens_per_s[at < 9.9], 10)
    assert np.allclose(found.tokens_per_s[(at > 10.1) & (at < 19.9)], 0)
    assert np.allclose(found.tokens_per_s[at > 20.1], 10)


def test_a_night_between_is_cut_out() -> None:
    found = draw((0, 10, 100), (10 + PAUSE_S * 40, 10, 100))
    assert found.pauses_s == (10.0,)
    assert found.at_s[-1] < 20
    assert np.allclose(found.tokens_per_s, 10)


@given(st.lists(st.tuples(st.floats(0, 5000), st.floats(0, 60), st.integers(0, 2000)), min_size=1, max_size=30))
def test_all_tokens_are_there_once(calls: list[tuple[float, float, float]]) -> None:
    found = draw(*calls)
    width = found.at_s[1] - found.at_s[0]
    assert np.isclose((found.tokens_per_s * width).sum(), sum(tokens for _, _, tokens in calls), rtol=1e-6, atol=1e-6)
    assert (found.tokens_per_s > -1e-3).all()
    assert (found.in_flight <= len(calls) + 1e-6).all()
