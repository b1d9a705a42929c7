"""From a reply to candidate rows, or to what else was asked for. Trusts nothing: any text gives a list, every object in it becomes one
candidate, and a broken piece between two good rows costs only itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import msgspec

from engine.labels.label_sets import LabelSetError, label_set
from engine.labels.marking import MarkingError, Mention, find_entities, read_inline
from engine.records import Annotation, Candidate, Marking, RejectionReason, Span

_MAX_RAW_CHARS = 10_000
"""Longest raw piece kept with a broken row; the whole reply stands in the calls table."""
_MAX_BROKEN = 200
"""Pieces of a reply that may be broken before the rest is one. Each is read to where it breaks: a teacher that is caught in a loop and
nests objects without end would hold up everything else for seconds."""
_MAX_STRINGS_CHARS = 4_000
"""Of a reply that is searched for strings; for the same reason."""

# Behind a broken piece, parsing goes on at the next of these. A brace within a text is rarely followed by a quotation mark.
_BEGIN = re.compile(r'\{\s*"')
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)

_decoder = json.JSONDecoder()


class _Row(msgspec.Struct):
    text: str
    label: str


_NOT_THAT = (msgspec.MsgspecError, UnicodeEncodeError, RecursionError)
"""What msgspec raises at something else, at half a surrogate pair, and at what is nested too deeply."""
_LISTS = ("entities",)
"""Fields whose list is part of a row, and no list of rows."""
_LISTS_OF_SETS = ("entities", "labels")
"""The same where a text has several labels. Where it has one, a teacher may call the list of rows so."""
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_ROW = msgspec.json.Decoder(_Row)


Marks: TypeAlias = tuple[Span, ...] | MarkingError | None
"""The entities of a text, or why they cannot be read; None where nothing, or more than one thing, was said of it."""


LabelSet: TypeAlias = tuple[str, ...] | LabelSetError | None
"""The labels of a text, or why they are none; None where nothing, or more than one thing, was said of it."""


class _Piece(NamedTuple):
    """What stands in one place of a reply."""

    raw: str
    value: object = None
    problem: str | None = None


def parse_rows(reply: str) -> list[Candidate]:
    """Candidates in the order written. A reply without any JSON object is one broken candidate; an empty one is none."""
    if (rows := _well_formed(reply)) is not None:
        return rows
    return [_row(piece) for piece in _pieces(reply)]


def parse_texts(reply: str, kinds: tuple[str, ...] = ()) -> list[Candidate]:
    """Candidates without a label. Where a text is said to be of one of `kinds` (`"kind"`), that is its weakness."""
    return [_text(piece, kinds) for piece in _pieces(reply, strings=True)]


def parse_pair_rows(reply: str) -> list[Candidate]:
    """Candidates that are pairs of texts, with a label each."""
    return [_with_second(_row(piece), piece) for piece in _pieces(reply)]


def parse_pairs(reply: str, kinds: tuple[str, ...] = ()) -> list[Candidate]:
    """The same without labels; `kinds` as above."""
    return [_with_second(_text(piece, kinds), piece) for piece in _pieces(reply)]


def parse_marked_rows(reply: str, types: Collection[str], marking: Marking) -> list[Candidate]:
    """Candidates with spans instead of labels. A row that lists its entities is read so, however they were to be marked."""
    return [_marked_row(piece, types, marking) for piece in _pieces(reply, strings=marking == "inline")]


def parse_set_rows(reply: str, labels: Collection[str], *, allow_none: bool = True) -> list[Candidate]:
    """Candidates with any number of these labels each."""
    return [_set_row(piece, labels, allow_none) for piece in _pieces(reply, lists=_LISTS_OF_SETS)]


def parse_labels(reply: str, num_texts: int) -> list[str | None]:
    """The label of each text, by its number (from 1) or, where every text got one and none has a number, by its place.

    None for a text that got none, or different ones.
    """
    answers = _answers(reply, num_texts, "label", lambda row: isinstance(row.get("label"), str))
    found = [{row["label"] for row in rows if isinstance(row.get("label"), str)} for rows in answers]
    return [labels.pop() if len(labels) == 1 else None for labels in found]


def parse_label_sets(reply: str, num_texts: int, labels: Collection[str], *, allow_none: bool = True) -> list[LabelSet]:
    """The labels of each text, by its number or place as above. Of one text a bare list of strings is them."""
    if num_texts == 1 and (bare := _list_of_strings(reply)) is not None:
        return [_as_set(bare, labels, allow_none)]
    answers = _answers(reply, num_texts, "labels", lambda row: isinstance(row.get("labels"), list), _LISTS_OF_SETS)
    return [_as_set(rows[0].get("labels"), labels, allow_none) if _is_one(rows) else None for rows in answers]


def parse_marks(reply: str, texts: Sequence[str], types: Collection[str], marking: Marking) -> list[Marks]:
    """The entities of each text, by its number or place as above.

    Where a text was repeated with tags, and not to the letter, what stands between them is looked for in the text as it was given.
    """
    answers = _answers(reply, len(texts), "text", lambda row: isinstance(row.get("entities"), list) or isinstance(row.get("text"), str))
    return [_marks(text, rows, types, marking) for text, rows in zip(texts, answers, strict=True)]


def parse_strings(reply: str, at_most: int) -> list[str]:
    """What stands between quotation marks, each once, without white space around it; the names of an object's fields not."""
    found: dict[str, None] = {}
    reply = reply[:_MAX_STRINGS_CHARS]
    for match in _STRING.finditer(reply):
        if reply[match.end() : match.end() + 20].lstrip().startswith(":"):
            continue
        try:
            value = json.loads(match[0], strict=False)
        except json.JSONDecodeError:
            continue
        if text := value.strip():
            found[text] = None
    return list(found)[:at_most]


