"""Any number of labels a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from engine.records import Example
from engine.reports import MinedRow, WeaknessReport
from student.data import Rows, tokenise
from student.diagnosis import Mined
from student.evaluation import ScoreCard
from student.heads import LogProbabilities
from student.kinds.kind import Review
from student.label_set_evaluation import evaluate_sets, truth_matrix
from student.label_set_mistakes import find_set_confusions, find_set_weaknesses
from student.predictions import SetPredictions
from student.row_columns import has_labels
from student.slices import Vocabulary, find_slices
from student.weaknesses import find_changes


class MultiLabel:
    """Rows count for their first label where they are spread evenly; those without any are a stratum of their own."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._labels = labels

    @property
    def num_strata(self) -> int:
        return len(self._labels) + 1

    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], name: str = "") -> Rows:
        position = {label: index for index, label in enumerate(self._labels)}
        positions = [[position[label] for label in row.labels] for row in examples]
        strata = [min(row, default=len(self._labels)) for row in positions]
        return Rows(tokenise(tokenizer, [row.text for row in examples]), strata, distributions=has_labels(positions, len(self._labels)))

    def score(self, predicted: LogProbabilities, examples: Sequence[Example], rows: Rows, thresholds: Sequence[float] = ()) -> ScoreCard:
        return evaluate_sets(self._predictions(predicted, thresholds), truth_matrix(examples, self._labels))

    def mined(
        self,
        predicted: LogProbabilities,
        examples: Sequence[Example],
        rows: Rows,
        round: int,
        learned: int,
        thresholds: Sequence[float] = (),
    ) -> list[Mined]:
        guesses = self._predictions(predicted, thresholds).decoded()
        probabilities, there = np.exp(predicted), truth_matrix(examples, self._labels)
        own: list[float] = np.where(there, probabilities, 1 - probabilities).min(axis=1, initial=1.0).tolist()
        return [
            Mined(round, MinedRow(row.text, "", "", guess.confidence, labels=row.labels, predicted_labels=guess.labels), share, learned)
            for row, guess, share in zip(examples, guesses, own, strict=True)
        ]

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
        there, said = truth_matrix(examples, self._labels), self._predictions(predicted, thresholds).said
        hits = (there == said).all(axis=1)
        confusions = find_set_confusions(there, said, self._labels, mined)
        return Review(
            hits,
            confusions,
            weaknesses=find_set_weaknesses(there, said, card.classes, confusions, mined),
            slices=find_slices(rows.tokens, hits, vocabulary),
            changes=find_changes(before, hits, [row.labels for row in examples]),
        )

    def meet(self, vocabulary: Vocabulary, rows: Rows) -> None:
        vocabulary.add(rows.tokens)

    def _predictions(self, predicted: LogProbabilities, thresholds: Sequence[float] = ()) -> SetPredictions:
        return SetPredictions(self._labels, predicted, tuple(thresholds), 0)
