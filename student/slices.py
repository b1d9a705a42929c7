"""Whether the student is worse on rows of a kind: short or long ones, or ones with words that it was hardly ever taught; or on entities
of a kind: long ones, ones that a text begins with, or ones with words that it was taught no entity with.

A word here is a token of the student's own tokenizer, which serves every language.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from engine.reports import Slice
from student.data import Tokens

RARE_ROWS = 3
"""A word is rare if fewer training rows have it."""
NUM_SLICES = 7
"""Where entities are sliced beside the rows."""


class Entity(NamedTuple):
    """Of a validation row."""

    tokens: Tokens
    is_first: bool
    """Whether the text begins with it."""
    is_found: bool


class Vocabulary:
    """In how many training rows each token stands, and which stand in entities there. Grows with the rows, so that a round costs what is
    new in it.
    """

    def __init__(self) -> None:
        self._rows: Counter[int] = Counter()
        self._entities: set[int] = set()

    def add_entities(self, entities: Iterable[Tokens]) -> None:
        for tokens in entities:
            self._entities.update(map(int, tokens))

    def is_unseen(self, entity: Tokens) -> bool:
        """Whether it has a token that stands in no entity of the training rows."""
        return not self._entities.issuperset(map(int, entity))

    def add(self, rows: Iterable[Tokens]) -> None:
        for tokens in rows:
            self._rows.update(set(map(int, tokens)))

    def rarest(self, tokens: Tokens) -> int:
        """Training rows that have the rarest token of these."""
        return min((self._rows[int(token)] for token in tokens), default=0)


def find_slices(rows: Sequence[Tokens], hits: NDArray[np.bool_], vocabulary: Vocabulary) -> tuple[Slice, ...]:
    """Slices that have rows, and leave some to compare them with; the least likely to be chance first. `hits`: which rows are right."""
    lengths = np.array([len(tokens) for tokens in rows])
    rarest = np.array([vocabulary.rarest(tokens) for tokens in rows])
    short, long = int(np.quantile(lengths, 0.25, method="lower")), int(np.quantile(lengths, 0.75, method="higher"))
    candidates = [
        ("length:short", f"the shortest quarter: {short} tokens or fewer", lengths <= short),
        ("length:long", f"the longest quarter: {long} tokens or more", lengths >= long),
        ("words:rare", f"with a word that fewer than {RARE_ROWS} training rows have", (rarest > 0) & (rarest < RARE_ROWS)),
        ("words:unseen", "with a word that no training row has", rarest == 0),
    ]
    return _slices(candidates, hits)


def find_entity_slices(entities: Sequence[Entity], vocabulary: Vocabulary) -> tuple[Slice, ...]:
    """The same of entities."""
    if not entities:
        return ()
    lengths = np.array([len(entity.tokens) for entity in entities])
    long = int(np.quantile(lengths, 0.75, method="higher"))
    are_unseen = _mask(vocabulary.is_unseen(entity.tokens) for entity in entities)
    candidates = [
        ("entity:long", f"entities of {long} tokens or more", lengths >= long),
        ("entity:unseen", "entities with a word that no training row has in an entity", are_unseen),
        ("entity:first", "entities that a text begins with", _mask(entity.is_first for entity in entities)),
    ]
    return _slices(candidates, _mask(entity.is_found for entity in entities))


def together(*slices: Sequence[Slice]) -> tuple[Slice, ...]:
    """All that one report looked at."""
    every = [found for some in slices for found in some]
    return tuple(sorted((replace(found, of=NUM_SLICES) for found in every), key=lambda found: found.p_value))


def _mask(values: Iterable[bool]) -> NDArray[np.bool_]:
    return np.array([*values], np.bool_)


def _slices(candidates: Iterable[tuple[str, str, NDArray[np.bool_]]], hits: NDArray[np.bool_]) -> tuple[Slice, ...]:
    slices = [_compare(name, meaning, hits[inside], hits[~inside]) for name, meaning, inside in candidates if 0 < inside.sum() < len(hits)]
    return tuple(sorted(slices, key=lambda found: found.p_value))


def _compare(name: str, meaning: str, inside: NDArray[np.bool_], rest: NDArray[np.bool_]) -> Slice:
    table = [[np.count_nonzero(~part), np.count_nonzero(part)] for part in (inside, rest)]
    p_value = float(fisher_exact(table, alternative="greater").pvalue)  # pyright: ignore[reportAttributeAccessIssue] -- stubs say tuple
    return Slice(name, meaning, len(inside), float(inside.mean()), float(rest.mean()), p_value)
