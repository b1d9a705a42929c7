"""How many rows are computed at once where memory may run out."""

from __future__ import annotations

import logging

import torch

from engine.errors import StudentError

log = logging.getLogger(__name__)


class RowLimit:
    """Starts at what was asked for, halves each time memory runs out, and stays there."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def halve(self, error: RuntimeError, tried: int) -> None:
        """After `tried` rows were too many. Raises the error itself if it is another one; StudentError if a single row is too many."""
        if not ran_out_of_memory(error):
            raise error
        if tried <= 1:
            raise StudentError(
                "out of memory with a single row; give a smaller encoder, lower student.max_length, or set student.device to cpu"
            ) from error
        self.rows = tried // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning("out of memory with %d rows at once; going on with %d", tried, self.rows)


def ran_out_of_memory(error: RuntimeError) -> bool:
    # On the CPU PyTorch has no class of its own for it.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
