"""Whether a row the teacher wrote may enter the samples. The first gate that refuses names the reason; the dear ones come last.

Gatekeeper keeps what the duplicate and leakage gates compare with: of each text eight bytes, and, for near duplicates, its sketch. The
same rows admitted in the same order give the same decisions, so a resumed run builds it anew from the rows that are committed.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple, Protocol

from engine.gates.near_duplicates import REMEMBERED_ROWS, NearDuplicates, Sketches, sketch, sketch_pairs
from engine.gates.scripts import main_script
from engine.labels.label_sets import LabelSetError, label_set
from engine.labels.marking import MarkingError, check_spans
from engine.records import ONE_LABEL, Candidate, RejectionReason, TaskKind, content_of
from engine.text import BETWEEN, Content, parts

_ASCII_WORDS = bytes(ord(chr(code).lower()) if chr(code).isalnum() else ord(" ") for code in range(128)).ljust(256)
"""What `comparable` makes of each ASCII character."""
_DIGEST_MASK = (1 << 60) - 1
_ROWS_TOGETHER = 64
"""Judged at once; each is compared with each, so that the time of many more would grow with their square."""
_HELD_OUT_BUCKET_ROWS = 16
"""Validation and test are few rows, and a leak costs more than a lost row: looked at more closely than the rows of the run."""


class Refusal(NamedTuple):
    reason: RejectionReason
    detail: str


def comparable(text: Content) -> str:
    """The text without case, punctuation, spacing and what cannot be seen: two rows with the same comparable text are one row written
    twice. Pictures count: with another emoji a message may say the opposite. Of a pair both texts, with a bar between them.

    A text of punctuation alone is compared as it stands.
    """
    if isinstance(text, tuple):
        return BETWEEN.join(map(comparable, text))
    if text.isascii():
        # What the rest says, at a third of the time; most rows are ASCII, and every row comes by here.
        return b" ".join(text.encode().translate(_ASCII_WORDS).split()).decode() or text.strip()
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_WORDS).split()) or folded.strip()


class _Words(dict[int, str]):
    """What `comparable` makes of each character, found out when it first comes up."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Cf" or unicodedata.name(character, "").startswith("VARIATION SELECTOR"):
            made = ""
        elif character.isalnum() or category in ("Mn", "Mc"):
            # Marks belong to the word they stand in: without its vowel signs, most of Hindi would be one word.
            made = character
        else:
            made = f" {character} " if category == "So" else " "
        self[code] = made
        return made


_WORDS = _Words()


def check_shape(row: Candidate, labels: frozenset[str], max_text_chars: int, kind: TaskKind = "classification") -> Refusal | None:
    """The gates that need nothing but the row and the task. `labels` are the task's, or its types of entities."""
    if row.problem is not None:
        return Refusal(row.reason, row.problem)
    if not row.text:
        return Refusal(RejectionReason.EMPTY, "no text")
    if len(row.text) > max_text_chars:
        return Refusal(RejectionReason.TOO_LONG, f"{len(row.text)} characters, at most {max_text_chars}")
    if kind == "pair" and (refusal := _check_second(row, max_text_chars)) is not None:
        return refusal
    if kind not in ONE_LABEL:
        return (_check_marks if kind == "ner" else _check_labels)(row, labels)
    return None if row.label in labels else Refusal(RejectionReason.UNKNOWN_LABEL, f"label {row.label[:100]!r}")


def _check_second(row: Candidate, max_text_chars: int) -> Refusal | None:
    text = row.annotation and row.annotation.text_pair
    if text is None:
        return Refusal(RejectionReason.SCHEMA, "one text, and a pair was asked for")
    if not text:
        return Refusal(RejectionReason.EMPTY, "no second text")
    if len(text) > max_text_chars:
        return Refusal(RejectionReason.TOO_LONG, f"{len(text)} characters in the second text, at most {max_text_chars}")
    return None


