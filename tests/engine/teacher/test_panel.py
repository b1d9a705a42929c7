from __future__ import annotations

from collections import Counter

import pytest

from engine.teacher.panel import Panel


def test_one_teacher_writes_everything() -> None:
    assert {Panel(["one"]).writer(round, number) for round in range(3) for number in range(9)} == {"one"}


@pytest.mark.parametrize("shares", [(1, 1), (3, 1), (2, 1, 1), (1, 0)])
def test_each_writes_its_share_of_every_round(shares: tuple[float, ...]) -> None:
    panel = Panel(list("abc")[: len(shares)], shares)
    for round in (1, 2, 9):
        written = Counter(panel.writer(round, number) for number in range(64))
        for model, share in zip(panel.models, shares, strict=True):
            assert abs(written[model] - 64 * share / sum(shares)) <= 2


def test_a_class_that_comes_every_so_often_does_not_always_meet_the_same_teacher() -> None:
    panel = Panel(["a", "b"])
    for cycle in (2, 3, 4, 10, 24):
        for first in range(cycle):
            assert len({panel.writer(1, number) for number in range(first, first + 8 * cycle, cycle)}) == 2
