"""Spans of characters as tags of tokens, and back: BIO, for any tokenizer that says where in the text its tokens stand.

Every token carries a tag, also those within a word: the first of a span `B-`, the others `I-`. Where words are not spaced, a tokenizer's
"word" is a whole sentence, and an entity often ends within one ("U.S.-based"); what can be tagged is then decided by tokens alone.

Invariants: a span is recovered exactly, or named as lost; tags that are made here follow the scheme. Tokens that stand for no characters
(special ones, white space) carry no tag and divide no span.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.records import Span

Places: TypeAlias = NDArray[np.int32]
"""Of tokens in their text: a row for each, with its start and its end in characters. They are equal for a token that stands for none."""

UNTAGGED = -100
"""In place of a tag, for tokens without one; no loss is computed there."""
OUTSIDE = 0


class Tagging(NamedTuple):
    """Of one text."""

    tags: list[int]
    """A position in `tag_names` or UNTAGGED, for each token."""
    torn: tuple[Span, ...]
    """Spans that begin or end within a token, or share one with another span. They are taught as nearly as tokens allow; the student can
    never say quite them."""
    cut: tuple[Span, ...]
    """Spans that reach beyond the last token, where the text is cut."""


def tag_names(types: Sequence[str]) -> tuple[str, ...]:
    """`O`, then `B-` and `I-` of each type."""
    return ("O", *(f"{prefix}-{type}" for type in types for prefix in "BI"))


def span_types(tags: Sequence[str]) -> tuple[str, ...]:
    """The types behind `tag_names`. ValueError for tags that are not laid out so."""
    types = tuple(tag[2:] for tag in tags[1::2])
    if tag_names(types) != tuple(tags):
        raise ValueError(f"the tags {', '.join(tags[:5])} are not O, then B- and I- of each type")
    return types


def begin(type: int) -> int:
    """The tag that begins a span of the type with this position."""
    return 1 + 2 * type


def places_of(text: str, offsets: Sequence[tuple[int, int]]) -> Places:
    """Offsets as tokenizers give them, without the white space that some count to the token behind it."""
    return np.array([_trim(text, start, end) for start, end in offsets], np.int32).reshape(-1, 2)


def to_tags(spans: Sequence[Span], places: Places, types: Sequence[str]) -> Tagging:
    """`spans` in the order of the text, without overlaps. ValueError for a type that is none of `types`."""
    bounds: list[list[int]] = places.tolist()
    tags = [OUTSIDE if start < end else UNTAGGED for start, end in bounds]
    reach = max((end for _, end in bounds), default=0)
    for span in spans:
        tag = begin(types.index(span.type))
        for token, (start, end) in enumerate(bounds):
            if tags[token] == OUTSIDE and start < span.end and span.start < end:
                tags[token] = tag
                tag = begin(types.index(span.type)) + 1
    recovered = set(to_spans(tags, places, types))
    missing = [span for span in spans if span not in recovered]
    cut = tuple(span for span in missing if span.end > reach)
    return Tagging(tags, tuple(span for span in missing if span.end <= reach), cut)


def to_spans(tags: Sequence[int], places: Places, types: Sequence[str]) -> tuple[Span, ...]:
    """In the order of the text. An `I-` that nothing of its type began is no span."""
    return tuple(Span(int(places[tokens[0], 0]), int(places[tokens[-1], 1]), types[type]) for type, tokens in span_tokens(tags))


def span_tokens(tags: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Type and tokens of each span."""
    found: list[tuple[int, list[int]]] = []
    is_open = False
    for token, tag in enumerate(tags):
        if tag == UNTAGGED:
            continue
        type, is_inside = divmod(tag - 1, 2)
        if tag == OUTSIDE:
            is_open = False
        elif not is_inside:
            found.append((type, [token]))
            is_open = True
        elif is_open and found[-1][0] == type:
            found[-1][1].append(token)
        else:
            is_open = False
    return found


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())
