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

from engine.text import readable
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

    def __len__(self) -> int:
        return len(self.labels)

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


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Tokens]:
    """Cut at the tokenizer's `model_max_length`."""
    return tokenise_counting(tokenizer, texts).tokens


def tokenise_counting(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, with_places: bool = False) -> Tokenised:
    if not texts:
        return Tokenised([], 0, [])
    encoded = tokenizer([readable(text) for text in texts], truncation=True)
    tokens: list[Tokens] = encoded["input_ids"]  # pyright: ignore[reportAssignmentType]
    # A tokenizer that adds nothing of its own makes no token of an empty text, and a network wants one to read.
    filler = tokenizer.unk_token_id if isinstance(tokenizer.unk_token_id, int) else 0
    encodings = encoded.encodings or ()
    num_cut = sum(bool(encoding.overflowing) for encoding in encodings)
    places = [places_of(text, encoding.offsets or [(0, 0)]) for text, encoding in zip(texts, encodings, strict=True)] if with_places else []
    return Tokenised([row if len(row) else [filler] for row in tokens], num_cut, places)


def collate(tokens: Sequence[Tokens], padding: int, device: torch.device) -> dict[str, torch.Tensor]:
    """As `student.predictions.pad`, on a device."""
    return {name: torch.from_numpy(values).to(device) for name, values in pad(tokens, padding).items()}


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
