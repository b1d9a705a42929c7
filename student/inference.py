"""What a student says of rows: log-probabilities. Knows nothing of labels' names or of scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from student.data import Tokens, collate, firsts_of, sorted_batches
from student.hardware import Hardware
from student.heads import LogProbabilities, cross_entropy
from student.memory import RowLimit
from student.model import Student

__all__ = ["LogProbabilities", "cross_entropy", "predict"]


@torch.inference_mode()
def predict(
    student: Student, tokens: Sequence[Tokens], hardware: Hardware, batch_size: int, firsts: Sequence[int] | None = None
) -> LogProbabilities:
    """In the order of `tokens`; see LogProbabilities. `firsts` as in Rows. Leaves the model in evaluation mode, on the
    device of `hardware`. Batches that memory has no room for are computed in pieces.
    """
    model = student.model.to(hardware.device).eval()  # pyright: ignore[reportArgumentType] -- transformers wraps `to`
    lengths = [len(row) for row in tokens]
    ends = np.cumsum([0, *map(student.head.num_answers, lengths)])
    result = np.empty((ends[-1], len(student.outputs)))
    limit = RowLimit(batch_size)
    for batch in sorted_batches(lengths, batch_size):
        done = 0
        while done < len(batch):
            piece = batch[done : done + limit.rows]
            try:
                with hardware.autocast():
                    inputs = collate([tokens[row] for row in piece], student.padding, hardware.device, firsts_of(firsts, piece))
                    logits: torch.Tensor = model(**inputs).logits
            except RuntimeError as error:
                limit.halve(error, len(piece))
            else:
                answers = np.concatenate([np.arange(ends[row], ends[row + 1]) for row in piece])
                result[answers] = student.head.decode(logits, [lengths[row] for row in piece])
                done += len(piece)
    return result
