"""Whether the student is worse on rows of a kind: short or long ones, or ones with words that it was hardly ever taught.

A word here is a token of the student's own tokenizer, which serves every language.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from engine.reports import Slice
from student.data import Tokens

RARE_ROWS = 3
"""A word is rare if fewer training rows have it."""


class Vocabulary:
    """In how many training rows each token stands. Grows with the rows, so that a round costs what is new in it."""

    def __init__(self) -> None:
        self._rows: Counter[int] = Counter()

    def add(self, rows: Iterable[Tokens]) -> None:
        for tokens in rows:
            self._rows.update(set(map(int, tokens)))

    def rarest(self, tokens: Tokens) -> int:
        """Training rows that have the rarest token of these."""
        return min((self._rows[int(token)] for token in tokens), default=0)


def find_slices(rows: Sequence[Tokens], hits: NDArray[np.bool_], vocabulary: Vocabulary) -> tuple[Slice, ...]:
    """Slices that have rows, and leave some to compare them with; the least likely to be chance first. `hits`: which rows are right."""
    lengths = np.array([len(tokens) for tokens in rows])
    rarest = np.array([vocabulary.rarest(tokens) for tokens in rows])
    short, long = int(np.quantile(lengths, 0.25, method="lower")), int(np.quantile(lengths, 0.75, method="higher"))
    candidates = [
        ("length:short", f"the shortest quarter: {short} tokens or fewer", lengths <= short),
        ("length:long", f"the longest quarter: {long} tokens or more", lengths >= long),
        ("words:rare", f"with a word that fewer than {RARE_ROWS} training rows have", (rarest > 0) & (rarest < RARE_ROWS)),
        ("words:unseen", "with a word that no training row has", rarest == 0),
    ]
    slices = [_compare(name, meaning, hits[inside], hits[~inside]) for name, meaning, inside in candidates if 0 < inside.sum() < len(rows)]
    return tuple(sorted(slices, key=lambda found: found.p_value))


def _compare(name: str, meaning: str, inside: NDArray[np.bool_], rest: NDArray[np.bool_]) -> Slice:
    table = [[np.count_nonzero(~part), np.count_nonzero(part)] for part in (inside, rest)]
    p_value = float(fisher_exact(table, alternative="greater").pvalue)  # pyright: ignore[reportAttributeAccessIssue] -- stubs say tuple
    return Slice(name, meaning, len(inside), float(inside.mean()), float(rest.mean()), p_value)
