"""Several processes that train one student together, as each of them sees it: its share of a batch, and sums over all.

Invariants: shares are disjoint and make up the batch; a sum is the same to the bit in every process, so that what all decide by it, and
each step they make, is the same. Gradients are added after a process has computed its whole share, so that each may cut it into as many
pieces as its own memory asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

Rows = TypeVar("Rows", bound=Sequence[int])


@dataclass(frozen=True, slots=True)
class Ranks:
    """`count` processes, of which this is the `number`-th from 0. More than one: accelerate's state has to be set up."""

    number: int = 0
    count: int = 1

    def share(self, batch: Rows) -> Rows:
        """Every `count`-th row: neighbours are of like length, so that all have like work."""
        return batch if self.count == 1 else batch[self.number :: self.count]  # pyright: ignore[reportReturnType] -- a slice of the same kind

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter], loss: torch.Tensor) -> torch.Tensor:
        """Put the sum over all processes in place of each gradient; the sum of the losses."""
        if self.count == 1:
            return loss
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # One message for all of them, and the loss with them.
        parts = torch.cat([*(gradient.reshape(-1) for gradient in gradients), loss.reshape(1)])
        *summed, loss = _sum(parts).split([*(gradient.numel() for gradient in gradients), 1])
        for gradient, sum in zip(gradients, summed, strict=True):
            gradient.copy_(sum.view_as(gradient))
        return loss[0]

    def add(self, number: float, device: torch.device) -> float:
        return float(_sum(torch.tensor([number], dtype=torch.float64, device=device)))


ALONE = Ranks()


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    from accelerate.utils import reduce  # here, for one process alone does without it

    result = reduce(tensor, reduction="sum")
    assert isinstance(result, torch.Tensor)
    return result
