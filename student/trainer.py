"""Trains a student on labelled rows and keeps the weights of its best epoch.

Invariants: the same student, rows and seed give the same weights on the same machine; the global random state is left as it was; a student
whose loss is no number is never handed back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from engine.config import StudentConfig
from engine.errors import StudentError
from student.data import Rows, collate, num_steps, training_batches
from student.hardware import Hardware
from student.inference import cross_entropy, predict
from student.model import Student

WEIGHT_DECAY = 0.01
"""AdamW's usual one; biases and norms are spared, as BERT's authors do."""
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Training:
    """How a round's training went."""

    epochs: int
    """Passes made, those after the best one included."""
    best_epoch: int
    """Whose weights were kept, counted from 1: the lowest validation loss, the earlier of equals."""
    train_s: float


def train(student: Student, rows: Rows, validation: Rows, config: StudentConfig, hardware: Hardware, seed: int) -> Training:
    """Changes the student in place. StudentError if the loss becomes infinite or no number."""
    start = time.perf_counter()
    devices = [hardware.device] if hardware.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        epochs, best_epoch = _train(student, rows, validation, config, hardware, seed)
    return Training(epochs, best_epoch, time.perf_counter() - start)


def _train(student: Student, rows: Rows, validation: Rows, config: StudentConfig, hardware: Hardware, seed: int) -> tuple[int, int]:
    model = student.model.to(hardware.device)  # pyright: ignore[reportArgumentType] -- transformers wraps `to`
    optimizer = torch.optim.AdamW(_parameter_groups(student, config), fused=True)
    total_steps = config.epochs * num_steps(len(rows), config.batch_size, config.min_steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, total_steps, config.warmup))
    lengths = [len(row) for row in rows.tokens]
    best_loss, best_epoch = math.inf, 0
    best_weights: dict[str, torch.Tensor] = {}
    epoch = 0
    for epoch in range(1, config.epochs + 1):
        model.train()
        for batch in training_batches(lengths, config.batch_size, config.min_steps, seed, epoch):
            loss = _loss(student, rows, batch, hardware)
            if not math.isfinite(loss.item()):
                raise _diverged(loss.item(), epoch, config, hardware)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            schedule.step()
        validation_loss = cross_entropy(predict(student, validation.tokens, hardware, config.batch_size), validation.labels)
        if not math.isfinite(validation_loss):
            raise _diverged(validation_loss, epoch, config, hardware)
        if validation_loss < best_loss:
            best_loss, best_epoch = validation_loss, epoch
            best_weights = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
        elif epoch - best_epoch >= config.patience:
            break
    if best_epoch != epoch:
        model.load_state_dict(best_weights)
    model.eval()
    return epoch, best_epoch


def learning_rate_factor(step: int, total_steps: int, warmup: float) -> float:
    """Rises linearly over the share `warmup` of the steps, then falls linearly to zero behind the last one."""
    warmup_steps = warmup * total_steps
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return max(0.0, (total_steps - step) / (total_steps - warmup_steps))


def _loss(student: Student, rows: Rows, batch: Sequence[int], hardware: Hardware) -> torch.Tensor:
    inputs = collate([rows.tokens[row] for row in batch], student.padding, hardware.device)
    labels = torch.tensor([rows.labels[row] for row in batch], device=hardware.device)
    with hardware.autocast():
        logits: torch.Tensor = student.model(**inputs).logits
    return nn.functional.cross_entropy(logits.float(), labels)


def _parameter_groups(student: Student, config: StudentConfig) -> list[dict[str, object]]:
    head = {id(parameter) for parameter in student.head_parameters()}
    groups: list[dict[str, object]] = []
    for in_head, learning_rate in ((False, config.learning_rate), (True, config.head_learning_rate or config.learning_rate)):
        parameters = [parameter for parameter in student.model.parameters() if (id(parameter) in head) == in_head]
        for decays, decay in ((True, WEIGHT_DECAY), (False, 0.0)):
            # Biases and norms are the vectors; everything that multiplies has more axes.
            chosen = [parameter for parameter in parameters if (parameter.ndim > 1) == decays]
            groups.append({"params": chosen, "lr": learning_rate, "weight_decay": decay})
    return groups


def _diverged(loss: float, epoch: int, config: StudentConfig, hardware: Hardware) -> StudentError:
    return StudentError(
        f"training diverged: the loss is {loss} in epoch {epoch} (learning rate {config.learning_rate:g}, head "
        f"{config.head_learning_rate or config.learning_rate:g}, {hardware.precision}); lower student.learning_rate, or set "
        "student.precision to float32"
    )
