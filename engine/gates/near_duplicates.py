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

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain, islice
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue] -- compiled, and without stubs

from engine.text import BETWEEN

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
_FEW = 24
"""Fewer rows are quicker put into their buckets one by one."""
_CHUNK_ROWS = 1024
"""Sketched and added at once; more need memory and save no time."""

Sketches: TypeAlias = NDArray[np.uint8]
"""A row of 64 slots for each text."""


def sketch(texts: Sequence[str]) -> Sketches:
    """Case and punctuation count: give it `comparable` texts."""
    return _sketch(texts, _SLOTS)


def sketch_pairs(pairs: Sequence[str]) -> Sketches:
    """The same of `comparable` pairs: each text has half of the slots, so that the similarity is the mean of both. A short text counts as
    much as a long one beside it, and a premise that stands in many rows makes none of them a copy of another.
    """
    halves = [pair.partition(BETWEEN) for pair in pairs]
    return np.hstack([_sketch([first for first, _, _ in halves], _SLOTS // 2), _sketch([second for _, _, second in halves], _SLOTS // 2)])


def _sketch(texts: Sequence[str], num_slots: int) -> Sketches:
    if not texts:
        return np.zeros((0, num_slots), np.uint8)
    pieces = [_pieces(text) for text in texts]
    ends = accumulate(map(len, pieces))
    slots = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(pieces), (0, *ends), num_slots, _SEED).to_rows()
    return np.fromiter(chain.from_iterable(slots), np.uint32, len(texts) * num_slots).astype(np.uint8).reshape(-1, num_slots)


def _pieces(text: str) -> NDArray[np.uint64]:
    # Four UTF-16 units are one 64-bit integer, so the pieces of a text are its own bytes read at every second one. The spaces make
    # the first and the last word count as much as the others.
    units = f" {text} ".encode("utf-16-le", "surrogatepass").ljust(_PIECE_BYTES, b"\0")
    num_pieces = (len(units) - _PIECE_BYTES) // 2 + 1
    return np.ndarray((num_pieces,), "<u8", units, strides=(2,)).astype(np.uint64)


class _Bands(NamedTuple):
    """Where sketches stand in the table: 16 for each."""

    places: NDArray[np.intp]
    """The bucket of each band."""
    tags: NDArray[np.uint32]
    """The bits of each band that did not choose the bucket, as far as there is room for them above a row's number."""


class NearDuplicates:
    """An index of sketches; memory is taken at once and does not grow."""

    def __init__(
        self,
        similarity: float,
        capacity: int = REMEMBERED_ROWS,
        bucket_rows: int = _BUCKET_ROWS,
        sketch: Callable[[Sequence[str]], Sketches] = sketch,
    ) -> None:
        """`similarity`: from which estimate on two texts are near duplicates; below 0.6 an increasing part of them is not found.

        `bucket_rows`: more of them forget less among rows of one pattern, and take more memory and time. `sketch`: of what is added.
        """
        self._similarity = similarity
        self._sketch = sketch
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

    def find(self, wanted: Sketches) -> list[float]:
        """The estimated similarity of the row most alike to each; 0 where no row is a near duplicate."""
        if not self._num_added:
            return [0.0] * len(wanted)
        bands = self._bands(wanted)
        untagged = self._buckets.take(bands.places, axis=0) ^ bands.tags[:, :, None]
        is_candidate = untagged <= self._number_mask
        seekers = is_candidate.nonzero()[0]
        most_equal = np.zeros(len(wanted), np.int64)
        if seekers.size:
            equal_slots = (self._sketches.take(untagged[is_candidate], axis=0) == wanted.take(seekers, axis=0)).sum(axis=1)
            np.maximum.at(most_equal, seekers, equal_slots)
        return self._near_enough(most_equal / _SLOTS).tolist()

    def compare(self, rows: Sketches) -> list[list[float]]:
        """The estimated similarity of each of these rows with each, as `find` would give it if one were in the index; 0 otherwise."""
        bands = rows.view(np.uint32)
        have_met = (bands[:, None] == bands[None]).any(axis=2)
        equal_slots = (rows[:, None] == rows[None]).sum(axis=2)
        return self._near_enough(np.where(have_met, equal_slots / _SLOTS, 0.0)).tolist()

    def add(self, new: Sketches) -> None:
        """Whatever they resemble."""
        numbers = np.arange(self._num_added, self._num_added + len(new)) % self._capacity + 1
        self._num_added += len(new)
        # Where the oldest rows stood, their buckets still name them: they lead to these sketches, which are looked at and found different.
        self._sketches[numbers] = new
        bands = self._bands(new)
        words = bands.tags | numbers.astype(np.uint32)[:, None]
        if len(new) < _FEW:
            for row_places, row_words in zip(bands.places, words, strict=True):
                rows = self._buckets.take(row_places, axis=0)
                rows[:, 1:] = rows[:, :-1]
                rows[:, 0] = row_words
                self._buckets[row_places] = rows
        else:
            self._put(bands.places, words)

    def _put(self, places: NDArray[np.intp], words: NDArray[np.uint32]) -> None:
        """Many rows at once, with the same effect as one by one."""
        # Rows of one bucket next to each other, the newest first.
        places = places[::-1].ravel()
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

    def add_all(self, texts: Iterable[str]) -> None:
        """For rows that stand already, as many as there may be."""
        rest = iter(texts)
        while chunk := list(islice(rest, _CHUNK_ROWS)):
            self.add(self._sketch(chunk))

    def _near_enough(self, similarity: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(similarity >= self._similarity, similarity, 0.0)

    def _bands(self, sketches: Sketches) -> _Bands:
        scattered = sketches.view(np.uint32) * _SCATTER
        return _Bands((scattered >> self._other_bits) + self._first_bucket, (scattered << self._bucket_bits) & self._tag_mask)
