"""Any number of labels a text: a sigmoid for each, and a threshold of its own.

A row's truth is its distribution, with a 1 for each label that it has (or what a teacher thinks of each, in between); its label only says
where it counts when rows are drawn. The thresholds are fitted on validation, and kept in the model's configuration.
"""

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
from student.heads.head import LogProbabilities, Objective, Targets
from student.predictions import UNDECIDED


class MultiLabel:
    """A sigmoid a label."""

    kind: TaskKind = "multi_label"
    reads_first_token = True

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
        return np.nonzero(truth_of(rows) >= UNDECIDED)[1]

    def targets(self, rows: Rows, batch: Sequence[int], device: torch.device) -> Targets:
        found = torch.tensor(_truth_of(rows, batch), dtype=torch.float32, device=device)
        return Targets(torch.tensor([int(rows.labels[row]) for row in batch], device=device), found, None)

    def loss(self, logits: torch.Tensor, targets: Targets, objective: Objective) -> torch.Tensor:
        """Mean over the labels. A label's class weight multiplies its part; smoothing draws every target towards a half."""
        assert targets.distributions is not None
        wanted = targets.distributions * (1 - objective.label_smoothing) + objective.label_smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(logits.float(), wanted, reduction="none")
        return (losses if objective.class_weights is None else losses * objective.class_weights).mean(dim=1)

    def decode(self, logits: torch.Tensor, lengths: Sequence[int]) -> LogProbabilities:
        """Of each label that the text has it; those of a text do not come to 1."""
        return functional.logsigmoid(logits.double()).cpu().numpy()

    def settle(self, model: PreTrainedModel, rows: Rows, predict: Callable[[], LogProbabilities]) -> None:
        model.config.thresholds = fit_thresholds(predict(), truth_of(rows) >= UNDECIDED).tolist()

    def mean_loss(self, predicted: LogProbabilities, rows: Rows) -> float:
        wanted = truth_of(rows)
        absent = np.log1p(-np.minimum(np.exp(predicted), 1 - 1e-12))
        return float(-(wanted * predicted + (1 - wanted) * absent).mean())


def fit_thresholds(predicted: LogProbabilities, truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """For each label the probability from which on it is said, so that its F1 on these rows is the best; between two neighbours the middle.
    Of a label that no row has nothing is known: UNDECIDED.

    `truth`: a row for each text, a column for each label.
    """
    return np.array([_best_threshold(np.exp(column), has) for column, has in zip(predicted.T, truth.T, strict=True)])


def _best_threshold(probabilities: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    if not truth.any():
        return UNDECIDED
    order = np.argsort(-probabilities, kind="stable")
    found = np.cumsum(truth[order])
    f1 = 2 * found / (np.arange(1, len(order) + 1) + truth.sum())
    # Texts that are equally probable are said together or not at all.
    descending = probabilities[order]
    is_cut = np.append(descending[:-1] > descending[1:], True)
    last = int(np.where(is_cut, f1, -1.0).argmax())
    below = descending[last + 1] if last + 1 < len(order) else 0.0
    return float((descending[last] + below) / 2)


def truth_of(rows: Rows) -> NDArray[np.float64]:
    """A row for each text, a column for each label: whether it has it."""
    return _truth_of(rows, range(len(rows)))


def _truth_of(rows: Rows, numbers: Sequence[int]) -> NDArray[np.float64]:
    assert rows.distributions is not None, "rows that may have several labels"
    found = [rows.distributions[number] for number in numbers]
    assert all(row is not None for row in found)
    return np.array([list(row or ()) for row in found], np.float64)
