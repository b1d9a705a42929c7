"""What a head is asked for: the network to build, targets for a batch, the loss of each row, and answers from logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from engine.records import TaskKind
from student.data import Rows

LogProbabilities: TypeAlias = NDArray[np.float64]
"""A row of the array for each answer, a column for each output. A head gives one answer a text, or one a token; then text after text."""


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
    """Of each row; or the tags of each row's tokens, padded."""
    distributions: torch.Tensor | None = None
    """Of the rows that `has_distribution` marks; anything in the others."""
    has_distribution: torch.Tensor | None = None


class Head(Protocol):
    """Keeps nothing between two calls."""

    @property
    def kind(self) -> TaskKind:
        """Of task."""
        ...

    @property
    def auto_model(self) -> Any:
        """The class of transformers that loads an encoder with this head."""
        ...

    @property
    def reads_first_token(self) -> bool:
        """Whether a text's answer is read off its first token."""
        ...

    def outputs(self, labels: Sequence[str]) -> tuple[str, ...]:
        """What the network's outputs mean, for a task with these labels."""
        ...

    def labels(self, outputs: Sequence[str]) -> tuple[str, ...]:
        """The other way. ValueError for outputs of something else."""
        ...

    def num_answers(self, length: int) -> int:
        """To a text of so many tokens."""
        ...

    def truth(self, rows: Rows) -> NDArray[np.int64]:
        """The right output of each answer, in the order of predictions; negative where none is asked for. Where an answer has several, all
        of them.
        """
        ...

    def targets(self, rows: Rows, batch: Sequence[int], device: torch.device) -> Targets:
        """Of the rows with these numbers."""
        ...

    def loss(self, logits: torch.Tensor, targets: Targets, objective: Objective) -> torch.Tensor:
        """Of each row, in nats, in float32."""
        ...

    def decode(self, logits: torch.Tensor, lengths: Sequence[int]) -> LogProbabilities:
        """Of a batch of texts with so many tokens each."""
        ...

    def settle(self, model: PreTrainedModel, rows: Rows, predict: Callable[[], LogProbabilities]) -> None:
        """Keep in the model's configuration what is chosen on validation beside its weights: on these rows, by what it says of them."""
        ...

    def mean_loss(self, predicted: LogProbabilities, rows: Rows) -> float:
        """Mean over the rows, in nats."""
        ...


def cross_entropy(predicted: LogProbabilities, truth: Sequence[int] | NDArray[np.int64]) -> float:
    """Mean over the answers, in nats; `truth` has an output for each."""
    return float(-predicted[np.arange(len(truth)), np.asarray(truth)].mean())
