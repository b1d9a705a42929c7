"""AdamW over a student's parameters: what decays, how fast what learns, and its moments as tensors that can be saved.

Invariant: training that takes up saved moments goes on as if it had never stopped, also where another set of embedding rows is trained now.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from engine.config import StudentConfig
from student.model import Student

Moments: TypeAlias = dict[str, torch.Tensor]
"""`parameter/key` of AdamW's state, and `token_ids` where the embedding's are of some rows only."""

WEIGHT_DECAY = 0.01
"""AdamW's usual one; biases and norms are spared, as BERT's authors do."""
TOKEN_IDS = "token_ids"  # noqa: S105 -- tokens of a text
_KEYS = ("step", "exp_avg", "exp_avg_sq")


def make_optimizer(student: Student, config: StudentConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(_parameter_groups(student, config), fused=True)


def learning_rate_factor(step: int, total_steps: int, warmup: float, schedule: Literal["linear", "cosine", "constant"] = "linear") -> float:
    """Rises linearly over the share `warmup` of the steps, then falls to zero behind the last one, or stays."""
    warmup_steps = warmup * total_steps
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    left = max(0.0, (total_steps - step) / (total_steps - warmup_steps))
    match schedule:
        case "linear":
            return left
        case "cosine":
            return 0.5 * (1 - math.cos(math.pi * left))
        case "constant":
            return 1.0


def read_moments(student: Student, optimizer: torch.optim.AdamW, token_ids: NDArray[np.int64] | None) -> Moments:
    """Copies, on the CPU. `token_ids` are of the embedding's rows where it has some only."""
    moments: Moments = {} if token_ids is None else {TOKEN_IDS: torch.from_numpy(token_ids.copy())}
    for name, parameter in student.model.named_parameters():
        state = optimizer.state.get(parameter, {})
        moments |= {f"{name}/{key}": state[key].detach().to("cpu", copy=True) for key in _KEYS if key in state}
    return moments


def take_up_moments(student: Student, optimizer: torch.optim.AdamW, moments: Moments, token_ids: NDArray[np.int64] | None) -> None:
    """`token_ids` of now; they hold all those of the moments."""
    embedding = student.model.get_input_embeddings().weight
    for name, parameter in student.model.named_parameters():
        state = {key: moments[f"{name}/{key}"] for key in _KEYS if f"{name}/{key}" in moments}
        if not state:
            continue
        if parameter is embedding and TOKEN_IDS in moments:
            now = moments[TOKEN_IDS].numpy() if token_ids is None else np.searchsorted(token_ids, moments[TOKEN_IDS].numpy())
            for key in _KEYS[1:]:
                rows = torch.zeros(parameter.shape)
                rows[torch.from_numpy(now)] = state[key]
                state[key] = rows
        # Copies, for the optimizer writes into them.
        optimizer.state[parameter] = {key: value.to(parameter.device, copy=True) for key, value in state.items()}


def _parameter_groups(student: Student, config: StudentConfig) -> list[dict[str, object]]:
    head = {id(parameter) for parameter in student.head_parameters()}
    groups: list[dict[str, object]] = []
    for in_head, learning_rate in ((False, config.learning_rate), (True, config.head_learning_rate or config.learning_rate)):
        parameters = [parameter for parameter in student.model.parameters() if (id(parameter) in head) == in_head]
        for decays, decay in ((True, WEIGHT_DECAY), (False, 0.0)):
            # Biases and norms are the vectors; everything that multiplies has more axes.
            chosen: list[nn.Parameter] = [parameter for parameter in parameters if (parameter.ndim > 1) == decays]
            groups.append({"params": chosen, "lr": learning_rate, "weight_decay": decay})
    return groups
