"""Text as programs take it that know Unicode better than JSON does."""

from __future__ import annotations


def readable(text: str) -> str:
    """The text with half surrogate pairs, which JSON can spell and no tokenizer, file or server takes, as question marks."""
    return text.encode(errors="replace").decode()
