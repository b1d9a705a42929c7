"""How entities are written in a text, and found again: between tags (`to <place>Bern</place>`), or in a list beside the text.

Invariants: spans that are written and read again are the same ones, whatever the text and the types hold; spans that are read are in the
order of the text, do not overlap, and have no white space at their ends. What cannot be read so is a MarkingError, which says why.

Between tags nothing but `<`, and `&` before what looks like an escape, is escaped, as in HTML: most texts stay as they are, and a teacher
who has never seen an escape writes one `<` too many at worst. A `<` that begins no tag stands for itself.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, NotRequired, TypedDict

from engine.records import Span

_ESCAPED = re.compile(r"&(?:lt|gt|amp|#47);")
_TAG = re.compile(r"<(/?)([^<>]+)>")
_MAX_ENTITIES = 200
"""Of one text: a teacher that is caught in a loop names one after the other, and each is looked for in all of the text."""
_MAX_SHOWN = 60


class MarkingError(ValueError):
    """The marks cannot be read: entities overlap, are empty, of an unknown type, or stand nowhere in the text."""


class Marked(NamedTuple):
    """A text with its entities."""

    text: str
    spans: tuple[Span, ...]


class Entity(TypedDict):
    """As it is listed beside the text."""

    text: str
    type: str
    nth: NotRequired[int]
    """Which of the places where this text stands, from 1; only where it is not the first behind the entity before."""


class Mention(NamedTuple):
    """An entity as somebody named it; where in the text it stands is to be found."""

    text: str
    type: str
    nth: int | None = None


def write_inline(text: str, spans: Iterable[Span]) -> str:
    """The text with a tag before and behind each of its spans."""
    parts: list[str] = []
    end = 0
    for span in sorted(spans, key=_place):
        name = _escape_name(span.type)
        parts += [_escape(text[end : span.start]), f"<{name}>{_escape(text[span.start : span.end])}</{name}>"]
        end = span.end
    return "".join([*parts, _escape(text[end:])])


def read_inline(marked: str, types: Collection[str]) -> Marked:
    """The text without its tags, and without white space around it. MarkingError as above, or for a tag that has no other half."""
    parts: list[str] = []
    spans: list[Span] = []
    length = end = 0
    opened: tuple[str, int] | None = None
    for closes, type, tag in _tags(marked, types):
        before = _unescape(marked[end : tag.start()])
        parts.append(before)
        length, end = length + len(before), tag.end()
        if not closes:
            if opened is not None:
                raise MarkingError(f"entities overlap: {_shown(opened[0])} is not closed before {_shown(type)}")
            opened = type, length
        elif opened is None or opened[0] != type:
            raise MarkingError(f"the tag {_shown(tag[0])} closes nothing")
        else:
            spans.append(Span(opened[1], length, type))
            opened = None
    if opened is not None:
        raise MarkingError(f"the tag of {_shown(opened[0])} is not closed")
    return trim(Marked("".join([*parts, _unescape(marked[end:])]), tuple(spans)))


def list_entities(text: str, spans: Iterable[Span]) -> list[Entity]:
    """The entities in the order of the text, so that `find_entities` finds them where they are."""
    entities: list[Entity] = []
    found: list[Span] = []
    for span in sorted(spans, key=_place):
        entity = Entity(text=text[span.start : span.end], type=span.type)
        if _next_place(text, entity["text"], found) != span.start:
            entity["nth"] = [*_places(text, entity["text"])].index(span.start) + 1
        entities.append(entity)
        found.append(span)
    return entities


def find_entities(text: str, mentions: Sequence[Mention], types: Collection[str]) -> tuple[Span, ...]:
    """Where in the text its entities stand. An entity is looked for behind the one named before it, as whole words if it can be, and only
    then anywhere, so that those named several times are taken in their order. MarkingError as above.
    """
    if len(mentions) > _MAX_ENTITIES:
        raise MarkingError(f"{len(mentions)} entities in one text, at most {_MAX_ENTITIES}")
    found: list[Span] = []
    for mention in mentions:
        wanted = mention.text.strip()
        if mention.type not in types:
            raise MarkingError(f"unknown type {_shown(mention.type)}")
        if not wanted:
            raise MarkingError("an entity without text")
        start = _next_place(text, wanted, found) if mention.nth is None else _nth_place(text, wanted, mention.nth)
        if start is None:
            how = "that often" if mention.nth is not None else "outside the entities before it"
            raise MarkingError(f"{_shown(wanted)} does not stand in the text{' ' + how if wanted in text else ''}")
        found.append(Span(start, start + len(wanted), mention.type))
    ordered = tuple(sorted(found, key=_place))
    check_spans(text, ordered, types)
    return ordered


def check_spans(text: str, spans: Sequence[Span], types: Collection[str]) -> None:
    """MarkingError unless these are spans of the text, in its order, none empty, none within another, and of these types."""
    end = 0
    for span in spans:
        if span.type not in types:
            raise MarkingError(f"unknown type {_shown(span.type)}")
        if not 0 <= span.start < span.end <= len(text):
            raise MarkingError(f"{_shown(span.type)} from {span.start} to {span.end} is no part of a text of {len(text)} characters")
        if not text[span.start : span.end].strip():
            raise MarkingError(f"an entity without text: {_shown(span.type)} from {span.start} to {span.end}")
        if span.start < end:
            raise MarkingError(f"entities overlap: {_shown(text[span.start : span.end])} begins within another")
        end = span.end


def trim(marked: Marked) -> Marked:
    """Without white space around the text and around each entity. MarkingError for an entity of nothing else."""
    text, spans = marked
    spans_of_text: list[Span] = []
    shift = len(text) - len(text.lstrip())
    for span in spans:
        inner = text[span.start : span.end]
        if not inner.strip():
            raise MarkingError(f"an entity without text: {_shown(span.type)}")
        start = span.start + len(inner) - len(inner.lstrip()) - shift
        spans_of_text.append(Span(start, start + len(inner.strip()), span.type))
    return Marked(text.strip(), tuple(spans_of_text))


def _tags(marked: str, types: Collection[str]) -> Iterator[tuple[bool, str, re.Match[str]]]:
    """(whether it closes, type, where): tags of our types, and pairs of tags of others, which are unknown types."""
    found = [(bool(tag[1]), _name(tag[2], types), tag) for tag in _TAG.finditer(marked)]
    closed = {name for closes, name, _ in found if closes}
    opened = {name for closes, name, _ in found if not closes}
    for closes, name, tag in found:
        if name in types:
            yield closes, name, tag
        elif name in closed & opened:
            raise MarkingError(f"unknown type {_shown(name)}")


def _name(written: str, types: Collection[str]) -> str:
    name = _unescape(written)
    return name if name in types else name.strip()


def _next_place(text: str, wanted: str, found: Sequence[Span]) -> int | None:
    """The first free place of the best kind: whole words before parts of words, and behind the last entity before elsewhere."""
    last_end = found[-1].end if found else 0
    best: dict[tuple[bool, bool], int] = {}
    for start in _places(text, wanted):
        end = start + len(wanted)
        kind = not _is_whole(text, start, end), start < last_end
        if kind not in best and not any(span.start < end and start < span.end for span in found):
            best[kind] = start
            if kind == (False, False):
                break
    return best[min(best)] if best else None


def _nth_place(text: str, wanted: str, nth: int) -> int | None:
    return next((place for number, place in enumerate(_places(text, wanted), start=1) if number == nth), None)


def _places(text: str, wanted: str) -> Iterator[int]:
    place = text.find(wanted)
    while place >= 0:
        yield place
        place = text.find(wanted, place + 1)


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether no word goes on beyond either end."""
    begins = start == 0 or not (text[start - 1].isalnum() and text[start].isalnum())
    return begins and (end == len(text) or not (text[end - 1].isalnum() and text[end].isalnum()))


def _escape(text: str) -> str:
    return _ESCAPED.sub(lambda match: "&amp;" + match[0][1:], text).replace("<", "&lt;")


def _unescape(escaped: str) -> str:
    return _ESCAPED.sub(lambda match: html.unescape(match[0]), escaped)


def _escape_name(name: str) -> str:
    escaped = _escape(name).replace(">", "&gt;")
    return "&#47;" + escaped[1:] if escaped.startswith("/") else escaped


def _place(span: Span) -> tuple[int, int]:
    return span.start, span.end


def _shown(value: str) -> str:
    return repr(value if len(value) <= _MAX_SHOWN else value[: _MAX_SHOWN - 1] + "…")
