"""How long it will take: ranges from what has been measured. Pure; an answer that would be a guess is None.

A range is what the measured speeds allow, the present one and that of the whole round, each with the error of a count: n pieces of work
tell their rate to within 2 / sqrt(n).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.status import BudgetUse, Range

FEWEST = 5
"""Pieces of work that a speed can be told from."""
LAST_ROUNDS = 3
"""So many show how long rounds are by now."""
UNEVEN = 0.25
"""By how much a budget may be used faster or slower than it was so far."""


def forecast_round(rows_left: int, speeds: Sequence[tuple[int, int, float]]) -> Range | None:
    """`speeds`: over each of some times, the pieces of work that were done, their rows, and its seconds."""
    rates: list[float] = []
    for pieces, rows, elapsed_s in speeds:
        if pieces >= FEWEST and rows and elapsed_s > 0:
            error = min(2 / math.sqrt(pieces), 0.9)
            rates += [rows / elapsed_s * (1 - error), rows / elapsed_s * (1 + error)]
    return Range(rows_left / max(rates), rows_left / min(rates)) if rates else None


def forecast_run(present: Range, rounds: Sequence[float], fewest: int, most: int) -> Range | None:
    """`present` is what is left of the round; after it come from `fewest` to `most` rounds, as long as the last of `rounds` (seconds each,
    asking and learning).
    """
    if most == 0:
        return present
    last = rounds[-LAST_ROUNDS:]
    return Range(present.low_s + fewest * min(last), present.high_s + most * max(last)) if last else None


def within_budget(left: Range, budget: Sequence[BudgetUse], worked_s: float) -> Range:
    """What is used up ends the run earlier. `worked_s` is how long it took to spend what is spent."""
    for use in budget:
        if use.spent:
            end_s = max(use.bound - use.spent, 0) / use.spent * worked_s
            left = Range(min(left.low_s, end_s * (1 - UNEVEN)), min(left.high_s, end_s * (1 + UNEVEN)))
    return left
