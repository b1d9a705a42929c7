"""A trained student at work in PyTorch: texts (or pairs) in, a label, labels or spans out. `student.onnx_predictor` does the same without
PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from engine.errors import UserError
from engine.records import Example, TaskKind
from engine.text import Content
from student.data import tokenise_counting
from student.evaluation import ScoreCard, score
from student.hardware import Hardware, choose_hardware
from student.inference import LogProbabilities, predict
from student.label_set_evaluation import evaluate_sets, truth_matrix
from student.model import Student, load_student
from student.predictions import (
    AnyPredictions,
    GuessedLabels,
    Prediction,
    Predictions,
    SetPredictions,
    SpanPredictions,
    TextPredictor,
    check_contents,
    labels_only,
    names_in,
    sets_only,
    spans_only,
)
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
    def kind(self) -> TaskKind:
        return self.student.kind

    @property
    def max_length(self) -> int:
        return self.student.max_length

    def predict(self, texts: Sequence[Content], batch_size: int = 64) -> list[Prediction]:
        """In the order of the texts, or of the pairs of a student that reads those; those of like length are computed together, so give
        many at a time. UserError for a student that
        marks spans, or gives a text any number of labels: ask `predict_spans`, or `predict_sets`.
        """
        return labels_only(self.predict_texts(texts, batch_size)).best()

    def predict_sets(self, texts: Sequence[str], batch_size: int = 64) -> list[GuessedLabels]:
        """The same of a student that gives a text any number of labels; UserError for another one."""
        return sets_only(self.predict_texts(texts, batch_size)).best()

    def predict_spans(self, texts: Sequence[str], batch_size: int = 64) -> list[GuessedSpans]:
        """The same of a student that marks spans; UserError for another one."""
        return spans_only(self.predict_texts(texts, batch_size)).best()

    def predict_texts(self, texts: Sequence[Content], batch_size: int = 64) -> AnyPredictions:
        check_contents(texts, self.kind)
        tokens, num_cut, places, firsts = tokenise_counting(self.student.tokenizer, texts, with_places=self.kind == "ner")
        predicted = predict(self.student, tokens, self.hardware, batch_size, firsts if self.student.tells_apart else None)
        if self.kind == "ner":
            return SpanPredictions(self.labels, predicted, tuple(places), num_cut)
        if self.kind == "multi_label":
            return SetPredictions(self.labels, predicted, self.student.thresholds, num_cut)
        return Predictions(self.labels, predicted, num_cut)

    def log_probabilities(self, texts: Sequence[Content], batch_size: int = 64) -> LogProbabilities:
        return self.predict_texts(texts, batch_size).log_probabilities


def score_rows(predictor: TextPredictor, rows: Sequence[Example], batch_size: int = 64) -> ScoreCard:
    """UserError for a row with a label, or a type of entity, that the student does not have."""
    names = predictor.labels
    position = {name: index for index, name in enumerate(names)}
    predicted = predictor.predict_texts([row.content for row in rows], batch_size)
    for number, row in enumerate(rows, start=1):
        for name in names_in(row, predictor.kind):
            if name not in position:
                what = "type" if predictor.kind == "ner" else "label"
                shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
                raise UserError(
                    f"row {number} has the {what} {name!r}, which the student does not know; its {what}s are {shown}; leave such rows out, "
                    "or score a student that knows them"
                )
    if isinstance(predicted, SpanPredictions):
        return evaluate_spans(predicted, rows)
    if isinstance(predicted, SetPredictions):
        return evaluate_sets(predicted, truth_matrix(rows, names))
    return score(predicted.log_probabilities, [position[row.label] for row in rows], names)