def _well_formed(reply: str) -> list[Candidate] | None:
    """The short way for what constrained decoding writes, a list of rows and nothing else; None for anything else."""
    try:
        raws = _RAWS.decode(reply)
        rows = [_ROW.decode(raw) for raw in raws]
    except _NOT_THAT:
        return None
    return [
        Candidate(bytes(raw).decode()[:_MAX_RAW_CHARS], text=row.text.strip(), label=row.label) for raw, row in zip(raws, rows, strict=True)
    ]


def _pieces(reply: str, *, strings: bool = False, lists: tuple[str, ...] = _LISTS) -> list[_Piece]:
    """Everything that may have been meant as a row; with `strings`, the items of a list of strings too. `lists`: fields of a row."""
    if not reply.strip():
        return []
    if strings and (values := _list_of_strings(reply)) is not None:
        return [_Piece(json.dumps(value), value) for value in values]
    return list(_objects(reply, lists)) or [_Piece(reply, problem="no JSON object in the reply")]


def _list_of_strings(reply: str) -> list[str] | None:
    try:
        return msgspec.json.decode(reply, type=list[str])
    except _NOT_THAT:
        return None


def _objects(reply: str, lists: tuple[str, ...]) -> Iterator[_Piece]:
    begin = _BEGIN.search(reply)
    num_broken = 0
    while begin is not None:
        start = begin.start()
        try:
            value, end = _decoder.raw_decode(reply, start)
            pieces = _unwrap(value, reply[start:end], lists)
        except (ValueError, RecursionError) as error:
            num_broken += 1
            begin = _BEGIN.search(reply, start + 1) if num_broken < _MAX_BROKEN else None
            end = begin.start() if begin else len(reply)
            reason = getattr(error, "msg", "nested too deeply" if isinstance(error, RecursionError) else str(error))
            yield _Piece(reply[start:end].rstrip(), problem=f"not JSON: {reason}" if begin else "cut off")
        else:
            begin = _BEGIN.search(reply, end)
            yield from pieces


def _unwrap(value: dict[str, object], raw: str, lists: tuple[str, ...]) -> list[_Piece]:
    """The row itself, or the rows of an object that is only a wrapper (`{"rows": [...]}`). A list that is part of a row is no wrapper."""
    inner = next(iter(value.values())) if len(value) == 1 and next(iter(value)) not in lists else None
    if isinstance(inner, list):
        return [_Piece(json.dumps(row), row) for row in cast(list[object], inner)]
    return [_Piece(raw, value)]


def _row(piece: _Piece) -> Candidate:
    if piece.problem is not None:
        return _broken(piece.raw, piece.problem)
    if not isinstance(piece.value, dict):
        return _broken(piece.raw, "not an object")
    row = cast(dict[str, object], piece.value)
    text, label = row.get("text"), row.get("label")
    if not isinstance(text, str):
        return _broken(piece.raw, 'no string "text"')
    if not isinstance(label, str):
        return _broken(piece.raw, 'no string "label"')
    return Candidate(piece.raw[:_MAX_RAW_CHARS], text=text.strip(), label=label)


def _text(piece: _Piece, kinds: tuple[str, ...]) -> Candidate:
    if piece.problem is not None:
        return _broken(piece.raw, piece.problem)
    row = cast(dict[str, object], piece.value) if isinstance(piece.value, dict) else {"text": piece.value}
    text, kind = row.get("text"), row.get("kind")
    if not isinstance(text, str):
        return _broken(piece.raw, 'no string "text"')
    weakness = kind if isinstance(kind, str) and kind in kinds else ""
    return Candidate(piece.raw[:_MAX_RAW_CHARS], text=text.strip(), weakness=weakness)


def _with_second(candidate: Candidate, piece: _Piece) -> Candidate:
    """A row that is one text is none where pairs are asked for."""
    if candidate.problem is not None:
        return candidate
    second = cast(dict[str, object], piece.value).get("text_pair") if isinstance(piece.value, dict) else None
    if not isinstance(second, str):
        return _broken(piece.raw, 'no string "text_pair"')
    return msgspec.structs.replace(candidate, annotation=Annotation(text_pair=second.strip()))


