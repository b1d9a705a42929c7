"""Texts as tokens, and tokens as batches. Knows nothing of networks; the same seed gives the same batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from transformers import PreTrainedTokenizerBase

Tokens: TypeAlias = Sequence[int]

WINDOW_BATCHES = 16
"""Rows are sorted by length within this many batches: short enough to keep batches mixed, long enough to pad little."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Tokenised rows with the index of each one's label."""

    tokens: Sequence[Tokens]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.labels)


def readable(text: str) -> str:
    """The text with half surrogate pairs, which JSON can spell and no tokenizer or file takes, as question marks."""
    return text.encode(errors="replace").decode()


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Tokens]:
    """Cut at the tokenizer's `model_max_length`."""
    return tokenizer([readable(text) for text in texts], truncation=True)["input_ids"] if texts else []  # pyright: ignore[reportReturnType]


class TokenCache:
    """Tokenises each text once, for rows that are read again every round."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._tokens: dict[str, Tokens] = {}

    def tokenise(self, texts: Sequence[str]) -> list[Tokens]:
        new = list(dict.fromkeys(text for text in texts if text not in self._tokens))
        self._tokens.update(zip(new, tokenise(self._tokenizer, new), strict=True))
        return [self._tokens[text] for text in texts]


def collate(tokens: Sequence[Tokens], padding: int, device: torch.device) -> dict[str, torch.Tensor]:
    """A batch as the network takes it, padded to its longest row."""
    ids = _pad([torch.tensor(row) for row in tokens], padding)
    mask = _pad([torch.ones(len(row), dtype=torch.long) for row in tokens], 0)
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def _pad(rows: list[torch.Tensor], value: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


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
