"""What a head is asked for: the network to build, targets for a batch, the loss of each row, and answers from logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from student.data import Rows

LogProbabilities: TypeAlias = NDArray[np.float64]
"""A row of the array for each text, a column for each label."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What a training asks of the loss."""

    class_weights: torch.Tensor | None = None
    """One a label; None: all alike."""
    label_smoothing: float = 0.0
    soft_labels: float = 0.0
    """Share of the teacher's distribution in the loss of a row that has one; the label has the rest."""
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Targets:
    """What the network should say of a batch, on its device."""

    labels: torch.Tensor
    distributions: torch.Tensor | None
    """Of the rows that `has_distribution` marks; anything in the others."""
    has_distribution: torch.Tensor | None


class Head(Protocol):
    """Keeps nothing between two calls."""

    @property
    def auto_model(self) -> Any:
        """The class of transformers that loads an encoder with this head."""
        ...

    def targets(self, rows: Rows, batch: Sequence[int], device: torch.device) -> Targets:
        """Of the rows with these numbers."""
        ...

    def loss(self, logits: torch.Tensor, targets: Targets, objective: Objective) -> torch.Tensor:
        """Of each row, in nats, in float32."""
        ...

    def decode(self, logits: torch.Tensor) -> LogProbabilities: ...
