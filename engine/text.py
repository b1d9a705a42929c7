"""What a label is of, a text or a pair of them, as people read it and as programs take it that know Unicode better than JSON does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Content: TypeAlias = str | tuple[str, str]
"""A text, or both texts of a pair."""
BETWEEN = " │ "
"""The texts of a pair, where they stand in one line. A picture to Unicode, so that comparing texts does not lose it like punctuation."""


def parts(content: Content) -> tuple[str, ...]:
    """The text, or both."""
    return (content,) if isinstance(content, str) else content


def joined(texts: Sequence[str]) -> Content:
    """What `parts` has taken apart."""
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


def whole(content: Content) -> str:
    """In one line, for people."""
    return BETWEEN.join(parts(content))


def readable(text: str) -> str:
    """The text with half surrogate pairs, which JSON can spell and no tokenizer, file or server takes, as question marks."""
    return text.encode(errors="replace").decode()