def _check_marks(row: Candidate, types: frozenset[str]) -> Refusal | None:
    if row.annotation is None:
        return Refusal(RejectionReason.UNLABELLED, "its entities were not marked")
    try:
        check_spans(row.text, row.annotation.spans, types)
    except MarkingError as error:
        return Refusal(RejectionReason.SPANS, str(error))
    return None


def _check_labels(row: Candidate, labels: frozenset[str]) -> Refusal | None:
    if row.annotation is None or row.annotation.labels is None:
        return Refusal(RejectionReason.UNLABELLED, "it got no list of labels")
    try:
        label_set(row.annotation.labels, labels)
    except LabelSetError as error:
        return Refusal(error.reason, str(error))
    return None


class Gates(Protocol):
    """Who judges the rows of a run."""

    def judge(self, rows: Sequence[Candidate]) -> list[Refusal | None]:
        """In the order of the rows, which are of one reply; None admits one."""
        ...


class Gatekeeper:
    """Judges rows; an admitted row is remembered, and its next copy refused.

    Exact copies are found among all rows, at 70 bytes of memory a row; near ones among the real rows and the newest `remembered_rows`,
    at 200 bytes a row that are taken at the start.
    """

    def __init__(
        self,
        labels: Iterable[str],
        max_text_chars: int,
        *,
        known: Iterable[Content],
        held_out: Iterable[Content],
        similarity: float | None = None,
        remembered_rows: int = REMEMBERED_ROWS,
        kind: TaskKind = "classification",
        scripts: frozenset[str] = frozenset(),
    ) -> None:
        """`labels` and `kind` as of `check_shape`; `known`: texts of the seed and then of the rows admitted earlier, in their order;
        `held_out`: texts of validation and test; both are pairs where rows are. `scripts`: those that rows may be written in
        (`engine.gates.scripts`), empty for any.

        `similarity`: from which estimate on a row is a near duplicate; None looks for exact ones only. Each of `known` is read once and
        not kept, so a million rows may come from a generator; with near duplicates they take half a minute: build it in a thread.
        """
        self._labels = frozenset(labels)
        self._scripts = scripts
        self._kind: TaskKind = kind
        self._max_text_chars = max_text_chars
        held_out_texts = {_digest(text): text for text in map(comparable, held_out)}
        self._held_out = frozenset(held_out_texts)
        self._known: set[int] = set()
        self._near: _NearGate | None = None
        if similarity is not None:
            self._near = _NearGate(similarity, remembered_rows, held_out_texts.values(), are_pairs=kind == "pair")
        distinct = self._remember(known)
        if self._near is None:
            deque(distinct, maxlen=0)
        else:
            self._near.add_all(distinct)

    def _remember(self, known: Iterable[Content]) -> Iterator[str]:
        """What makes each distinct text comparable, as they come."""
        for text in map(comparable, known):
            if (digest := _digest(text)) not in self._known:
                self._known.add(digest)
                yield text

    def judge(self, rows: Sequence[Candidate]) -> list[Refusal | None]:
        """In the order of the rows; None admits one. Together, as those of one reply, they cost a fraction of what each would alone."""
        if len(rows) <= _ROWS_TOGETHER:
            return self._judge(rows)
        slices = (rows[start : start + _ROWS_TOGETHER] for start in range(0, len(rows), _ROWS_TOGETHER))
        return [refusal for part in slices for refusal in self._judge(part)]

    def _judge(self, rows: Sequence[Candidate]) -> list[Refusal | None]:
        refusals = [self._check_row(row) for row in rows]
        if self._near is None:
            return [
                self._admit(_digest(comparable(content_of(row)))) if refusal is None else refusal
                for row, refusal in zip(rows, refusals, strict=True)
            ]
        texts = {number: comparable(content_of(rows[number])) for number, refusal in enumerate(refusals) if refusal is None}
        digests = {number: _digest(text) for number, text in texts.items()}
        for number, digest in digests.items():
            refusals[number] = self._check_copy(digest)
        open_rows = [number for number in texts if refusals[number] is None]
        if not open_rows:
            return refusals
        look = self._near.look([texts[number] for number in open_rows])
        for place, number in enumerate(open_rows):
            # Again: an earlier one of these rows may have been admitted.
            refusal = self._check_copy(digests[number]) or look.judge(place)
            if refusal is None:
                self._known.add(digests[number])
                look.admit(place)
            refusals[number] = refusal
        look.keep_admitted()
        return refusals

    def _admit(self, digest: int) -> Refusal | None:
        """One after the other, as far as copies go."""
        refusal = self._check_copy(digest)
        if refusal is None:
            self._known.add(digest)
        return refusal

    def _check_row(self, row: Candidate) -> Refusal | None:
        refusal = check_shape(row, self._labels, self._max_text_chars, self._kind)
        if refusal is not None or not self._scripts:
            return refusal
        for script in map(main_script, parts(content_of(row))):
            if script is not None and script not in self._scripts:
                return Refusal(RejectionReason.SCRIPT, f"mainly {script.title()}, the seed is {', '.join(sorted(self._scripts)).title()}")
        return None

    def _check_copy(self, digest: int) -> Refusal | None:
        if digest in self._held_out:
            return Refusal(RejectionReason.LEAKAGE, "a row of validation or test")
        if digest in self._known:
            return Refusal(RejectionReason.DUPLICATE, "the same text is already there")
        return None


