from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from engine.config import StudentConfig
from student.replay import draw_replay


def make_config(**settings: Any) -> StudentConfig:
    return StudentConfig.model_validate({"weights": "continue", "update": "incremental", **settings})


def draw(labels: list[int], num_seed: int, num_new: int, seed: int = 0, **settings: Any) -> NDArray[np.int64]:
    columns = np.array(labels, np.int32)
    return draw_replay(columns, 3, num_seed, len(labels) - num_new, make_config(**settings), np.random.default_rng(seed))


@given(
    labels=st.lists(st.integers(0, 2), min_size=2, max_size=60),
    parts=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    ratio=st.floats(0, 4),
    share=st.floats(0, 1),
    order=st.sampled_from(["balanced", "uniform"]),
)
def test_as_many_as_asked_for_and_none_twice(labels: list[int], parts: tuple[float, float], ratio: float, share: float, order: str) -> None:
    num_new = round(parts[0] * (len(labels) - 1))
    num_earlier = len(labels) - num_new
    num_seed = round(parts[1] * num_earlier)
    drawn = draw(labels, num_seed, num_new, replay_ratio=ratio, replay_seed_share=share, replay_order=order).tolist()
    assert len(drawn) == len(set(drawn)) == min(round(ratio * num_new), num_earlier)
    assert drawn == sorted(drawn)
    assert all(0 <= number < num_earlier for number in drawn)


def test_the_seed_has_its_share() -> None:
    drawn = draw([0] * 300, 100, 40, replay_seed_share=0.25)
    assert np.count_nonzero(drawn < 100) == 10
    assert len(drawn) == 40


def test_balanced_draws_what_the_new_rows_lack() -> None:
    labels = [0] * 80 + [1] * 15 + [2] * 5 + [0] * 20
    counts = Counter(labels[number] for number in draw(labels, 0, 20, replay_ratio=0.5, replay_seed_share=0.0).tolist())
    assert counts[0] == 0
    assert counts[1] + counts[2] == 10
    uniform = Counter(labels[number] for number in draw(labels, 0, 20, replay_seed_share=0.0, replay_order="uniform").tolist())
    assert uniform[0] > 10


def test_draws_follow_from_the_seed() -> None:
    labels = [number % 3 for number in range(200)]
    first, same, other = (draw(labels, 50, 50, seed).tolist() for seed in (1, 1, 2))
    assert first == same != other


@pytest.mark.parametrize("settings", [{"update": "incremental"}, {"optimizer": "continue"}])
def test_what_goes_on_needs_weights_that_do(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match='set weights = "continue" too'):
        StudentConfig(**settings)
