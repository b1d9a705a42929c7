"""The quickstart corpus: hand-written help-desk messages with inline entity marks, one file an intent.

A line is one message. `[text](type)` marks an entity: `where is [48213-B](order_number)?` reads "where is 48213-B?" and carries one
span. Nothing else may use square brackets. Lines that begin with `#` and empty lines are skipped.

    python examples/quickstart/corpus.py            # measures every file and names what is wrong, exit 1 if anything is
    python examples/quickstart/corpus.py FILE …     # the same for some files
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
ENTITY_TYPES = ("order_number", "product", "date", "amount", "person", "place")

MIN_DISTINCT_TRIGRAMS = 0.6
"""Distinct word 3-grams / all word 3-grams: text expanded from templates falls far below."""
MAX_OPENING_SHARE = 0.05
"""Largest share of an intent's rows that may begin with the same three words."""
MAX_JACCARD = 0.7
"""Two rows at or above this similarity on word 3-shingles are near copies."""

_MARK = re.compile(r"\[([^\[\]]+)\]\(([a-z_]+)\)")
_WORD = re.compile(r"[\w'’]+")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` (exclusive) of the text are an entity of this type."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True)
class Utterance:
    text: str
    spans: tuple[Span, ...]


class CorpusError(ValueError):
    """A line does not follow the format; the message names what to mend."""


def parse_line(line: str) -> Utterance:
    """Take the marks out of a line and keep where they were."""
    spans: list[Span] = []
    parts: list[str] = []
    length = position = 0
    for mark in _MARK.finditer(line):
        before, inner, kind = line[position : mark.start()], mark.group(1), mark.group(2)
        if kind not in ENTITY_TYPES:
            raise CorpusError(f"unknown entity type {kind!r}; one of {', '.join(ENTITY_TYPES)}")
        if inner != inner.strip():
            raise CorpusError(f"mark {inner!r} begins or ends with a space")
        parts += [before, inner]
        start = length + len(before)
        length = start + len(inner)
        spans.append(Span(start, length, kind))
        position = mark.end()
    parts.append(line[position:])
    text = "".join(parts)
    if "[" in text or "]" in text:
        raise CorpusError("a square bracket that is no mark; write [text](type)")
    if text != " ".join(text.split()):
        raise CorpusError("more than one space in a row, or a space at an end")
    return Utterance(text, tuple(spans))


def read_intent(path: Path) -> list[Utterance]:
    """Every message of one file, in order."""
    rows: list[Utterance] = []
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not raw.strip() or raw.startswith("#"):
            continue
        try:
            rows.append(parse_line(raw.strip()))
        except CorpusError as error:
            raise CorpusError(f"{path.name}:{number}: {error}") from None
    return rows


def read_corpus(folder: Path = FOLDER) -> dict[str, list[Utterance]]:
    """Intent name (the file's stem) -> its messages, intents in alphabetical order."""
    return {path.stem: read_intent(path) for path in sorted(folder.glob("*.txt"))}


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """The text's set of word 3-grams; a shorter text is one shingle by itself."""
    tokens = words(text)
    if len(tokens) < 3:
        return frozenset([tuple(tokens)])
    return frozenset(zip(tokens, tokens[1:], tokens[2:], strict=False))


def distinct_trigram_ratio(texts: Iterable[str]) -> float:
    """Distinct word 3-grams over all word 3-grams of these texts together."""
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        tokens = words(text)
        counts.update(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return len(counts) / max(1, counts.total())


def opening_shares(texts: Sequence[str]) -> Counter[tuple[str, ...]]:
    """How many texts begin with each three-word opening (texts under three words have none)."""
    return Counter(tuple(tokens[:3]) for tokens in map(words, texts) if len(tokens) >= 3)


def near_copies(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int, float]]:
    """Pairs (i, j, similarity) with left[i] and right[j] at or above MAX_JACCARD on word 3-shingles."""
    index: dict[tuple[str, ...], list[int]] = {}
    right_sets = [shingles(text) for text in right]
    for j, grams in enumerate(right_sets):
        for gram in grams:
            index.setdefault(gram, []).append(j)
    pairs: list[tuple[int, int, float]] = []
    for i, text in enumerate(left):
        grams = shingles(text)
        shared = Counter(j for gram in grams for j in index.get(gram, ()))
        for j, common in shared.items():
            similarity = common / (len(grams) + len(right_sets[j]) - common)
            if similarity >= MAX_JACCARD:
                pairs.append((i, j, similarity))
    return pairs


def problems(intent: str, rows: Sequence[Utterance]) -> list[str]:
    """What keeps these rows from counting as varied, hand-written messages; empty when nothing does."""
    found: list[str] = []
    texts = [row.text for row in rows]
    ratio = distinct_trigram_ratio(texts)
    if ratio < MIN_DISTINCT_TRIGRAMS:
        found.append(f"{intent}: distinct 3-gram ratio {ratio:.2f}, at least {MIN_DISTINCT_TRIGRAMS} wanted")
    for opening, count in opening_shares(texts).most_common():
        if count > MAX_OPENING_SHARE * len(rows):
            found.append(f"{intent}: {count} of {len(rows)} rows open with {' '.join(opening)!r}")
    for i, j, similarity in near_copies(texts, texts):
        if i < j:
            found.append(f"{intent}: near copies ({similarity:.2f}): {texts[i]!r} / {texts[j]!r}")
    return found


def main(arguments: Sequence[str]) -> int:
    paths = [Path(argument) for argument in arguments] or sorted(FOLDER.glob("*.txt"))
    failed = False
    for path in paths:
        try:
            rows = read_intent(path)
        except CorpusError as error:
            print(error)
            failed = True
            continue
        texts = [row.text for row in rows]
        kinds = Counter(span.type for row in rows for span in row.spans)
        lengths = sorted(len(words(text)) for text in texts) or [0]
        print(
            f"{path.stem:22} {len(rows):4} rows  3-grams {distinct_trigram_ratio(texts):.2f}  "
            f"words {lengths[0]}-{lengths[-1]}, median {lengths[len(lengths) // 2]}  "
            + ", ".join(f"{kind} {kinds[kind]}" for kind in ENTITY_TYPES)
        )
        for problem in problems(path.stem, rows):
            print("  " + problem)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