class _NearGate:
    """Rows that must not leak have an index to themselves, where no new row takes their place."""

    def __init__(self, similarity: float, remembered_rows: int, held_out: Collection[str], *, are_pairs: bool = False) -> None:
        self._sketch = sketch_pairs if are_pairs else sketch
        capacity = max(1, len(held_out))
        self._held_out = NearDuplicates(similarity, capacity=capacity, bucket_rows=_HELD_OUT_BUCKET_ROWS, sketch=self._sketch)
        self._held_out.add_all(held_out)
        self._known = NearDuplicates(similarity, capacity=remembered_rows, sketch=self._sketch)

    def add_all(self, texts: Iterable[str]) -> None:
        self._known.add_all(texts)

    def look(self, texts: Sequence[str]) -> _Look:
        sketches = self._sketch(texts)
        pairs = self._known.compare(sketches) if len(texts) > 1 else [[0.0]]
        return _Look(sketches, self._held_out.find(sketches), self._known.find(sketches), pairs, self._known)


class _Look:
    """Some rows, with what each resembles: held-out rows, known ones, and one another."""

    def __init__(
        self, sketches: Sketches, held_out: Sequence[float], known: Sequence[float], pairs: Sequence[Sequence[float]], index: NearDuplicates
    ) -> None:
        self._sketches = sketches
        self._held_out = held_out
        self._known = known
        self._pairs = pairs
        self._index = index
        self._admitted: list[int] = []

    def judge(self, place: int) -> Refusal | None:
        if similarity := self._held_out[place]:
            return Refusal(RejectionReason.LEAKAGE, f"{similarity:.2f} like a row of validation or test")
        pairs = self._pairs[place]
        if similarity := max([self._known[place], *(pairs[other] for other in self._admitted)]):
            return Refusal(RejectionReason.NEAR_DUPLICATE, f"{similarity:.2f} like a row that is already there")
        return None

    def admit(self, place: int) -> None:
        self._admitted.append(place)

    def keep_admitted(self) -> None:
        """From now on the next rows are compared with them."""
        if self._admitted:
            self._index.add(self._sketches[self._admitted])


def _digest(text: str) -> int:
    """60 bits, the most that an int holds in 32 bytes. Of a million texts two are mistaken for one another once in two million runs."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    # A mask, for a shift would give an int that keeps the room of the longer one: 81 bytes a row instead of 66.
    return int.from_bytes(digest) & _DIGEST_MASK
