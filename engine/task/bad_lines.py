"""Where a text file is wrong, for people who have to mend it. Slow, and only asked when a file could not be read: readers in blocks do not
know the number of a line.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import pyarrow as pa


class _BadLineError(Exception):
    """The first line that is wrong, in words."""


def find_bad_line(file: Path, columns: Sequence[str]) -> str | None:
    """What is wrong in which line of a .csv or .jsonl file, e.g. `line 3 is not UTF-8 …`; None if that cannot be said."""
    is_csv = ".csv" in file.suffixes
    if not is_csv and ".jsonl" not in file.suffixes:
        return None
    try:
        with pa.input_stream(str(file), compression="detect") as stream:
            lines = _decoded(io.BufferedReader(cast("io.RawIOBase", stream)))
            if is_csv:
                _check_csv(lines, csv_delimiter(file))
            else:
                _check_json(lines, columns)
    except _BadLineError as found:
        return str(found)
    except (pa.ArrowException, OSError, RecursionError):
        pass
    return None


def csv_delimiter(file: Path) -> str:
    """What stands between its columns: a comma, unless the first line has none and semicolons or tabs instead, as spreadsheets write
    them in countries where the comma stands in numbers.
    """
    with pa.input_stream(str(file), compression="detect") as stream:
        header = io.BufferedReader(cast("io.RawIOBase", stream)).readline(1 << 16)
    return "," if b"," in header else next((mark for mark in (";", "\t") if mark.encode() in header), ",")


def _decoded(lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise _BadLineError("it is UTF-16; save it as UTF-8")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _BadLineError(f"line {number} is not UTF-8 (byte 0x{line[error.start]:02x}); save the file as UTF-8") from None


def _check_json(lines: Iterable[str], columns: Sequence[str]) -> None:
    kinds: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.rstrip(), object_pairs_hook=_unique)
        except json.JSONDecodeError as error:
            raise _BadLineError(f"line {number} is not JSON: {error.msg} (character {error.colno})") from None
        except _BadLineError as error:
            raise _BadLineError(f"line {number} has {error}") from None
        if not isinstance(row, dict):
            raise _BadLineError(f"line {number} is {_kind(row)}; expected an object in each line")
        for name in columns:
            value = cast("dict[str, object]", row).get(name)
            if value is None:
                continue
            if kinds.setdefault(name, _kind(value)) != _kind(value):
                raise _BadLineError(f"line {number}: {name!r} is {_kind(value)}, in earlier lines {kinds[name]}")
            if isinstance(value, str) and not _is_unicode(value):
                raise _BadLineError(f"line {number}: {name!r} holds half of a surrogate pair, which is no character")


def _check_csv(lines: Iterable[str], delimiter: str) -> None:
    reader = csv.reader(lines, delimiter=delimiter)
    header = next(reader, [])
    begin = reader.line_num + 1
    try:
        for row in reader:
            if row and len(row) != len(header):
                hint = "; is a quotation mark never closed?" if reader.line_num > begin else ""
                raise _BadLineError(
                    f"line {begin} has {len(row)} {'column' if len(row) == 1 else 'columns'}, the header {len(header)}{hint}"
                )
            begin = reader.line_num + 1
    except csv.Error:
        raise _BadLineError(f"line {begin} begins a value that is very long; is a quotation mark never closed?") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = next(name for number, (name, _) in enumerate(pairs) if name in dict(pairs[:number]))
        raise _BadLineError(f"{twice!r} twice")
    return row


def _kind(value: object) -> str:
    match value:
        case bool():
            return "true or false"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return "null"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
