"""Whether a row the teacher wrote may enter the samples. Each gate is a pure function of the row and what it may know; the first that
refuses names the reason. Gatekeeper keeps what the duplicate and leakage gates compare with.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from engine.records import Candidate, RejectionReason

_NOT_WORD = re.compile(r"[\W_]+")


class Refusal(NamedTuple):
    reason: RejectionReason
    detail: str


def comparable(text: str) -> str:
    """The text without case, punctuation and spacing: two rows with the same comparable text are one row written twice.

    A text of punctuation alone is compared as it stands.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _NOT_WORD.sub(" ", folded).strip() or folded.strip()


def check_shape(row: Candidate, labels: frozenset[str], max_text_chars: int) -> Refusal | None:
    """The gates that need nothing but the row and the task."""
    if row.problem is not None:
        return Refusal(RejectionReason.SCHEMA, row.problem)
    if row.label not in labels:
        return Refusal(RejectionReason.UNKNOWN_LABEL, f"label {row.label[:100]!r}")
    if not row.text:
        return Refusal(RejectionReason.EMPTY, "no text")
    if len(row.text) > max_text_chars:
        return Refusal(RejectionReason.TOO_LONG, f"{len(row.text)} characters, at most {max_text_chars}")
    return None


class Gatekeeper:
    """Judges rows one by one; an admitted row is remembered, and its next copy refused."""

    def __init__(self, labels: Iterable[str], max_text_chars: int, *, known: Iterable[str], held_out: Iterable[str]) -> None:
        """`known`: texts of the seed and of rows admitted earlier; `held_out`: texts of validation and test."""
        self._labels = frozenset(labels)
        self._max_text_chars = max_text_chars
        self._known = {comparable(text) for text in known}
        self._held_out = {comparable(text) for text in held_out}

    def judge(self, row: Candidate) -> Refusal | None:
        """None admits the row."""
        if (refusal := check_shape(row, self._labels, self._max_text_chars)) is not None:
            return refusal
        text = comparable(row.text)
        if text in self._held_out:
            return Refusal(RejectionReason.LEAKAGE, "a row of validation or test")
        if text in self._known:
            return Refusal(RejectionReason.DUPLICATE, "the same text is already there")
        self._known.add(text)
        return None
