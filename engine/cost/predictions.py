"""What predictions cost by teacher and by student, and when the distillation has paid for itself. Pure arithmetic over measured times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from engine.config import CostConfig
from engine.cost.cost import Cost, money_for

SECONDS = "seconds of the machine"
"""What is compared where there is no price."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Texts that all are timed on."""

    name: str
    """E.g. `long`."""
    rows: int
    """In a batch."""
    mean_tokens: float
    """As the student's tokenizer counts them, uncut."""
    joined: bool
    """Whether each is several rows of the task behind each other."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One way to predict, on one kind of inputs."""

    way: str
    """E.g. `teacher zero-shot`, `torch float32 cpu`."""
    inputs: str
    """Their name."""
    batch: int
    seconds: tuple[float, ...]
    """Of each batch, from its texts to its labels."""
    gpus: float
    cut_share: float
    """Of the texts, those that were longer than what is read."""
    most_tokens: int | None = None
    """That are read of a text; None where all is."""
    failed: int = 0
    """Rows without an answer, of all batches."""
    tokens_per_row: float | None = None
    """Of prompt and reply together, as the teacher's server counts them."""

    @property
    def batch_s(self) -> float:
        return median(self.seconds)

    @property
    def row_s(self) -> float:
        return self.batch_s / self.batch


@dataclass(frozen=True, slots=True)
class Quality:
    """On the task's test rows."""

    way: str
    rows: int
    accuracy: float
    macro_f1: float
    unanswered: int = 0
    """They count as wrong."""


@dataclass(frozen=True, slots=True)
class Line:
    """One way beside the teacher, on the same inputs."""

    way: str
    inputs: str
    ms_per_batch: float
    spread_ms: tuple[float, float]
    """The quickest and the slowest."""
    batches: int
    rows_per_s: float
    per_1000: float | None
    """Money for 1,000 predictions; None without a price that applies."""
    times_faster: float | None
    """Than the teacher; None where it was not timed."""
    times_cheaper: float | None
    cut_share: float
    most_tokens: int | None
    failed: int
    tokens_per_row: float | None
    accuracy: float | None
    macro_f1: float | None
    pays_after: int | None
    """Predictions after which the run has cost less than asking the teacher for all of them would have; None where it never does, or
    is not known."""


@dataclass(frozen=True, slots=True)
class PredictionCost:
    inputs: tuple[Inputs, ...]
    lines: tuple[Line, ...]
    quality: tuple[Quality, ...]
    currency: str
    run_money: float | None
    """What the run has cost."""
    run_s: float
    """Its wall time."""
    pays_in: str
    """What break-even is counted in: the currency, or SECONDS."""
    notes: tuple[str, ...]


def set_beside(
    teacher: str,
    timings: Sequence[Timing],
    quality: Sequence[Quality],
    inputs: Sequence[Inputs],
    prices: CostConfig,
    run: Cost | None,
    run_s: float,
    notes: Sequence[str] = (),
) -> PredictionCost:
    """`teacher`: the way that all others are compared with. `run_s`: what the run took, where it has no Cost."""
    by_inputs = {timing.inputs: timing for timing in timings if timing.way == teacher}
    scores = {found.way: found for found in quality}
    run_money = run.money if run else None
    run_s = run.wall_s if run else run_s
    in_money = run_money is not None and all(_per_row(timing, prices) is not None for timing in timings)
    lines: list[Line] = []
    for timing in timings:
        asked = by_inputs.get(timing.inputs)
        other = asked if asked is not timing else None
        mine, theirs = _per_row(timing, prices), other and _per_row(other, prices)
        score = scores.get(timing.way)
        spent, saved = (run_money, theirs is not None and mine is not None and theirs - mine) if in_money else (
            run_s, other is not None and other.row_s - timing.row_s
        )  # fmt: skip
        lines.append(
            Line(
                way=timing.way,
                inputs=timing.inputs,
                ms_per_batch=1000 * timing.batch_s,
                spread_ms=(1000 * min(timing.seconds), 1000 * max(timing.seconds)),
                batches=len(timing.seconds),
                rows_per_s=1 / timing.row_s,
                per_1000=None if mine is None else 1000 * mine,
                times_faster=other.row_s / timing.row_s if other else None,
                times_cheaper=theirs / mine if theirs is not None and mine else None,
                cut_share=timing.cut_share,
                most_tokens=timing.most_tokens,
                failed=timing.failed,
                tokens_per_row=timing.tokens_per_row,
                accuracy=score.accuracy if score else None,
                macro_f1=score.macro_f1 if score else None,
                pays_after=break_even(spent, saved or 0.0) if spent is not None and other else None,
            )
        )
    return PredictionCost(
        tuple(inputs),
        tuple(lines),
        tuple(quality),
        prices.currency,
        run_money,
        run_s,
        prices.currency if in_money else SECONDS,
        tuple(notes),
    )


def break_even(spent: float, saved_each: float) -> int | None:
    """The first number of predictions whose savings make up for what was spent; None if nothing is saved."""
    return math.ceil(spent / saved_each) if saved_each > 0 else None


def _per_row(timing: Timing, prices: CostConfig) -> float | None:
    kwh = prices.watts * timing.row_s / 3.6e6 if prices.watts is not None else None
    return money_for(prices, wall_s=timing.row_s, gpus=timing.gpus, kwh=kwh)
