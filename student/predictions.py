"""What a student says of texts, whatever computes it. Loads no torch, so that a student can run where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.errors import UserError
from engine.records import Example, TaskKind
from engine.text import Content
from student.bio import Places
from student.span_decoding import GuessedSpans, decode_spans

MARKS_SPANS = "ForTokenClassification"
"""How the architectures end, in a `config.json`, of students that mark spans."""
SEVERAL_LABELS = "multi_label_classification"
"""The `problem_type`, in a `config.json`, of students that give a text any number of labels."""
READS_PAIRS = "reads_pairs"
"""In a `config.json`, true for students that give one label to two texts together."""
UNDECIDED = 0.5
"""The probability from which on a label is said, where none was fitted."""
DIGITS = 6
"""Of a probability, where it is written; more would only be noise of the arithmetic."""


def kind_in(config: Mapping[str, Any]) -> TaskKind:
    """The kind of task, as in TaskSpec, that a student with this `config.json` was trained for."""
    if any(name.endswith(MARKS_SPANS) for name in config.get("architectures") or ()):
        return "ner"
    if config.get(READS_PAIRS):
        return "pair"
    return "multi_label" if config.get("problem_type") == SEVERAL_LABELS else "classification"


def thresholds_in(config: Mapping[str, Any], num_labels: int) -> tuple[float, ...]:
    """Of each label, the probability from which on a student with this `config.json` says it."""
    return tuple(map(float, config.get("thresholds") or [UNDECIDED] * num_labels))


def names_in(row: Example, kind: TaskKind) -> list[str]:
    """The label, the labels, or the types of entities that a row of a task of this kind has."""
    return [span.type for span in row.spans] if kind == "ner" else [*row.labels] if kind == "multi_label" else [row.label]


class Prediction(NamedTuple):
    label: str
    confidence: float
    """Softmax probability of `label`."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """One student on some texts, in their order."""

    labels: tuple[str, ...]
    """The student's, in the order of the columns below."""
    log_probabilities: NDArray[np.float64]
    """A row for each text, a column for each label."""
    num_cut: int
    """Texts that were longer than the student reads: it has seen their beginning only."""

    def __len__(self) -> int:
        return len(self.log_probabilities)

    def best(self) -> list[Prediction]:
        if not len(self):
            return []
        best = self.log_probabilities.argmax(axis=1)
        confidences = np.exp(self.log_probabilities.max(axis=1)).round(DIGITS)
        return [Prediction(self.labels[index], float(confidence)) for index, confidence in zip(best, confidences, strict=True)]

    def probabilities(self) -> list[dict[str, float]]:
        """Of every label, by its name."""
        rows: list[list[float]] = np.exp(self.log_probabilities).round(DIGITS).tolist()
        return [dict(zip(self.labels, row, strict=True)) for row in rows]

    def part(self, start: int, end: int) -> Self:
        """Of some neighbouring texts, without how many were cut."""
        return type(self)(self.labels, self.log_probabilities[start:end], 0)

    def and_those(self, parts: Sequence[Predictions]) -> Predictions:
        """Of these texts, then of the others."""
        return Predictions(self.labels, np.concatenate([part.log_probabilities for part in (self, *parts)]), 0)


@dataclass(frozen=True, slots=True)
class SpanPredictions:
    """The same of a student that marks spans."""

    labels: tuple[str, ...]
    """The types of entities."""
    log_probabilities: NDArray[np.float64]
    """A row for each token, text after text; a column for each of `student.bio.tag_names(labels)`."""
    places: tuple[Places, ...]
    """Of the tokens of each text."""
    num_cut: int

    def __len__(self) -> int:
        return len(self.places)

    def best(self) -> list[GuessedSpans]:
        """With confidences as they are written."""
        return [
            GuessedSpans(tuple(span._replace(confidence=round(span.confidence, DIGITS)) for span in spans), round(confidence, DIGITS))
            for spans, confidence in self.decoded()
        ]

    def decoded(self) -> list[GuessedSpans]:
        ends = self._ends()
        return [
            decode_spans(self.log_probabilities[ends[row] : ends[row + 1]], places, self.labels) for row, places in enumerate(self.places)
        ]

    def part(self, start: int, end: int) -> Self:
        ends = self._ends()
        return type(self)(self.labels, self.log_probabilities[ends[start] : ends[end]], self.places[start:end], 0)

    def and_those(self, parts: Sequence[SpanPredictions]) -> SpanPredictions:
        every = (self, *parts)
        log_probabilities = np.concatenate([part.log_probabilities for part in every])
        return SpanPredictions(self.labels, log_probabilities, tuple(places for part in every for places in part.places), 0)

    def _ends(self) -> NDArray[np.int64]:
        """Where each text's tokens end, behind a 0."""
        return np.cumsum([0, *map(len, self.places)])


class GuessedLabels(NamedTuple):
    """Of one text that may have any number."""

    labels: tuple[str, ...]
    """In the student's order."""
    confidence: float
    """Probability of the label, said or left out, of which the student was least sure."""


