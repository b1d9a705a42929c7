"""The teachers of a run: who writes which assignment, and who labels. All of them label."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

_STEP = (math.sqrt(5.0) - 1.0) / 2.0
"""Multiples of it, modulo 1, fill the unit interval evenly however many there are, and fall in with no other cycle: classes often come in
one, and a teacher should not always meet the same."""
_ROUND = 7919


class Panel:
    """By their names in requests; the first is the one that is asked where nothing else is said."""

    def __init__(self, models: Sequence[str], shares: Sequence[float] = ()) -> None:
        """`shares` of the assignments, in any unit; all alike without."""
        self.models = tuple(models)
        shares = shares or [1.0] * len(models)
        self._bounds = [bound / sum(shares) for bound in accumulate(shares)]

    def writer(self, round: int, number: int) -> str:
        """Of one assignment. The same round and number give the same teacher, so that a resumed run asks the same requests."""
        if len(self.models) == 1:
            return self.models[0]
        place = ((number + 1 + _ROUND * round) * _STEP) % 1.0
        return self.models[min(bisect_right(self._bounds, place), len(self.models) - 1)]
