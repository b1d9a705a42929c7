"""Rows whose entities are marked, from the files that people bring.

A file marks them in one of three ways, told by its columns: `tokens` with `tags` (IOB2; joined to a text by single spaces), a text with
`spans` (start, end and type; characters), or a text with tags in it (`to <place>Bern</place>`). In a CSV file, where a column holds no
lists, tokens and tags stand between spaces, and spans as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from engine.errors import UserError
from engine.labels.marking import Marked, MarkingError, check_spans, read_inline, trim
from engine.records import Example, Span
from engine.task.row_files import Columns, column_names, data_files, read_batches, tag_names

Way: TypeAlias = Literal["tokens", "spans", "inline"]


@dataclass(frozen=True, slots=True)
class SpanColumns:
    """Names of the columns that a file may have."""

    text: str = "text"
    spans: str = "spans"
    tokens: str = "tokens"
    tags: str = "tags"


class _RowError(ValueError):
    """A row is wrong; says what, and what was expected."""


def read_marked_examples(path: Path, types: Collection[str], columns: SpanColumns = SpanColumns()) -> list[Example]:
    """Every row with its spans, in order. UserError for a file without such columns, or a row that marks no entity of these types
    properly, by file and row.
    """
    rows: list[Example] = []
    for file in data_files(path):
        for number, values in enumerate(_values(file, columns), start=1):
            try:
                marked = _read(values, types)
                check_spans(*marked, types)
                text, spans = trim(marked)
            except (_RowError, MarkingError) as error:
                raise UserError(f"{file}: row {number}: {error}; {_expected(types)}") from None
            if not text:
                raise UserError(f"{file}: row {number} has no text")
            rows.append(Example(text, "", spans))
    if not rows:
        raise UserError(f"{path}: no rows")
    return rows


def _expected(types: Collection[str]) -> str:
    return f"the task's types of entities are {', '.join(map(repr, types))}"


def way_of(file: Path, columns: SpanColumns) -> Way:
    """How one of `data_files` marks its entities. UserError if it has none of the columns."""
    names = column_names(file)
    if {columns.tokens, columns.tags} <= {*names}:
        return "tokens"
    if columns.text in names:
        return "spans" if columns.spans in names else "inline"
    raise UserError(
        f"{file}: it has the columns {', '.join(names)}; expected {columns.tokens!r} with {columns.tags!r}, {columns.text!r} with "
        f"{columns.spans!r}, or {columns.text!r} with tags such as <place>Bern</place> in it"
    )


@dataclass(frozen=True, slots=True)
class _Values:
    """Of one row."""

    way: Way
    first: Any
    """Text or tokens."""
    second: Any
    """Spans or tags."""
    tag_names: Sequence[str] | None


def _values(file: Path, columns: SpanColumns) -> Iterator[_Values]:
    match way := way_of(file, columns):
        case "tokens":
            wanted, names = Columns((), lists=(columns.tokens, columns.tags)), tag_names(file, columns.tags)
        case "spans":
            wanted, names = Columns((columns.text,), lists=(columns.spans,)), None
        case "inline":
            wanted, names = Columns((columns.text,)), None
    for batch in read_batches(file, wanted):
        first, second = batch.columns if way != "inline" else (batch.column(0), batch.column(0))
        for one, other in zip(first.to_pylist(), second.to_pylist(), strict=True):
            yield _Values(way, one, other, names)


def _read(values: _Values, types: Collection[str]) -> Marked:
    match values.way:
        case "tokens":
            tokens = _words(values.first, "tokens")
            return join_tokens(tokens, [_tag(tag, values.tag_names) for tag in _words(values.second, "tags")])
        case "spans":
            return Marked(values.first or "", tuple(sorted(map(_span, _items(values.second)), key=lambda span: span.start)))
        case "inline":
            return read_inline(values.first or "", types)


def join_tokens(tokens: Sequence[str], tags: Sequence[str]) -> Marked:
    """The text of the tokens, with a span for each entity. _RowError for tags that are not IOB2, or not one for each token."""
    if len(tokens) != len(tags):
        raise _RowError(f"{len(tokens)} tokens and {len(tags)} tags; expected a tag for each token")
    spans: list[Span] = []
    start = 0
    previous = "O"
    for token, tag in zip(tokens, tags, strict=True):
        if not token.strip():
            raise _RowError("a token without text")
        prefix, dash, type = tag.partition("-")
        if tag != "O" and (prefix not in ("B", "I") or not dash or not type):
            raise _RowError(f"the tag {tag!r}; expected IOB2, that is O, B-TYPE or I-TYPE")
        if prefix == "B":
            spans.append(Span(start, start + len(token), type))
        elif prefix == "I":
            if previous == "O" or previous[2:] != type:
                raise _RowError(f"the tag {tag!r} behind {previous!r}; by IOB2 an entity begins with B-{type}")
            spans[-1] = Span(spans[-1].start, start + len(token), type)
        start += len(token) + 1
        previous = tag
    return Marked(" ".join(tokens), tuple(spans))


def _tag(tag: object, names: Sequence[str] | None) -> str:
    if isinstance(tag, str):
        return tag
    if not isinstance(tag, int) or names is None:
        raise _RowError(f"the tag {tag!r} has no name; expected names such as B-PER, or numbers that the dataset's own features name")
    if not 0 <= tag < len(names):
        raise _RowError(f"the tag {tag} has no name; the dataset names tags 0 to {len(names) - 1}")
    return names[tag]


def _words(value: object, what: str) -> list[Any]:
    items = value.split() if isinstance(value, str) and not value.startswith("[") else _items(value)
    if not items:
        raise _RowError(f"no {what}")
    if what == "tokens" and not all(isinstance(item, str) for item in items):
        raise _RowError("tokens that are no texts")
    return items


def _items(value: object) -> list[Any]:
    """A list, also one that stands as JSON in a text; a null is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "[]")
        except ValueError:
            value = 0
    if value is None:
        return []
    if not isinstance(value, list):
        raise _RowError("a list was expected, or one as JSON")
    return cast(list[Any], value)


def _span(value: object) -> Span:
    fields = cast(dict[str, object], value) if isinstance(value, dict) else {}
    start, end, type = fields.get("start"), fields.get("end"), fields.get("type", fields.get("label"))
    if not isinstance(start, int) or not isinstance(end, int) or not isinstance(type, str):
        raise _RowError(f'the span {value!r}; expected {{"start": 3, "end": 7, "type": "…"}}, in characters')
    return Span(start, end, type)