@dataclass(frozen=True, slots=True)
class SetPredictions:
    """The same of a student that gives a text any number of labels."""

    labels: tuple[str, ...]
    log_probabilities: NDArray[np.float64]
    """A row for each text, a column for each label: that the text has it. Those of a text do not come to 1."""
    thresholds: tuple[float, ...]
    """Of each label, the probability from which on it is said."""
    num_cut: int

    def __len__(self) -> int:
        return len(self.log_probabilities)

    @property
    def said(self) -> NDArray[np.bool_]:
        """Which labels each text gets."""
        return np.exp(self.log_probabilities) >= np.asarray(self.thresholds)

    def best(self) -> list[GuessedLabels]:
        """With confidences as they are written."""
        return [guess._replace(confidence=round(guess.confidence, DIGITS)) for guess in self.decoded()]

    def decoded(self) -> list[GuessedLabels]:
        said, probabilities = self.said, np.exp(self.log_probabilities)
        confidences: list[float] = np.where(said, probabilities, 1 - probabilities).min(axis=1, initial=1.0).tolist()
        return [
            GuessedLabels(tuple(label for label, is_said in zip(self.labels, row, strict=True) if is_said), confidence)
            for row, confidence in zip(said.tolist(), confidences, strict=True)
        ]

    def probabilities(self) -> list[dict[str, float]]:
        """Of every label, by its name."""
        rows: list[list[float]] = np.exp(self.log_probabilities).round(DIGITS).tolist()
        return [dict(zip(self.labels, row, strict=True)) for row in rows]

    def part(self, start: int, end: int) -> Self:
        return type(self)(self.labels, self.log_probabilities[start:end], self.thresholds, 0)

    def and_those(self, parts: Sequence[SetPredictions]) -> SetPredictions:
        return SetPredictions(self.labels, np.concatenate([part.log_probabilities for part in (self, *parts)]), self.thresholds, 0)


AnyPredictions: TypeAlias = Predictions | SetPredictions | SpanPredictions


def labels_only(predictions: AnyPredictions) -> Predictions:
    """UserError for those of a student that marks spans, or gives a text any number of labels."""
    if isinstance(predictions, SpanPredictions):
        raise UserError("this student marks spans, and a text has no label; expected one that was trained for classification")
    if isinstance(predictions, SetPredictions):
        raise UserError("this student gives a text any number of labels; expected one that was trained for classification")
    return predictions


def sets_only(predictions: AnyPredictions) -> SetPredictions:
    """UserError for those of a student that does not give a text any number of labels."""
    if not isinstance(predictions, SetPredictions):
        raise UserError("this student does not give a text any number of labels; expected one that was trained for `multi_label`")
    return predictions


def spans_only(predictions: AnyPredictions) -> SpanPredictions:
    """UserError for those of a student that gives a text labels."""
    if not isinstance(predictions, SpanPredictions):
        raise UserError("this student gives a text labels, and marks no spans; expected one that was trained for `ner`")
    return predictions


def joined(parts: Sequence[AnyPredictions]) -> AnyPredictions:
    """Of one student, and of one part at least; without how many were cut."""
    first, *others = parts
    return first.and_those(others)  # pyright: ignore[reportArgumentType] -- one student's are of one class


class TextPredictor(Protocol):
    """A student ready to work, for one caller at a time. Keeps nothing of what it has predicted: a stream can be fed to it in pieces."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Or the types of entities, where it marks spans."""
        ...

    @property
    def kind(self) -> TaskKind:
        """Of task that it was trained for."""
        ...

    @property
    def max_length(self) -> int:
        """Tokens of a text that it reads; the rest is cut."""
        ...

    def predict_texts(self, texts: Sequence[Content], batch_size: int = 64) -> AnyPredictions:
        """Texts of like length are computed together, so give many batches' worth at a time. UserError for texts where this student reads
        pairs, and for pairs where it reads texts.
        """
        ...


def check_contents(texts: Sequence[Content], kind: TaskKind) -> None:
    """UserError as of `TextPredictor.predict_texts`."""
    if any(isinstance(text, tuple) is not (kind == "pair") for text in texts):
        if kind == "pair":
            raise UserError("this student gives a label to two texts together; expected pairs, each with a text and a second one")
        raise UserError("this student reads one text at a time; expected texts, not pairs")


def tells_apart(config: Mapping[str, Any]) -> bool:
    """Whether a network with this `config.json` is told which tokens are of the first text of a pair, and which of the second. Others know
    them by the tokens that a tokenizer puts between the two.
    """
    return (config.get("type_vocab_size") or 0) > 1


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Row numbers, the longest rows first: what memory has no room for fails at once, not at the end."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def answers(values: NDArray[Any], lengths: Sequence[int]) -> NDArray[Any]:
    """What a network says of a padded batch, without what it says of padding: a row for each text, or for each token, text after text."""
    return values if values.ndim == 2 else np.concatenate([row[:length] for row, length in zip(values, lengths, strict=True)])


def pad(
    tokens: Sequence[Sequence[int] | NDArray[np.int32]], padding: int, firsts: Sequence[int] | None = None
) -> dict[str, NDArray[np.int64]]:
    """A batch as a network takes it, padded to its longest row. `firsts`: how many of a row's tokens are of the first text of a pair, for
    networks that are told so.
    """
    ids = np.full((len(tokens), max(map(len, tokens))), padding, np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(tokens):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    if firsts is not None:
        types = (np.arange(ids.shape[1]) >= np.asarray(firsts)[:, None]) & (mask > 0)
        inputs["token_type_ids"] = types.astype(np.int64)
    return inputs
