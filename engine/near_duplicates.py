"""Rows remembered by a sketch of their text, so that a new text much like one of them is found without comparing it with all.

A text is the set of its four-character pieces, which suits messages of a few words; the similarity of two texts is the Jaccard index of
their sets. MinHash (rensa's) keeps 64 slots of a set, a byte each: the share of equal slots estimates the similarity, with a standard
deviation of about 0.04. Four slots make a band, and rows with an equal band are looked at (locality-sensitive hashing): of texts 0.7 alike
99 % meet in one of the 16 bands.

The bands are a table of our own because memory decides: at a million rows the indexes of rensa, gaoya and datasketch take 1.4 GB and more,
this one 200 MB whatever it holds. It forgets on purpose: each bucket keeps its newest rows, and the whole its newest `capacity` rows.

Invariant: what is found follows from the texts added and their order alone, so that a run resumed from its rows judges as it did before.
"""

from __future__ import annotations

from array import array
from typing import NewType

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue] -- compiled, and without stubs

REMEMBERED_ROWS = 1_000_000
"""Rows that an index holds unless told otherwise; a further one takes the place of the oldest."""

_SEED = 1
_SLOTS = 64
_BANDS = 16
_BUCKET_ROWS = 4
"""Places in a bucket, twice as many as there are rows for it when the index is full. What overflows are bands that many rows share; with
rows of five public data sets, 99 % of what a comparison with every row finds is found."""
_SCATTER = np.uint32(0x9E3779B1)
"""Multiplied by it, bands that differ in any bit differ in the upper ones, which choose the bucket."""
_PIECE_BYTES = 8

Sketch = NewType("Sketch", NDArray[np.uint8])


def sketch(text: str) -> Sketch:
    """The 64 slots of a text. Case and punctuation count: give it `comparable` text."""
    # Four UTF-16 units are one 64-bit integer, so the pieces of a text are its own bytes read at every second one. The spaces make
    # the first and the last word count as much as the others.
    units = f" {text} ".encode("utf-16-le", "surrogatepass").ljust(_PIECE_BYTES, b"\0")
    num_pieces = (len(units) - _PIECE_BYTES) // 2 + 1
    pieces = np.ndarray((num_pieces,), "<u8", units, strides=(2,)).astype(np.uint64)
    slots = RMinHash.digest_matrix_from_flat_token_hashes(pieces, (0, num_pieces), _SLOTS, _SEED).to_rows()[0]
    return Sketch(np.frombuffer(array("I", slots), np.uint32).astype(np.uint8))


class NearDuplicates:
    """An index of sketches; memory is taken at once and does not grow."""

    def __init__(self, similarity: float, capacity: int = REMEMBERED_ROWS, bucket_rows: int = _BUCKET_ROWS) -> None:
        """`similarity`: from which estimate on two texts are near duplicates; below 0.6 an increasing part of them is not found.

        `bucket_rows`: more of them forget less among rows of one pattern, and take more memory and time.
        """
        self._similarity = similarity
        self._capacity = capacity
        self._num_added = 0
        # Row 0 stands for an empty place: with slots of zero, it resembles nothing.
        self._sketches = np.zeros((capacity + 1, _SLOTS), np.uint8)
        bits = max(1, (2 * capacity // _BUCKET_ROWS - 1).bit_length())
        self._shift = np.uint32(32 - bits)
        self._first_bucket = np.arange(_BANDS, dtype=np.intp) << bits
        self._buckets = np.zeros((_BANDS << bits, bucket_rows), np.uint32)

    def __len__(self) -> int:
        return min(self._num_added, self._capacity)

    @property
    def num_bytes(self) -> int:
        return self._sketches.nbytes + self._buckets.nbytes

    def find(self, wanted: Sketch) -> float | None:
        """The estimated similarity of the row most alike, or None if no row is a near duplicate."""
        return self._find(wanted, self._buckets.take(self._places(wanted), axis=0))

    def find_or_add(self, new: Sketch) -> float | None:
        """As `find`; what resembles no row becomes one."""
        places = self._places(new)
        rows = self._buckets.take(places, axis=0)
        found = self._find(new, rows)
        if found is None:
            self._add(new, places, rows)
        return found

    def add(self, new: Sketch) -> None:
        """For a row that stands already, whatever it resembles."""
        places = self._places(new)
        self._add(new, places, self._buckets.take(places, axis=0))

    def _places(self, wanted: Sketch) -> NDArray[np.intp]:
        """The bucket of each band."""
        return ((wanted.view(np.uint32) * _SCATTER) >> self._shift) + self._first_bucket

    def _find(self, wanted: Sketch, rows: NDArray[np.uint32]) -> float | None:
        candidates = rows[rows.nonzero()]
        if not candidates.size:
            return None
        equal_slots = (self._sketches.take(candidates, axis=0) == wanted).sum(axis=1, dtype=np.uint8)
        best = max(equal_slots.tolist()) / _SLOTS
        return best if best >= self._similarity else None

    def _add(self, new: Sketch, places: NDArray[np.intp], rows: NDArray[np.uint32]) -> None:
        number = self._num_added % self._capacity + 1
        self._num_added += 1
        # Where the oldest row stood, its buckets still name it: they lead to this sketch, which is looked at and found different.
        self._sketches[number] = new
        rows[:, 1:] = rows[:, :-1]
        rows[:, 0] = number
        self._buckets[places] = rows
