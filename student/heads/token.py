"""A tag a token: softmax over BIO tags, for tasks that mark spans.

Every token of the text is asked, also those within a word (see `student.bio`). A row's loss is the mean over its tokens, so that a long
text counts as much as a short one. A teacher's distribution over labels says nothing of tags, and is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import AutoModelForTokenClassification, PreTrainedModel

from engine.records import TaskKind
from student.bio import UNTAGGED, span_types, tag_names
from student.data import Rows, Tokens
from student.heads.head import LogProbabilities, Objective, Targets
from student.predictions import answers


class TokenTags:
    """Softmax over the tags of each token."""

    kind: TaskKind = "ner"
    reads_first_token = False

    @property
    def auto_model(self) -> Any:
        return AutoModelForTokenClassification

    def outputs(self, labels: Sequence[str]) -> tuple[str, ...]:
        return tag_names(labels)

    def labels(self, outputs: Sequence[str]) -> tuple[str, ...]:
        return span_types(outputs)

    def num_answers(self, length: int) -> int:
        return length

    def truth(self, rows: Rows) -> NDArray[np.int64]:
        return _concatenated(_tags(rows))

    def targets(self, rows: Rows, batch: Sequence[int], device: torch.device) -> Targets:
        found = [_tags(rows)[row] for row in batch]
        padded = np.full((len(found), max(map(len, found))), UNTAGGED, np.int64)
        for place, tags in enumerate(found):
            padded[place, : len(tags)] = tags
        return Targets(torch.from_numpy(padded).to(device))

    def loss(self, logits: torch.Tensor, targets: Targets, objective: Objective) -> torch.Tensor:
        """A tag's class weight multiplies the loss of its token. A row without a token to tag has none."""
        loss = functional.cross_entropy(
            logits.float().transpose(1, 2),
            targets.labels,
            reduction="none",
            ignore_index=UNTAGGED,
            label_smoothing=objective.label_smoothing,
        )
        is_tagged = targets.labels != UNTAGGED
        if objective.class_weights is not None:
            loss = loss * objective.class_weights[targets.labels.clamp_min(0)]
        return loss.sum(dim=1) / is_tagged.sum(dim=1).clamp_min(1)

    def decode(self, logits: torch.Tensor, lengths: Sequence[int]) -> LogProbabilities:
        return answers(logits.double().log_softmax(dim=-1).cpu().numpy(), lengths)

    def settle(self, model: PreTrainedModel, rows: Rows, predict: Callable[[], LogProbabilities]) -> None:
        """Nothing: the most probable output is the answer."""

    def mean_loss(self, predicted: LogProbabilities, rows: Rows) -> float:
        return mean_token_loss(predicted, _tags(rows))


def mean_token_loss(predicted: LogProbabilities, tags: Sequence[Tokens]) -> float:
    """As in training: the mean over a row's tokens, and then over the rows; `tags` are of each row's tokens."""
    truth = _concatenated(tags)
    losses = np.where(truth != UNTAGGED, -predicted[np.arange(len(truth)), np.maximum(truth, 0)], 0.0)
    row = np.repeat(np.arange(len(tags)), [len(own) for own in tags])
    sums = np.bincount(row, weights=losses, minlength=len(tags))
    return float((sums / np.maximum(np.bincount(row[truth != UNTAGGED], minlength=len(tags)), 1)).mean())


def _concatenated(tags: Sequence[Tokens]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, np.int64), *(np.asarray(own, np.int64) for own in tags)])


def _tags(rows: Rows) -> Sequence[Tokens]:
    assert rows.tags is not None, "rows of a task that marks spans"
    return rows.tags
