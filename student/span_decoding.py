"""From the probabilities of tags to spans: the most probable sequence of tags that follows the scheme (BIO), and how sure it is.

Loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.records import Span
from student.bio import OUTSIDE, Places, span_tokens


class GuessedSpan(NamedTuple):
    """As a student names it."""

    start: int
    end: int
    """Characters of the text, the end not included."""
    type: str
    confidence: float
    """Softmax probability of the tag of the least sure of its tokens."""

    @property
    def span(self) -> Span:
        return Span(self.start, self.end, self.type)


class GuessedSpans(NamedTuple):
    """Of one text."""

    spans: tuple[GuessedSpan, ...]
    """In the order of the text."""
    confidence: float
    """As of a span, over all tokens; 1 where there is none that could be tagged."""


def decode_spans(log_probabilities: NDArray[np.float64], places: Places, types: Sequence[str]) -> GuessedSpans:
    """`log_probabilities`: a row for each token, a column for each of `tag_names(types)`."""
    tagged = np.flatnonzero(places[:, 0] < places[:, 1])
    tags = best_tags(log_probabilities[tagged])
    chosen = np.exp(log_probabilities[tagged, tags])
    places = places[tagged]
    spans = [
        GuessedSpan(int(places[tokens[0], 0]), int(places[tokens[-1], 1]), types[type], float(chosen[tokens].min()))
        for type, tokens in span_tokens(tags.tolist())
    ]
    return GuessedSpans(tuple(spans), float(chosen.min(initial=1.0)))


def best_tags(log_probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """The most probable tags in which every `I-` follows a tag of its type (Viterbi)."""
    tags = log_probabilities.argmax(axis=1)
    if not len(tags) or _follows(tags):
        return tags
    num_tags = log_probabilities.shape[1]
    before, after = np.meshgrid(range(num_tags), range(num_tags), indexing="ij")
    is_inside = (after > OUTSIDE) & (after % 2 == 0)
    penalty = np.where(~is_inside | (before == after) | (before == after - 1), 0.0, -np.inf)
    best = log_probabilities[0] + penalty[OUTSIDE]
    origins: list[NDArray[np.int64]] = []
    for row in log_probabilities[1:]:
        paths = best[:, None] + penalty
        origins.append(paths.argmax(axis=0))
        best = paths.max(axis=0) + row
    path = [int(best.argmax())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return np.array(path[::-1])


def _follows(tags: NDArray[np.int64]) -> bool:
    before = np.concatenate([[OUTSIDE], tags[:-1]])
    is_inside = (tags > OUTSIDE) & (tags % 2 == 0)
    return bool((~is_inside | (before == tags) | (before == tags - 1)).all())
