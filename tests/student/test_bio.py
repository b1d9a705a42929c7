"""Spans to tags and back: exactly, or named as lost, whatever the tokenizer and the text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from engine.records import Span
from student.bio import UNTAGGED, places_of, span_types, tag_names, to_spans, to_tags

TYPES = ("PER", "ORG", "B-odd")
WORDS = (
    "New",
    "York",
    "U.S.-based",
    "naïve",
    "Zürich",
    "東京都",
    "e\u0301t\u0301e",
    "👩\u200d🔬",
    "x",
    "don't",
    "ﬁre",
    "İstanbul",
    "-",
    "1,000",
)
SPACES = (" ", "  ", "\n", "\t ", "\u00a0")
CORPUS = [" ".join(WORDS[start:]) + " new york newer yorker based zurich fire" for start in range(len(WORDS))]


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    return trained(tokenizer, trainers.WordPieceTrainer(vocab_size=80, special_tokens=["[UNK]"], show_progress=False))


def bpe() -> Tokenizer:
    """As SentencePiece cuts: a token holds the space before it, and may go on within a word."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    return trained(tokenizer, trainers.BpeTrainer(vocab_size=120, special_tokens=["[UNK]"], show_progress=False))


def byte_level(*, trim: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(tokenizer, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False))


def trained(tokenizer: Tokenizer, trainer: trainers.Trainer) -> Tokenizer:
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


TOKENIZERS = {"WordPiece": word_piece(), "BPE": bpe(), "byte level": byte_level(trim=True), "byte level, spaced": byte_level(trim=False)}


def place(tokenizer: Tokenizer, text: str) -> np.ndarray:
    return places_of(text, tokenizer.encode(text).offsets)


@st.composite
def pieces(draw: st.DrawFn) -> list[str]:
    """Words and what stands between them, which may be nothing."""
    words = draw(st.lists(st.sampled_from(WORDS) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), min_size=1, max_size=8))
    return [piece for word in words for piece in (word, draw(st.sampled_from((*SPACES, ""))))]


@st.composite
def marked(draw: st.DrawFn) -> tuple[str, list[Span]]:
    """Spans that may touch, and begin and end wherever a character does."""
    text = "".join(draw(pieces()))
    ends = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    spans = [Span(start, end, draw(st.sampled_from(TYPES))) for start, end in pairwise(ends) if draw(st.booleans())]
    return text, spans


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=50)
@given(row=marked())
def test_every_span_comes_back_or_is_named(name: str, row: tuple[str, list[Span]]) -> None:
    text, spans = row
    places = place(TOKENIZERS[name], text)
    found = to_tags(spans, places, TYPES)
    assert len(found.tags) == len(places)
    back = to_spans(found.tags, places, TYPES)
    lost = {*found.torn, *found.cut}
    assert {*spans} - {*back} == lost
    assert len(lost) == len(found.torn) + len(found.cut)


@st.composite
def marked_words(draw: st.DrawFn) -> tuple[str, list[Span]]:
    """Spans of whole words between spaces, as people mark them."""
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8))
    text, bounds = "", list[tuple[int, int]]()
    for word in words:
        bounds.append((len(text), len(text) + len(word)))
        text += word + draw(st.sampled_from(SPACES))
    spans: list[Span] = []
    first = 0
    while first < len(words):
        last = draw(st.integers(first, len(words) - 1))
        if draw(st.booleans()):
            spans.append(Span(bounds[first][0], bounds[last][1], draw(st.sampled_from(TYPES))))
        first = last + 1
    return text, spans


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=50)
@given(row=marked_words())
def test_whole_words_always_come_back(name: str, row: tuple[str, list[Span]]) -> None:
    text, spans = row
    places = place(TOKENIZERS[name], text)
    found = to_tags(spans, places, TYPES)
    assert (found.torn, found.cut) == ((), ())
    assert list(to_spans(found.tags, places, TYPES)) == spans


@given(st.lists(st.integers(0, 2 * len(TYPES)), max_size=12))
def test_spans_of_any_tags_are_tagged_alike(tags: list[int]) -> None:
    """Up to what follows no scheme, which is no span."""
    places = np.array([(2 * token, 2 * token + 1) for token in range(len(tags))], np.int32).reshape(-1, 2)
    spans = to_spans(tags, places, TYPES)
    found = to_tags(spans, places, TYPES)
    assert to_spans(found.tags, places, TYPES) == spans
    assert (found.torn, found.cut) == ((), ())


def test_tokens_within_a_word_go_on() -> None:
    places = np.array([(0, 0), (0, 3), (3, 5), (6, 9), (0, 0)], np.int32)
    found = to_tags([Span(0, 5, "ORG"), Span(6, 9, "ORG")], places, TYPES)
    names = tag_names(TYPES)
    assert [tag if tag == UNTAGGED else names[tag] for tag in found.tags] == [UNTAGGED, "B-ORG", "I-ORG", "B-ORG", UNTAGGED]


def test_an_entity_that_ends_within_a_token_is_torn_and_one_behind_the_last_is_cut() -> None:
    places = np.array([(0, 4), (5, 9)], np.int32)
    torn, cut, across = Span(0, 2, "PER"), Span(10, 12, "PER"), Span(5, 12, "ORG")
    found = to_tags([torn, cut], places, TYPES)
    assert (found.torn, found.cut) == ((torn,), (cut,))
    assert found.tags[0] == 1, "it is taught as nearly as tokens allow"
    assert to_tags([across], places, TYPES).cut == (across,)


def test_types_follow_from_tags() -> None:
    assert span_types(tag_names(TYPES)) == TYPES
    for tags in (("B-PER", "I-PER", "O"), ("O", "I-PER", "B-PER"), ("LABEL_0", "LABEL_1")):
        with pytest.raises(ValueError, match="not O, then B- and I-"):
            span_types(tags)


def offsets(places: np.ndarray) -> Sequence[Sequence[int]]:
    return places.tolist()


def test_white_space_belongs_to_no_token() -> None:
    assert offsets(places_of("a  b\n", [(0, 0), (0, 1), (1, 4), (4, 5)])) == [[0, 0], [0, 1], [3, 4], [5, 5]]
