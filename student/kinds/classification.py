"""One label a text, or a pair of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from engine.records import Example
from engine.reports import MinedRow, WeaknessReport
from student.data import Rows, tokenise_counting
from student.diagnosis import Mined, as_predictions
from student.evaluation import ScoreCard, score
from student.heads import LogProbabilities
from student.kinds.kind import Review
from student.slices import Vocabulary, find_slices
from student.weaknesses import find_changes, find_weaknesses, with_examples


class Classification:
    def __init__(self, labels: tuple[str, ...]) -> None:
        self._labels = labels

    @property
    def num_strata(self) -> int:
        return len(self._labels)

    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], name: str = "") -> Rows:
        position = {label: index for index, label in enumerate(self._labels)}
        found = tokenise_counting(tokenizer, [row.content for row in examples])
        return Rows(found.tokens, [position[row.label] for row in examples], firsts=found.firsts or None)

    def score(self, predicted: LogProbabilities, examples: Sequence[Example], rows: Rows, thresholds: Sequence[float] = ()) -> ScoreCard:
        return score(predicted, rows.labels, self._labels)

    def mined(
        self,
        predicted: LogProbabilities,
        examples: Sequence[Example],
        rows: Rows,
        round: int,
        learned: int,
        thresholds: Sequence[float] = (),
    ) -> list[Mined]:
        return as_predictions(examples, predicted, self._labels, round, learned)

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
        hits = predicted.argmax(axis=1) == np.asarray(rows.labels)
        confusions = with_examples(card.confusions, mined)
        return Review(
            hits,
            confusions,
            weaknesses=find_weaknesses(card.classes, confusions),
            slices=find_slices(rows.tokens, hits, vocabulary),
            changes=find_changes(before, hits, [(row.label,) for row in examples]),
        )

    def meet(self, vocabulary: Vocabulary, rows: Rows) -> None:
        vocabulary.add(rows.tokens)
