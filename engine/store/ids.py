"""Where a row stands, by its id: twenty bytes a row, so that a run of millions of calls fits in memory.

Ids are hex digits, at most 32 of them, as those of requests and prompts; none comes twice, and none is ever taken out. Positions are given
in the order in which ids come in, from 0.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_DIGITS = 32
_LOW = 2**64 - 1

MAX_RECENT = 50_000
"""Ids that wait as Python integers, quick to add, until they are merged into the sorted arrays."""

_NUM_SLOTS = 2**22

Words: TypeAlias = npt.NDArray[np.uint64]
Places: TypeAlias = npt.NDArray[np.uint32]


class _Sorted(NamedTuple):
    """Ids in two halves, ordered by the higher, and the position of each."""

    high: Words
    low: Words
    positions: Places
    high_view: Sequence[int]
    """The same numbers; to look into a view takes a third of the time."""


class Ids:
    """One thread adds; any thread may ask meanwhile."""

    def __init__(self) -> None:
        self._count = 0
        self._recent: dict[int, int] = {}
        # By the last bits of an id: an empty slot says at once that it is new, as nearly all are that are asked for.
        self._taken = bytearray(_NUM_SLOTS)
        nothing = np.empty(0, np.uint64)
        self._sorted = _Sorted(nothing, nothing, np.empty(0, np.uint32), ())

    def __len__(self) -> int:
        return self._count

    def __contains__(self, id: str) -> bool:
        return self.position(id) is not None

    def position(self, id: str) -> int | None:
        """None if the id has not been added."""
        number = int(id, 16)
        if not self._taken[number % _NUM_SLOTS]:
            return None
        # In this order: what leaves the recent ones is among the sorted before.
        if (position := self._recent.get(number)) is not None:
            return position
        known = self._sorted
        high, low = number >> 64, number & _LOW
        place = bisect_left(known.high_view, high)
        while place < len(known.high_view) and known.high_view[place] == high:
            if known.low[place] == low:
                return int(known.positions[place])
            place += 1
        return None

    def add(self, ids: Iterable[str]) -> None:
        for id in ids:
            number = int(id, 16)
            self._recent[number] = self._count
            self._taken[number % _NUM_SLOTS] = 1
            self._count += 1
        if len(self._recent) >= MAX_RECENT:
            numbers = b"".join(number.to_bytes(16) for number in self._recent)
            self._merge(numbers, np.fromiter(self._recent.values(), np.uint32, len(self._recent)))
            self._recent = {}

    def add_column(self, ids: pa.ChunkedArray) -> None:
        """The same for a column of a table, without an object for each."""
        padded = pc.utf8_lpad(ids, _DIGITS, "0").combine_chunks()  # pyright: ignore[reportAttributeAccessIssue] - made at run time
        in_a_row = pa.ListArray.from_arrays([0, len(padded)], padded)
        joined: str = pc.binary_join(in_a_row, "")[0].as_py()  # pyright: ignore[reportAttributeAccessIssue]
        self._merge(bytes.fromhex(joined), np.arange(self._count, self._count + len(ids), dtype=np.uint32))
        self._count += len(ids)

    def _merge(self, numbers: bytes, positions: Places) -> None:
        halves = np.frombuffer(numbers, ">u8").astype(np.uint64).reshape(-1, 2)
        np.frombuffer(self._taken, np.uint8)[halves[:, 1] % _NUM_SLOTS] = 1
        order = np.argsort(halves[:, 0])
        known, new = self._sorted, halves[order]
        places = np.searchsorted(known.high, new[:, 0])
        high: Any = np.insert(known.high, places, new[:, 0])
        low, positions = np.insert(known.low, places, new[:, 1]), np.insert(known.positions, places, positions[order])
        self._sorted = _Sorted(high, low, positions, memoryview(high))
