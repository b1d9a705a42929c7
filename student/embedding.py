"""Trains the rows of the embedding that some text uses, and leaves the others as they are.

A small task uses some thousand of the 30,000 tokens that BERT knows, or of the 250,000 of XLM-R, whose embedding is two thirds of all its
weights. The rows of the others never get a gradient; but as long as they are there, each step clears, measures and decays all of them.

Invariants: the network sees the same token ids and says the same; on leaving, the rows are back in their places, however it is left. The
one difference from training the whole embedding: what no text uses is not shrunk by weight decay.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

WORTHWHILE = 0.5
"""Share of the rows up to which it is done."""


class UsedRows(nn.Module):
    """Stands in for an embedding, and holds the rows of these tokens only."""

    def __init__(self, whole: nn.Embedding, token_ids: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(whole.weight.detach()[token_ids].clone())
        self.places: torch.Tensor
        places = torch.full((whole.num_embeddings,), len(token_ids), device=token_ids.device)  # an index error for what was not foreseen
        places[token_ids] = torch.arange(len(token_ids), device=token_ids.device)
        self.register_buffer("places", places, persistent=False)
        self.embedding_dim = whole.embedding_dim
        self.padding_idx = whole.padding_idx
        self._padding_place = None if whole.padding_idx is None else int(places[whole.padding_idx])

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(self.places[input_ids], self.weight, self._padding_place)


@contextmanager
def only_used_rows(model: PreTrainedModel, token_ids: NDArray[np.int64]) -> Generator[NDArray[np.int64] | None]:
    """Inside, the model has the rows of these tokens only, and takes no others. Yields their ids in the order of the rows; None where all
    rows stay: there is little to leave out, or the embedding is of a kind that this is not made for.
    """
    whole = _splittable(model)
    if whole is None:
        yield None
        return
    padding = [] if whole.padding_idx is None else [whole.padding_idx]
    used = np.union1d(token_ids, np.array(padding, np.int64))
    if len(used) > WORTHWHILE * whole.num_embeddings:
        yield None
        return
    chosen = torch.from_numpy(used).to(whole.weight.device)
    rows = UsedRows(whole, chosen)
    model.set_input_embeddings(rows)
    try:
        yield used
    finally:
        with torch.no_grad():
            whole.weight[chosen] = rows.weight.to(whole.weight.device)
        model.set_input_embeddings(whole)


def _splittable(model: PreTrainedModel) -> nn.Embedding | None:
    whole = model.get_input_embeddings()
    if type(whole) is not nn.Embedding or whole.max_norm is not None or whole.scale_grad_by_freq or whole.sparse:
        return None
    # Not where another layer shares the weights, nor where they are kept as they are.
    holders = [name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter is whole.weight]
    return whole if len(holders) == 1 and whole.weight.requires_grad else None
