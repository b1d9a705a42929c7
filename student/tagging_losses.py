"""What tags cannot say of entities, in words: how many, why, and the first ones."""

from __future__ import annotations

from collections.abc import Sequence

from engine.views.display import inert
from student.bio import Tagging

_SHOWN = 3
_MAX_CHARS = 40


def tagging_losses(texts: Sequence[str], taggings: Sequence[Tagging], max_length: int) -> list[str]:
    """A sentence for each reason that there is; `max_length` in tokens."""
    if not any(tagging.torn or tagging.cut for tagging in taggings):
        return []
    torn = [(text, span) for text, tagging in zip(texts, taggings, strict=True) for span in tagging.torn]
    num_cut = sum(len(tagging.cut) for tagging in taggings)
    found: list[str] = []
    if torn:
        shown = ", ".join(_quoted(f"{text[span.start : span.end]} ({span.type})") for text, span in torn[:_SHOWN])
        found.append(
            f"entities that begin or end within a token, so that the student cannot mark them exactly: {len(torn)}, such as {shown}"
        )
    if num_cut:
        found.append(f"entities beyond the {max_length} tokens where texts are cut, which count as missed: {num_cut}")
    return found


def _quoted(text: str) -> str:
    return inert(text, _MAX_CHARS).plain
