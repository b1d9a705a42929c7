"""Rows remembered by a sketch of their text, so that a new text much like one of them is found without comparing it with all.

A text is the set of its four-character pieces, which suits messages of a few words; the similarity of two texts is the Jaccard index of
their sets. MinHash (rensa's) keeps 64 slots of a set, a byte each: the share of equal slots estimates the similarity, with a standard
deviation of about 0.04. Four slots make a band, and rows with an equal band are looked at (locality-sensitive hashing): of texts 0.7 alike
99 % meet in one of the 16 bands.

The bands are a table of our own because memory decides: at a million rows the indexes of rensa, gaoya and datasketch take 1.4 GB and more,
this one 200 MB whatever it holds. It forgets on purpose: each bucket keeps its newest rows, and the whole its newest `capacity` rows.

Invariant: what is found follows from the texts added and their order alone, be it one by one or many at once, so that a run resumed from
its rows judges as it did before.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import NamedTuple, NewType

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
_BAND_BITS = 32
_PIECE_BYTES = 8
_CHUNK_ROWS = 1024
"""Sketched and added at once; more need memory and save no time."""

Sketch = NewType("Sketch", NDArray[np.uint8])


def sketch(text: str) -> Sketch:
    """The 64 slots of a text. Case and punctuation count: give it `comparable` text."""
    pieces = _pieces(text)
    slots = RMinHash.digest_matrix_from_flat_token_hashes(pieces, (0, len(pieces)), _SLOTS, _SEED).to_rows()[0]
    return Sketch(np.frombuffer(array("I", slots), np.uint32).astype(np.uint8))


def _sketch_all(texts: Sequence[str]) -> NDArray[np.uint8]:
    """A row of slots for each text."""
    pieces = [_pieces(text) for text in texts]
    ends = np.cumsum([len(part) for part in pieces])
    slots = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(pieces), (0, *ends.tolist()), _SLOTS, _SEED).to_rows()
    return np.fromiter(chain.from_iterable(slots), np.uint32, len(texts) * _SLOTS).astype(np.uint8).reshape(-1, _SLOTS)


def _pieces(text: str) -> NDArray[np.uint64]:
    # Four UTF-16 units are one 64-bit integer, so the pieces of a text are its own bytes read at every second one. The spaces make
    # the first and the last word count as much as the others.
    units = f" {text} ".encode("utf-16-le", "surrogatepass").ljust(_PIECE_BYTES, b"\0")
    num_pieces = (len(units) - _PIECE_BYTES) // 2 + 1
    return np.ndarray((num_pieces,), "<u8", units, strides=(2,)).astype(np.uint64)


class _Bands(NamedTuple):
    """Where sketches stand in the table; of one sketch 16 each, of many a row of 16 for each."""

    places: NDArray[np.intp]
    """The bucket of each band."""
    tags: NDArray[np.uint32]
    """The bits of each band that did not choose the bucket, as far as there is room for them above a row's number."""


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
        self._bucket_bits = np.uint32(bits)
        self._other_bits = np.uint32(_BAND_BITS - bits)
        self._first_bucket = np.arange(_BANDS, dtype=np.intp) << bits
        # A row's number, and above it the band's tag: without a look at its sketch it is known for a stranger in the bucket.
        self._buckets = np.zeros((_BANDS << bits, bucket_rows), np.uint32)
        self._number_mask = np.uint32((1 << capacity.bit_length()) - 1)
        self._tag_mask = ~self._number_mask

    def __len__(self) -> int:
        return min(self._num_added, self._capacity)

    @property
    def num_bytes(self) -> int:
        return self._sketches.nbytes + self._buckets.nbytes

    def find(self, wanted: Sketch) -> float | None:
        """The estimated similarity of the row most alike, or None if no row is a near duplicate."""
        bands = self._bands(wanted)
        return self._find(wanted, bands, self._buckets.take(bands.places, axis=0))

    def find_or_add(self, new: Sketch) -> float | None:
        """As `find`; what resembles no row becomes one."""
        bands = self._bands(new)
        rows = self._buckets.take(bands.places, axis=0)
        found = self._find(new, bands, rows)
        if found is None:
            number = self._num_added % self._capacity + 1
            self._num_added += 1
            # Where the oldest row stood, its buckets still name it: they lead to this sketch, which is looked at and found different.
            self._sketches[number] = new
            rows[:, 1:] = rows[:, :-1]
            rows[:, 0] = bands.tags | np.uint32(number)
            self._buckets[bands.places] = rows
        return found

    def add_all(self, texts: Iterable[str]) -> None:
        """For rows that stand already, whatever they resemble. At half the time of one by one, and to the same effect."""
        rest = iter(texts)
        while chunk := list(islice(rest, _CHUNK_ROWS)):
            self._add(_sketch_all(chunk))

    def _bands(self, sketches: NDArray[np.uint8]) -> _Bands:
        scattered = sketches.view(np.uint32) * _SCATTER
        return _Bands((scattered >> self._other_bits) + self._first_bucket, (scattered << self._bucket_bits) & self._tag_mask)

    def _find(self, wanted: Sketch, bands: _Bands, rows: NDArray[np.uint32]) -> float | None:
        untagged = rows ^ bands.tags[:, None]
        candidates = untagged[untagged <= self._number_mask]
        if not candidates.size:
            return None
        equal_slots = (self._sketches.take(candidates, axis=0) == wanted).sum(axis=1, dtype=np.uint8)
        best = max(equal_slots.tolist()) / _SLOTS
        return best if best >= self._similarity else None

    def _add(self, new: NDArray[np.uint8]) -> None:
        numbers = np.arange(self._num_added, self._num_added + len(new)) % self._capacity + 1
        self._num_added += len(new)
        self._sketches[numbers] = new
        bands = self._bands(new)
        words = bands.tags | numbers.astype(np.uint32)[:, None]
        # Rows of one bucket next to each other, the newest first.
        places = bands.places[::-1].ravel()
        order = places.argsort(kind="stable")
        buckets, firsts, counts = np.unique(places[order], return_index=True, return_counts=True)
        ranks = np.arange(len(order)) - np.repeat(firsts, counts)
        kept = ranks < self._buckets.shape[1]
        before = self._buckets[buckets]
        for place in range(before.shape[1] - 1, -1, -1):
            moved = place - counts
            before[:, place] = np.where(moved >= 0, before[np.arange(len(before)), np.maximum(moved, 0)], before[:, place])
        before[np.repeat(np.arange(len(buckets)), counts)[kept], ranks[kept]] = words[::-1].ravel()[order][kept]
        self._buckets[buckets] = before