def _marked_row(piece: _Piece, types: Collection[str], marking: Marking) -> Candidate:
    if piece.problem is not None:
        return _broken(piece.raw, piece.problem)
    row = cast(dict[str, object], piece.value) if isinstance(piece.value, dict) else {"text": piece.value}
    text, entities = row.get("text"), row.get("entities")
    if not isinstance(text, str):
        return _broken(piece.raw, 'no string "text"')
    try:
        if marking == "inline" and not isinstance(entities, list):
            text, spans = read_inline(text, types)
        else:
            text = text.strip()
            spans = find_entities(text, _mentions(entities), types)
    except _SchemaError as error:
        return _broken(piece.raw, str(error))
    except MarkingError as error:
        return Candidate(piece.raw[:_MAX_RAW_CHARS], problem=str(error), reason=RejectionReason.SPANS)
    return Candidate(piece.raw[:_MAX_RAW_CHARS], text=text, annotation=Annotation(spans))


def _set_row(piece: _Piece, labels: Collection[str], allow_none: bool) -> Candidate:
    if piece.problem is not None:
        return _broken(piece.raw, piece.problem)
    row = cast(dict[str, object], piece.value) if isinstance(piece.value, dict) else {}
    text, found = row.get("text"), _as_set(row.get("labels"), labels, allow_none)
    if not isinstance(text, str):
        return _broken(piece.raw, 'no string "text"')
    if found is None:
        return _broken(piece.raw, 'no list "labels" of strings')
    if isinstance(found, LabelSetError):
        return Candidate(piece.raw[:_MAX_RAW_CHARS], text=text.strip(), problem=str(found), reason=found.reason)
    return Candidate(piece.raw[:_MAX_RAW_CHARS], text=text.strip(), annotation=Annotation(labels=found))


def _as_set(said: object, labels: Collection[str], allow_none: bool) -> LabelSet:
    """None for what is no list of strings."""
    if not isinstance(said, list) or not all(isinstance(label, str) for label in cast(list[object], said)):
        return None
    try:
        return label_set(cast(list[str], said), labels, allow_none=allow_none)
    except LabelSetError as error:
        return error


def _is_one(answers: Sequence[dict[str, Any]]) -> bool:
    """Whether there is an answer, and no other beside it."""
    return bool(answers) and all(row == answers[0] for row in answers)


def _marks(text: str, answers: Sequence[dict[str, Any]], types: Collection[str], marking: Marking) -> Marks:
    if not _is_one(answers):
        return None
    entities, said = answers[0].get("entities"), answers[0].get("text")
    try:
        if isinstance(said, str) and marking == "inline" and not isinstance(entities, list):
            repeated, spans = read_inline(said, types)
            if repeated == text:
                return spans
            return find_entities(text, [Mention(repeated[span.start : span.end], span.type) for span in spans], types)
        return find_entities(text, _mentions(entities), types)
    except _SchemaError:
        return None
    except MarkingError as error:
        return error


class _SchemaError(Exception):
    """A list of entities is none."""


def _mentions(entities: object) -> list[Mention]:
    if not isinstance(entities, list):
        raise _SchemaError('no list "entities"')
    mentions: list[Mention] = []
    for entity in cast(list[object], entities):
        fields = cast(dict[str, object], entity) if isinstance(entity, dict) else {}
        text, type, nth = fields.get("text"), fields.get("type"), fields.get("nth")
        if not isinstance(text, str) or not isinstance(type, str):
            raise _SchemaError('an entity without a string "text" or "type"')
        mentions.append(Mention(text, type, nth if isinstance(nth, int) and not isinstance(nth, bool) else None))
    return mentions


def _answers(
    reply: str, num_texts: int, bare: str, is_answer: Callable[[dict[str, Any]], bool], lists: tuple[str, ...] = _LISTS
) -> list[list[dict[str, Any]]]:
    """What was said of each text. `bare`: the field that a value without an object stands for."""
    numbered: dict[int, list[dict[str, Any]]] = {}
    in_order: list[dict[str, Any]] = []
    for piece in _pieces(reply, strings=True, lists=lists):
        row = cast(dict[str, Any], piece.value) if isinstance(piece.value, dict) else {bare: piece.value}
        number = row.get("number")
        if is_answer(row) and type(number) is int:  # not a bool, which is one
            numbered.setdefault(number, []).append(row)
        else:
            in_order.append(row)
    if not numbered and len(in_order) == num_texts:
        return [[row] for row in in_order]
    return [numbered.get(number, []) for number in range(1, num_texts + 1)]


def _broken(raw: str, problem: str) -> Candidate:
    return Candidate(raw[:_MAX_RAW_CHARS], problem=problem)
