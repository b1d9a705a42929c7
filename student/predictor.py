"""A trained student at work in PyTorch: texts in, labels or spans out. `student.onnx_predictor` does the same without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from engine.errors import UserError
from engine.records import Example
from student.data import tokenise_counting
from student.evaluation import ScoreCard, score
from student.hardware import Hardware, choose_hardware
from student.inference import LogProbabilities, predict
from student.model import Student, load_student
from student.predictions import AnyPredictions, Prediction, Predictions, SpanPredictions, TextPredictor, labels_only, spans_only
from student.span_decoding import GuessedSpans
from student.span_evaluation import evaluate_spans

__all__ = ["Prediction", "Predictor", "score_rows"]


@dataclass(frozen=True, slots=True)
class Predictor:
    """A `TextPredictor`."""

    student: Student
    hardware: Hardware

    @classmethod
    def load(cls, folder: Path, hardware: Hardware | None = None) -> Self:
        """UserError if the folder holds no student. Without `hardware`, on the GPU where there is one, in the quickest precision."""
        return cls(load_student(folder), hardware or choose_hardware())

    @property
    def labels(self) -> tuple[str, ...]:
        return self.student.labels

    @property
    def marks_spans(self) -> bool:
        return self.student.marks_spans

    @property
    def max_length(self) -> int:
        return self.student.max_length

    def predict(self, texts: Sequence[str], batch_size: int = 64) -> list[Prediction]:
        """In the order of the texts; texts of like length are computed together, so give many at a time. UserError for a student that
        marks spans: ask `predict_spans`.
        """
        return labels_only(self.predict_texts(texts, batch_size)).best()

    def predict_spans(self, texts: Sequence[str], batch_size: int = 64) -> list[GuessedSpans]:
        """The same of a student that marks spans; UserError for another one."""
        return spans_only(self.predict_texts(texts, batch_size)).best()

    def predict_texts(self, texts: Sequence[str], batch_size: int = 64) -> AnyPredictions:
        tokens, num_cut, places = tokenise_counting(self.student.tokenizer, texts, with_places=self.marks_spans)
        predicted = predict(self.student, tokens, self.hardware, batch_size)
        if self.marks_spans:
            return SpanPredictions(self.labels, predicted, tuple(places), num_cut)
        return Predictions(self.labels, predicted, num_cut)

    def log_probabilities(self, texts: Sequence[str], batch_size: int = 64) -> LogProbabilities:
        return self.predict_texts(texts, batch_size).log_probabilities


def score_rows(predictor: TextPredictor, rows: Sequence[Example], batch_size: int = 64) -> ScoreCard:
    """UserError for a row with a label, or a type of entity, that the student does not have."""
    names = predictor.labels
    position = {name: index for index, name in enumerate(names)}
    predicted = predictor.predict_texts([row.text for row in rows], batch_size)
    marks_spans = isinstance(predicted, SpanPredictions)
    for number, row in enumerate(rows, start=1):
        for name in [span.type for span in row.spans] if marks_spans else [row.label]:
            if name not in position:
                what = "type" if marks_spans else "label"
                shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
                raise UserError(
                    f"row {number} has the {what} {name!r}, which the student does not know; its {what}s are {shown}; leave such rows out, "
                    "or score a student that knows them"
                )
    if marks_spans:
        return evaluate_spans(predicted, rows)
    return score(predicted.log_probabilities, [position[row.label] for row in rows], names)
