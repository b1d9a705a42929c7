"""One label a text, or a pair of them: softmax over the labels, cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from engine.records import TaskKind
from student.data import Rows
from student.heads.head import LogProbabilities, Objective, Targets, cross_entropy


class SingleLabel:
    """Softmax over the labels."""

    reads_first_token = True

    def __init__(self, kind: TaskKind = "classification") -> None:
        """`pair` has the same head: what differs is what the encoder reads."""
        self._kind: TaskKind = kind

    @property
    def kind(self) -> TaskKind:
        return self._kind

    @property
    def auto_model(self) -> Any:
        return AutoModelForSequenceClassification

    def outputs(self, labels: Sequence[str]) -> tuple[str, ...]:
        return tuple(labels)

    def labels(self, outputs: Sequence[str]) -> tuple[str, ...]:
        return tuple(outputs)

    def num_answers(self, length: int) -> int:
        return 1

    def truth(self, rows: Rows) -> NDArray[np.int64]:
        return np.asarray(rows.labels, np.int64)

    def targets(self, rows: Rows, batch: Sequence[int], device: torch.device) -> Targets:
        labels = torch.tensor([int(rows.labels[row]) for row in batch], device=device)
        if rows.distributions is None:
            return Targets(labels)
        found = [rows.distributions[row] for row in batch]
        width = max((len(distribution) for distribution in found if distribution is not None), default=0)
        if width == 0:
            return Targets(labels)
        distributions = torch.tensor([[0.0] * width if distribution is None else list(distribution) for distribution in found])
        has_distribution = torch.tensor([distribution is not None for distribution in found])
        return Targets(labels, distributions.to(device), has_distribution.to(device))

    def loss(self, logits: torch.Tensor, targets: Targets, objective: Objective) -> torch.Tensor:
        """A row's class weight multiplies its loss, whichever target it is measured against."""
        logits = logits.float()
        loss = functional.cross_entropy(logits, targets.labels, reduction="none", label_smoothing=objective.label_smoothing)
        if targets.distributions is not None and targets.has_distribution is not None and objective.soft_labels:
            taught = _flatten(targets.distributions, objective.temperature)
            said = (logits / objective.temperature).log_softmax(dim=-1)
            # The square keeps the gradient as large as at a temperature of 1 (Hinton et al., 2015).
            soft = -(taught * said).sum(dim=-1) * objective.temperature**2
            share = objective.soft_labels * targets.has_distribution.float()
            loss = (1 - share) * loss + share * soft
        return loss if objective.class_weights is None else loss * objective.class_weights[targets.labels]

    def decode(self, logits: torch.Tensor, lengths: Sequence[int]) -> LogProbabilities:
        return logits.double().log_softmax(dim=-1).cpu().numpy()

    def settle(self, model: PreTrainedModel, rows: Rows, predict: Callable[[], LogProbabilities]) -> None:
        """Nothing: the most probable output is the answer."""

    def mean_loss(self, predicted: LogProbabilities, rows: Rows) -> float:
        return cross_entropy(predicted, rows.labels)


def _flatten(distributions: torch.Tensor, temperature: float) -> torch.Tensor:
    """The distribution that a softmax at this temperature would have given."""
    powers = distributions ** (1 / temperature)
    # Rows without one are all zeros; they must not become a division of zero by zero, whose NaN no share of zero takes away.
    return powers / powers.sum(dim=-1, keepdim=True).clamp_min(1e-12)
