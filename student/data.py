"""Texts as tokens, and tokens as batches. Knows nothing of networks; the same seed gives the same batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from engine.text import Content, parts, readable
from student.bio import Places, places_of
from student.predictions import pad

Tokens: TypeAlias = "Sequence[int] | NDArray[np.int32]"

WINDOW_BATCHES = 16
"""Rows are sorted by length within this many batches: short enough to keep batches mixed, long enough to pad little."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Tokenised rows with the index of each one's label."""

    tokens: Sequence[Tokens]
    labels: Sequence[int]
    weights: Sequence[float] | None = None
    """How much each row counts in the loss, e.g. how far teachers agreed on it; None: all alike."""
    distributions: Sequence[Sequence[float] | None] | None = None
    """What the teacher thought of each label, in the student's order of labels; None for a row, or for all, that came without."""
    tags: Sequence[Tokens] | None = None
    """Of each row's tokens, as `student.bio` makes them; None where texts have labels."""
    places: Sequence[Places] | None = None
    """Of each row's tokens; there where `tags` are."""
    firsts: Sequence[int] | None = None
    """How many of each row's tokens are of the first text of its pair; None where rows are no pairs, or the network does not tell the texts
    of one apart but by the tokens between them."""

    def __len__(self) -> int:
        return len(self.labels)

    def without_firsts(self) -> Rows:
        """For a network that is not told which tokens are of which text."""
        return replace(self, firsts=None)

    def take(self, numbers: Sequence[int]) -> Rows:
        """The rows with these numbers, in this order."""
        columns = ((field.name, getattr(self, field.name)) for field in fields(self))
        return replace(self, **{name: [column[row] for row in numbers] for name, column in columns if column is not None})


class Tokenised(NamedTuple):
    tokens: list[Tokens]
    num_cut: int
    """Texts that were longer than the network reads."""
    places: list[Places]
    """Of the tokens of each text, if they were asked for."""
    firsts: list[int]
    """As in Rows, of pairs; whether the network wants to be told is not looked at here."""


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Content]) -> list[Tokens]:
    """Cut at the tokenizer's `model_max_length`; of a pair the longer text first, so that both are read."""
    return tokenise_counting(tokenizer, texts).tokens


def tokenise_counting(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Content], *, with_places: bool = False) -> Tokenised:
    """All are texts, or all are pairs."""
    if not texts:
        return Tokenised([], 0, [], [])
    # As lists of first and of second texts: a tokenizer takes a list of pairs for one text in words.
    firsts, *seconds = [[*map(readable, column)] for column in zip(*map(parts, texts), strict=True)]
    encoded = tokenizer(firsts, seconds[0] if seconds else None, truncation=True, return_token_type_ids=True if seconds else None)
    tokens: list[Tokens] = encoded["input_ids"]  # pyright: ignore[reportAssignmentType]
    # A tokenizer that adds nothing of its own makes no token of an empty text, and a network wants one to read.
    filler = tokenizer.unk_token_id if isinstance(tokenizer.unk_token_id, int) else 0
    encodings = encoded.encodings or ()
    num_cut = sum(bool(encoding.overflowing) for encoding in encodings)
    places: list[Places] = []
    if with_places:
        places = [places_of(parts(text)[0], encoding.offsets or [(0, 0)]) for text, encoding in zip(texts, encodings, strict=True)]
    types: list[list[int]] = encoded.get("token_type_ids", []) if seconds else []  # pyright: ignore[reportAssignmentType]
    return Tokenised([row if len(row) else [filler] for row in tokens], num_cut, places, [row.count(0) for row in types])


def collate(tokens: Sequence[Tokens], padding: int, device: torch.device, firsts: Sequence[int] | None = None) -> dict[str, torch.Tensor]:
    """As `student.predictions.pad`, on a device."""
    return {name: torch.from_numpy(values).to(device) for name, values in pad(tokens, padding, firsts).items()}


def firsts_of(firsts: Sequence[int] | None, rows: Sequence[int]) -> list[int] | None:
    """Of some rows, where there are any."""
    return None if firsts is None else [firsts[row] for row in rows]


def num_steps(num_rows: int, batch_size: int, min_steps: int) -> int:
    """Batches of one epoch."""
    return max(-(-num_rows // batch_size), min_steps)


def training_batches(lengths: Sequence[int], batch_size: int, min_steps: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """Row numbers, batch by batch: every row once, or, where that gives fewer than `min_steps` batches, repeated evenly.

    Rows of like length share a batch. Repeated rows come as often as each other, give or take one.
    """
    generator = random.Random(f"{seed} {epoch}")
    size = min(batch_size, len(lengths))
    steps = num_steps(len(lengths), batch_size, min_steps)
    order: list[int] = []
    while len(order) < (steps - 1) * size + 1:
        order += generator.sample(range(len(lengths)), len(lengths))
    del order[steps * size :]
    for start in range(0, len(order), size * WINDOW_BATCHES):
        window = sorted(order[start : start + size * WINDOW_BATCHES], key=lambda row: lengths[row])
        batches = [window[first : first + size] for first in range(0, len(window), size)]
        generator.shuffle(batches)
        yield from batches


def sorted_batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Row numbers, batch by batch, from the shortest to the longest: for prediction, where order is free."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
