"""Which texts of the unlabelled pool a student is least sure of: what active learning has labelled next."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from engine.gates.gates import comparable
from engine.reports import MinedRow, PoolRow
from engine.text import Content, parts

POOL_ROWS = 20_000
"""That the student reads for one report: a draw of a larger pool, another in each round."""


def unasked(texts: Iterable[Content], asked: Iterable[Content]) -> list[Content]:
    """In their order, each once, without those that say the same as one of `asked`, and without empty ones."""
    seen = {comparable(text) for text in asked}
    found: list[Content] = []
    for text in texts:
        if (content := comparable(text)) not in seen and all(map(str.strip, parts(text))):
            seen.add(content)
            found.append(text)
    return found


def least_sure(rows: Sequence[MinedRow], count: int) -> tuple[PoolRow, ...]:
    """The least sure first."""
    chosen = heapq.nsmallest(count, rows, key=lambda row: row.confidence)
    return tuple(PoolRow(row.text, row.predicted, row.confidence, row.text_pair) for row in chosen)
