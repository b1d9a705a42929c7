"""A trained student at work: texts in, labels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from engine.errors import UserError
from engine.records import Example
from student.data import tokenise
from student.evaluation import ScoreCard, score
from student.hardware import Hardware, choose_hardware
from student.inference import LogProbabilities, predict
from student.model import Student, load_student


class Prediction(NamedTuple):
    label: str
    confidence: float
    """Softmax probability of `label`."""


@dataclass(frozen=True, slots=True)
class Predictor:
    """Keeps nothing of what it has predicted, so that a stream can be fed to it in pieces."""

    student: Student
    hardware: Hardware

    @classmethod
    def load(cls, folder: Path) -> Self:
        """UserError if the folder holds no student."""
        return cls(load_student(folder), choose_hardware())

    def predict(self, texts: Sequence[str], batch_size: int = 64) -> list[Prediction]:
        """In the order of the texts; texts of like length are computed together, so give many at a time."""
        predicted = self.log_probabilities(texts, batch_size)
        best = predicted.argmax(axis=1)
        confidences = np.exp(predicted.max(axis=1))
        return [Prediction(self.student.labels[index], float(p)) for index, p in zip(best, confidences, strict=True)]

    def log_probabilities(self, texts: Sequence[str], batch_size: int = 64) -> LogProbabilities:
        return predict(self.student, tokenise(self.student.tokenizer, texts), self.hardware, batch_size)


def score_rows(predictor: Predictor, rows: Sequence[Example], batch_size: int = 64) -> ScoreCard:
    """UserError for a row whose label the student does not have."""
    names = predictor.student.labels
    position = {name: index for index, name in enumerate(names)}
    for number, row in enumerate(rows, start=1):
        if row.label not in position:
            shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
            raise UserError(f"row {number} has the label {row.label!r}, which the student does not know; its labels are {shown}")
    predicted = predictor.log_probabilities([row.text for row in rows], batch_size)
    return score(predicted, [position[row.label] for row in rows], names)
