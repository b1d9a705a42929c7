"""The contract of a kind of task: rows in, arrays for the network; what the network says in, judgements out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from engine.records import Example
from engine.reports import Change, Confusion, MinedRow, Slice, Weakness, WeaknessReport
from student.data import Rows
from student.diagnosis import Mined
from student.evaluation import ScoreCard
from student.heads import LogProbabilities
from student.slices import Vocabulary


@dataclass(frozen=True, slots=True)
class Review:
    """Where one student is weak on the validation rows."""

    hits: NDArray[np.bool_]
    """Which rows are right."""
    confusions: tuple[Confusion, ...]
    weaknesses: tuple[Weakness, ...]
    slices: tuple[Slice, ...]
    changes: tuple[Change, ...]


class Kind(Protocol):
    """Made of the task's labels; keeps nothing else."""

    def __init__(self, labels: tuple[str, ...]) -> None: ...

    @property
    def num_strata(self) -> int:
        """How many different numbers `Rows.labels` may have."""
        ...

    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], name: str = "") -> Rows:
        """Of rows whose labels are the task's. With a `name`, what is cut or cannot be learned is logged under it."""
        ...

    def score(self, predicted: LogProbabilities, examples: Sequence[Example], rows: Rows, thresholds: Sequence[float] = ()) -> ScoreCard:
        """`rows` are the examples, encoded; `predicted` is what `student.inference.predict` says of them, `thresholds` are its own."""
        ...

    def mined(
        self,
        predicted: LogProbabilities,
        examples: Sequence[Example],
        rows: Rows,
        round: int,
        learned: int,
        thresholds: Sequence[float] = (),
    ) -> list[Mined]:
        """By a student that had learned `learned` rows."""
        ...

    def review(
        self,
        predicted: LogProbabilities,
        examples: Sequence[Example],
        rows: Rows,
        card: ScoreCard,
        thresholds: Sequence[float] = (),
        *,
        mined: Sequence[MinedRow],
        vocabulary: Vocabulary,
        before: WeaknessReport | None,
    ) -> Review:
        """`card` is their score, `mined` are what examples may be taken from, `before` is the previous report."""
        ...

    def meet(self, vocabulary: Vocabulary, rows: Rows) -> None:
        """Count in what training rows bring."""
        ...
