"""What a student says of rows: log-probabilities. Knows nothing of labels' names or of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from student.data import Tokens, collate, sorted_batches
from student.hardware import Hardware
from student.model import Student

LogProbabilities: TypeAlias = NDArray[np.float64]
"""A row of the array for each text, a column for each label."""


@torch.inference_mode()
def predict(student: Student, tokens: Sequence[Tokens], hardware: Hardware, batch_size: int) -> LogProbabilities:
    """In the order of `tokens`. Leaves the model in evaluation mode, on the device of `hardware`."""
    model = student.model.to(hardware.device).eval()  # pyright: ignore[reportArgumentType] -- transformers wraps `to`
    result = np.empty((len(tokens), len(student.labels)))
    for batch in sorted_batches([len(row) for row in tokens], batch_size):
        with hardware.autocast():
            logits: torch.Tensor = model(**collate([tokens[row] for row in batch], student.padding, hardware.device)).logits
        result[batch] = logits.double().log_softmax(dim=-1).cpu().numpy()
    return result


def cross_entropy(predicted: LogProbabilities, labels: Sequence[int]) -> float:
    """Mean over the rows, in nats."""
    return float(-predicted[np.arange(len(labels)), np.asarray(labels)].mean())
