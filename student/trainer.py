"""Trains a student on labelled rows and keeps the weights of its best epoch.

Invariants: the same student, rows and seed give the same weights on the same machine; the global random state is left as it was; a student
whose loss is no number is never handed back. A batch counts as one whatever memory allows: it is computed in as many pieces as that takes,
and in shares where several processes train together; their gradients are added up, so that all make the same step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from engine.config import StudentConfig
from engine.errors import StudentError
from student.data import Rows, collate, firsts_of, num_steps, training_batches
from student.embedding import only_used_rows
from student.hardware import Hardware
from student.heads import Objective
from student.inference import predict
from student.memory import RowLimit
from student.model import Student
from student.optimizer import TOKEN_IDS, Moments, learning_rate_factor, make_optimizer, read_moments, take_up_moments
from student.ranks import ALONE, Ranks

MAX_GRADIENT_NORM = 1.0
CHECK_STEPS = 32
"""A loss that is no number is noticed within so many steps: a GPU would have to wait for a look after each one."""


@dataclass(frozen=True, slots=True)
class Training:
    """How a round's training went."""

    epochs: int
    """Passes made, those after the best one included."""
    best_epoch: int
    """Whose weights were kept, counted from 1: the lowest validation loss, the earlier of equals."""
    train_s: float
    moments: Moments | None = None
    """The optimizer's, as of the best epoch; None unless `student.optimizer` is to continue."""


def train(
    student: Student,
    rows: Rows | Sequence[Rows],
    validation: Rows,
    config: StudentConfig,
    hardware: Hardware,
    seed: int,
    moments: Moments | None = None,
    ranks: Ranks = ALONE,
) -> Training:
    """Changes the student in place. `rows` are those of every epoch, or of each one; `moments` are those of an earlier training to go on
    with. StudentError if the loss becomes infinite or no number, or memory has no room for a single row. Where several processes train
    together, each calls this with the same arguments but for its device and rank, and comes out with the same student.
    """
    start = time.perf_counter()
    epochs = [rows] * config.epochs if isinstance(rows, Rows) else rows
    student.model.to(hardware.device)  # pyright: ignore[reportArgumentType] -- transformers wraps `to`
    token_ids = _token_ids(student, [*(epochs[:1] if isinstance(rows, Rows) else epochs), validation], moments)
    devices = [hardware.device] if hardware.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), only_used_rows(student.model, token_ids) as used:
        torch.manual_seed(seed + ranks.number)  # or all would drop the same places of different rows
        training = _Epochs(student, config, hardware, _objective(student, epochs[0], config, hardware), used, ranks)
        if moments is not None:
            take_up_moments(student, training.optimizer, moments, used)
        epoch, best_epoch, best_moments = training.run(epochs, validation, seed)
    student.head.settle(
        student.model, validation, lambda: predict(student, validation.tokens, hardware, config.batch_size, validation.firsts)
    )
    return Training(epoch, best_epoch, time.perf_counter() - start, best_moments)


