"""Spans of a text, each an entity of one type."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from engine.records import Example
from engine.reports import MinedRow, WeaknessReport
from student.bio import UNTAGGED, span_tokens, to_tags
from student.data import Rows, Tokens, tokenise_counting
from student.diagnosis import Mined, stratum
from student.evaluation import ScoreCard
from student.heads import LogProbabilities
from student.kinds.kind import Review
from student.predictions import SpanPredictions
from student.slices import Entity, Vocabulary, find_entity_slices, find_slices, together
from student.span_decoding import GuessedSpans
from student.span_evaluation import all_mistakes, evaluate_spans, hits, spans_of
from student.span_mistakes import confusions_of, find_span_weaknesses
from student.tagging_losses import tagging_losses
from student.weaknesses import find_changes

log = logging.getLogger(__name__)


class Ner:
    """Rows count for the type of their first entity where they are spread evenly; those without any are a stratum of their own."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._types = labels

    @property
    def num_strata(self) -> int:
        return len(self._types) + 1

    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], name: str = "") -> Rows:
        found = tokenise_counting(tokenizer, [row.text for row in examples], with_places=True)
        taggings = [to_tags(row.spans, places, self._types) for row, places in zip(examples, found.places, strict=True)]
        if name:
            for loss in tagging_losses([row.text for row in examples], taggings, tokenizer.model_max_length):
                log.warning("%s: %s", name, loss)
        return Rows(
            found.tokens,
            [self._stratum(row) for row in examples],
            tags=[tagging.tags for tagging in taggings],
            places=found.places,
        )

    def score(self, predicted: LogProbabilities, examples: Sequence[Example], rows: Rows, thresholds: Sequence[float] = ()) -> ScoreCard:
        return evaluate_spans(self._predictions(predicted, rows), examples)

    def mined(
        self,
        predicted: LogProbabilities,
        examples: Sequence[Example],
        rows: Rows,
        round: int,
        learned: int,
        thresholds: Sequence[float] = (),
    ) -> list[Mined]:
        guesses = self._predictions(predicted, rows).decoded()
        return [
            Mined(round, MinedRow(row.text, "", "", guess.confidence, row.spans, spans_of(guess)), own, learned)
            for row, guess, own in zip(examples, guesses, _own(predicted, rows), strict=True)
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
        guesses = self._predictions(predicted, rows).decoded()
        mistakes, are_right = all_mistakes(examples, guesses), hits(examples, guesses)
        entities = [*_entities(examples, rows, guesses)]
        return Review(
            are_right,
            confusions_of(mistakes, mined),
            weaknesses=find_span_weaknesses(card.classes, mistakes, mined),
            slices=together(find_slices(rows.tokens, are_right, vocabulary), find_entity_slices(entities, vocabulary)),
            changes=find_changes(before, are_right, [dict.fromkeys(span.type for span in row.spans) for row in examples], "type"),
        )

    def meet(self, vocabulary: Vocabulary, rows: Rows) -> None:
        vocabulary.add(rows.tokens)
        assert rows.tags is not None
        for tokens, tags in zip(rows.tokens, rows.tags, strict=True):
            vocabulary.add_entities([tokens[place] for place in inside] for _, inside in span_tokens(_listed(tags)))

    def _predictions(self, predicted: LogProbabilities, rows: Rows) -> SpanPredictions:
        assert rows.places is not None
        return SpanPredictions(self._types, predicted, tuple(rows.places), 0)

    def _stratum(self, row: Example) -> int:
        type = stratum(row)
        return self._types.index(type) if type else len(self._types)


def _own(predicted: LogProbabilities, rows: Rows) -> Iterator[float]:
    """Of each row's own tags, the probability of the one that the student finds least probable; 1 where there is none."""
    assert rows.tags is not None
    start = 0
    for tags in rows.tags:
        own = np.asarray(tags, np.int64)
        asked = np.flatnonzero(own != UNTAGGED)
        yield float(np.exp(predicted[start + asked, own[asked]].min(initial=0.0)))
        start += len(own)


def _entities(examples: Sequence[Example], rows: Rows, guesses: Sequence[GuessedSpans]) -> Iterator[Entity]:
    """Those that tokens stand for."""
    assert rows.tags is not None
    assert rows.places is not None
    for row, tokens, places, guess in zip(examples, rows.tokens, rows.places, guesses, strict=True):
        found = set(spans_of(guess))
        first = int(places[places[:, 0] < places[:, 1], 0].min(initial=len(row.text)))
        for span in row.spans:
            inside = np.flatnonzero((places[:, 0] < span.end) & (places[:, 1] > span.start))
            if len(inside):
                yield Entity([int(tokens[token]) for token in inside], span.start == first, span in found)


def _listed(tags: Tokens) -> list[int]:
    return np.asarray(tags).tolist()
