"""What a student says of texts, whatever computes it. Loads no torch, so that a student can run where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

DIGITS = 6
"""Of a probability, where it is written; more would only be noise of the arithmetic."""


class Prediction(NamedTuple):
    label: str
    confidence: float
    """Softmax probability of `label`."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """One student on some texts, in their order."""

    labels: tuple[str, ...]
    """The student's, in the order of the columns below."""
    log_probabilities: NDArray[np.float64]
    """A row for each text, a column for each label."""
    num_cut: int
    """Texts that were longer than the student reads: it has seen their beginning only."""

    def __len__(self) -> int:
        return len(self.log_probabilities)

    def best(self) -> list[Prediction]:
        if not len(self):
            return []
        best = self.log_probabilities.argmax(axis=1)
        confidences = np.exp(self.log_probabilities.max(axis=1)).round(DIGITS)
        return [Prediction(self.labels[index], float(confidence)) for index, confidence in zip(best, confidences, strict=True)]

    def probabilities(self) -> list[dict[str, float]]:
        """Of every label, by its name."""
        rows: list[list[float]] = np.exp(self.log_probabilities).round(DIGITS).tolist()
        return [dict(zip(self.labels, row, strict=True)) for row in rows]


class TextPredictor(Protocol):
    """A student ready to work, for one caller at a time. Keeps nothing of what it has predicted: a stream can be fed to it in pieces."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def max_length(self) -> int:
        """Tokens of a text that it reads; the rest is cut."""
        ...

    def predict_texts(self, texts: Sequence[str], batch_size: int = 64) -> Predictions:
        """Texts of like length are computed together, so give many batches' worth at a time."""
        ...


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Row numbers, the longest rows first: what memory has no room for fails at once, not at the end."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def pad(tokens: Sequence[Sequence[int] | NDArray[np.int32]], padding: int) -> dict[str, NDArray[np.int64]]:
    """A batch as a network takes it, padded to its longest row."""
    ids = np.full((len(tokens), max(map(len, tokens))), padding, np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(tokens):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}