class _Epochs:
    """Steps and epochs of one training."""

    def __init__(
        self,
        student: Student,
        config: StudentConfig,
        hardware: Hardware,
        objective: Objective,
        token_ids: NDArray[np.int64] | None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._student, self._config, self._hardware = student, config, hardware
        self._objective, self._ranks = objective, ranks
        self._token_ids = token_ids
        self._limit = RowLimit(min(config.batch_size, config.micro_batch_size or config.batch_size))
        self.optimizer = make_optimizer(student, config)

    def run(self, epochs: Sequence[Rows], validation: Rows, seed: int) -> tuple[int, int, Moments | None]:
        """The last epoch, the best one, and its moments if they are wanted; the model has its weights."""
        config, model = self._config, self._student.model
        steps = sum(num_steps(len(rows), config.batch_size, config.min_steps) for rows in epochs)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, steps, config.warmup, config.schedule)
        )
        best_loss, best_epoch, epoch = math.inf, 0, 0
        best_weights: dict[str, torch.Tensor] = {}
        best_moments: Moments | None = None
        for epoch, rows in enumerate(epochs, start=1):
            self._run_epoch(rows, schedule, seed, epoch)
            loss = self._validation_loss(validation)
            self._require_number(loss, epoch)
            if loss < best_loss:
                best_loss, best_epoch = loss, epoch
                best_weights = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
                if config.optimizer == "continue":
                    best_moments = read_moments(self._student, self.optimizer, self._token_ids)
            elif epoch - best_epoch >= config.patience:
                break
        if best_epoch != epoch:
            model.load_state_dict(best_weights)
        model.eval()
        return epoch, best_epoch, best_moments

    def _run_epoch(self, rows: Rows, schedule: torch.optim.lr_scheduler.LambdaLR, seed: int, epoch: int) -> None:
        config, model = self._config, self._student.model
        model.train()
        lengths = [len(tokens) for tokens in rows.tokens]
        unchecked: list[torch.Tensor] = []
        for batch in training_batches(lengths, config.batch_size, config.min_steps, seed, epoch):
            unchecked.append(self._compute(rows, batch))
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            self.optimizer.step()
            schedule.step()
            if len(unchecked) == CHECK_STEPS:
                self._require_numbers(unchecked, epoch)
        self._require_numbers(unchecked, epoch)

    def _compute(self, rows: Rows, batch: Sequence[int]) -> torch.Tensor:
        """Gradients and mean loss of a batch, in pieces that memory has room for."""
        # By the weights of the whole batch: its pieces and shares add up to the same.
        total = float(len(batch)) if rows.weights is None else max(sum(rows.weights[row] for row in batch), 1e-9)
        share = self._ranks.share(batch)
        if not share:  # every rank has to have gradients to add; these are zero
            share, total = batch[:1], math.inf
        while True:
            size = min(self._limit.rows, len(share))
            self.optimizer.zero_grad()
            try:
                pieces = [self._accumulate(rows, share[start : start + size], total) for start in range(0, len(share), size)]
                loss = torch.stack(pieces).sum()
                break
            except RuntimeError as error:
                self._limit.halve(error, size)
        return self._ranks.add_gradients(self._student.model.parameters(), loss)

    def _accumulate(self, rows: Rows, piece: Sequence[int], total: float) -> torch.Tensor:
        student, device = self._student, self._hardware.device
        inputs = collate([rows.tokens[row] for row in piece], student.padding, device, firsts_of(rows.firsts, piece))
        with self._hardware.autocast():
            logits: torch.Tensor = student.model(**inputs).logits
        losses = student.head.loss(logits, student.head.targets(rows, piece, device), self._objective)
        if rows.weights is not None:
            losses = losses * torch.tensor([rows.weights[row] for row in piece], device=device)
        loss = losses.sum() / total
        loss.backward()
        return loss.detach()

    def _validation_loss(self, rows: Rows) -> float:
        ranks = self._ranks
        own = rows if ranks.count == 1 else rows.take(ranks.share(range(len(rows))))
        loss = 0.0
        if len(own):
            predicted = predict(self._student, own.tokens, self._hardware, self._config.batch_size, own.firsts)
            loss = self._student.head.mean_loss(predicted, own)
        return loss if ranks.count == 1 else ranks.add(loss * len(own), self._hardware.device) / len(rows)

    def _require_numbers(self, losses: list[torch.Tensor], epoch: int) -> None:
        for loss in torch.stack(losses).tolist() if losses else ():
            self._require_number(loss, epoch)
        losses.clear()

    def _require_number(self, loss: float, epoch: int) -> None:
        if math.isfinite(loss):
            return
        config = self._config
        raise StudentError(
            f"training diverged: the loss is {loss} in epoch {epoch} (learning rate {config.learning_rate:g}, head "
            f"{config.head_learning_rate or config.learning_rate:g}, {self._hardware.precision}); lower student.learning_rate, or set "
            "student.precision to float32"
        )


def _objective(student: Student, rows: Rows, config: StudentConfig, hardware: Hardware) -> Objective:
    class_weights = None
    if config.class_weights == "balanced":
        truth = student.head.truth(rows)
        counts = np.bincount(truth[truth >= 0], minlength=len(student.outputs))
        # Of answers that are there they come to 1 on average. A class without any has nothing to weigh but that it is not there, where a
        # text may have several.
        weights = np.where(counts, counts.sum() / (max(1, np.count_nonzero(counts)) * np.maximum(counts, 1)), 1.0)
        class_weights = torch.tensor(weights, dtype=torch.float32, device=hardware.device)
    return Objective(class_weights, config.label_smoothing, config.soft_labels, config.temperature)


def _token_ids(student: Student, rows: Sequence[Rows], moments: Moments | None) -> NDArray[np.int64]:
    """Of all tokens that training meets, and of those whose moments are to be kept."""
    num_tokens = cast(torch.Tensor, student.model.get_input_embeddings().weight).shape[0]
    if moments is not None and TOKEN_IDS not in moments:
        return np.arange(num_tokens)
    is_used = np.zeros(num_tokens, np.bool_)
    is_used[student.padding] = True
    if moments is not None:
        is_used[moments[TOKEN_IDS].numpy()] = True
    for part in rows:
        for tokens in part.tokens:
            is_used[tokens] = True
    return is_used.nonzero()[0]
