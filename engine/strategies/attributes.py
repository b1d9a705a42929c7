"""Attributes that rows are asked for in (length, style, sub-topic), so that they differ from each other in more than words."""

from __future__ import annotations

import random
from collections.abc import Sequence


def draw_profiles(attributes: Sequence[tuple[str, Sequence[str]]], count: int, purpose: str) -> list[str]:
    """One line a row, such as `length: one sentence; style: polite`. Attributes without values are left out; without any there are no
    lines. Within a call the values of one attribute come as often as each other, give or take one. The same purpose draws the same.
    """
    generator = random.Random(purpose)
    columns: list[list[str]] = []
    for name, values in attributes:
        if values:
            drawn: list[str] = []
            while len(drawn) < count:
                drawn += generator.sample(values, len(values))
            columns.append([f"{name}: {value}" for value in drawn[:count]])
    return ["; ".join(row) for row in zip(*columns, strict=True)]
