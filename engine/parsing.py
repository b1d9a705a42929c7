"""From a reply to candidate rows. Trusts nothing: any text gives a list, every object in it becomes one candidate, and a broken piece
between two good rows costs only itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import cast

import msgspec

from engine.records import Candidate

_MAX_RAW_CHARS = 10_000
"""Longest raw piece kept with a broken row; the whole reply stands in the calls table."""

# Behind a broken piece, parsing goes on at the next of these. A brace within a text is rarely followed by a quotation mark.
_BEGIN = re.compile(r'\{\s*"')

_decoder = json.JSONDecoder()


class _Row(msgspec.Struct):
    text: str
    label: str


_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_ROW = msgspec.json.Decoder(_Row)


def parse_rows(reply: str) -> list[Candidate]:
    """Candidates in the order written. A reply without any JSON object is one broken candidate; an empty one is none."""
    if (rows := _well_formed(reply)) is not None:
        return rows
    if not reply.strip():
        return []
    return list(_candidates(reply)) or [_broken(reply, "no JSON object in the reply")]


def _well_formed(reply: str) -> list[Candidate] | None:
    """The short way for what constrained decoding writes, a list of rows and nothing else; None for anything else."""
    try:
        raws = _RAWS.decode(reply)
        rows = [_ROW.decode(raw) for raw in raws]
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return None
    return [
        Candidate(bytes(raw).decode()[:_MAX_RAW_CHARS], text=row.text.strip(), label=row.label) for raw, row in zip(raws, rows, strict=True)
    ]


def _candidates(reply: str) -> Iterator[Candidate]:
    begin = _BEGIN.search(reply)
    while begin is not None:
        start = begin.start()
        try:
            value, end = _decoder.raw_decode(reply, start)
        except (json.JSONDecodeError, RecursionError) as error:
            begin = _BEGIN.search(reply, start + 1)
            end = begin.start() if begin else len(reply)
            yield _broken(reply[start:end].rstrip(), f"not JSON: {getattr(error, 'msg', 'nested too deeply')}" if begin else "cut off")
        else:
            begin = _BEGIN.search(reply, end)
            yield from (_candidate(row, raw) for row, raw in _unwrap(value, reply[start:end]))


def _unwrap(value: dict[str, object], raw: str) -> Iterator[tuple[object, str]]:
    """The row itself, or the rows of an object that is only a wrapper (`{"rows": [...]}`)."""
    inner = next(iter(value.values())) if len(value) == 1 else None
    if isinstance(inner, list):
        for row in cast(list[object], inner):
            yield row, json.dumps(row)
    else:
        yield value, raw


def _candidate(value: object, raw: str) -> Candidate:
    if not isinstance(value, dict):
        return _broken(raw, "not an object")
    row = cast(dict[str, object], value)
    text, label = row.get("text"), row.get("label")
    if not isinstance(text, str):
        return _broken(raw, 'no string "text"')
    if not isinstance(label, str):
        return _broken(raw, 'no string "label"')
    return Candidate(raw[:_MAX_RAW_CHARS], text=text.strip(), label=label)


def _broken(raw: str, problem: str) -> Candidate:
    return Candidate(raw[:_MAX_RAW_CHARS], problem=problem)
