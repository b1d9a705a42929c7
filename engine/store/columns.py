"""Arrow columns from plain values, and plain values from Arrow columns. Strings are stored as `engine.store.text` says.

A column at a time: a dictionary for each row would cost ten times as much.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from engine.store.text import MARK, escape, unescape

_MARK = MARK.encode()

Columns: TypeAlias = Mapping[str, "Sequence[Any] | pa.Array"]


def table(schema: pa.Schema, columns: Columns) -> pa.Table:
    """Each column by its field's name. What is an array already is taken as it is."""
    arrays = [array(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def array(values: Sequence[Any] | pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    return texts(values) if pa.types.is_string(kind) else pa.array(values, kind)


def lists(values: Iterable[Sequence[Any]], kind: pa.ListType, items: pa.Array) -> pa.Array:
    """A list for each of the values, of items that stand one after the other in `items`."""
    offsets = pa.array([0, *accumulate(map(len, values))], pa.int32())
    return pa.ListArray.from_arrays(offsets, items, type=kind)


def texts(values: Sequence[str | None]) -> pa.Array:
    try:
        stored = pa.array(values, pa.string())
    except UnicodeEncodeError:
        pass
    else:
        if not _has_mark(stored.buffers()[2]):
            return stored
    return pa.array([None if value is None else escape(value) for value in values], pa.string())


def _has_mark(content: pa.Buffer | None) -> bool:
    # Most text has no byte like the mark's first, which numpy sees in no time.
    if content is None or not (np.frombuffer(content, np.uint8) == _MARK[0]).any():
        return False
    return _MARK in content.to_pybytes()


def values(rows: pa.Table, name: str) -> list[Any]:
    """Moments as microseconds since the epoch, which a float of seconds survives (a datetime costs a time zone each)."""
    column = rows.column(name)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    plain = column.to_pylist()
    if pa.types.is_string(column.type):
        return [value if value is None else unescape(value) for value in plain]
    return plain
