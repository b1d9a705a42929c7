"""Rows whose texts have any number of labels, from the files that people bring: a column of lists (of names, or of ids that the dataset's
own features name), or of strings that hold the labels one after another or as a JSON list.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from engine.errors import UserError
from engine.labels.label_sets import LabelSetError, label_set
from engine.records import Example, RejectionReason
from engine.task.row_files import Columns, data_files, read_batches, tag_names

_MAX_SHOWN = 5
"""Labels of the task named in a message."""


@dataclass(frozen=True, slots=True)
class LabelSetColumns:
    """Names of the columns, and what stands between the labels where they are one string."""

    text: str = "text"
    labels: str = "labels"
    separator: str = "|"


class _RowError(ValueError):
    """A row is wrong; says what, and what was expected."""


def read_set_examples(
    path: Path, columns: LabelSetColumns = LabelSetColumns(), known: Collection[str] = (), *, allow_none: bool = True
) -> list[Example]:
    """Every row with those of the `known` labels that it has, in their order. UserError for a file without such columns, or a row without
    text or with labels that are none, by file and row.
    """
    rows: list[Example] = []
    for file in data_files(path):
        names = tag_names(file, columns.labels)
        for number, (text, value) in enumerate(_values(file, columns), start=1):
            if not text or not text.strip():
                raise UserError(f"{file}: row {number} has no text")
            try:
                labels = label_set(_listed(value, columns, names), known, allow_none=allow_none)
            except (_RowError, LabelSetError) as error:
                raise UserError(f"{file}: row {number}: {_said(error)}; {_expected(value, known, columns)}") from None
            rows.append(Example(text, "", labels=labels))
    if not rows:
        raise UserError(f"{path}: no rows")
    return rows


def read_label_names(path: Path, columns: LabelSetColumns = LabelSetColumns()) -> list[str]:
    """All labels that occur, each once. What cannot be read is left for `read_set_examples` to name."""
    found: dict[str, None] = {}
    for file in data_files(path):
        names = tag_names(file, columns.labels)
        for _, value in _values(file, columns):
            with suppress(_RowError):
                found.update(dict.fromkeys(_listed(value, columns, names)))
    return list(found)


def _values(file: Path, columns: LabelSetColumns) -> Iterator[tuple[str | None, Any]]:
    for batch in read_batches(file, Columns((columns.text,), label_lists=(columns.labels,))):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _listed(value: object, columns: LabelSetColumns, names: Sequence[str] | None) -> list[str]:
    if value is None:
        raise _RowError(f"no list in {columns.labels!r}; expected an empty one for a text without labels")
    if isinstance(value, str):
        return _split(value, columns.separator)
    return [_name(item, names) for item in cast(list[object], value)]


def _split(value: str, separator: str) -> list[str]:
    if value.lstrip().startswith("["):
        try:
            listed: Any = json.loads(value)
        except ValueError:
            pass  # a label may begin so
        else:
            return [_name(item, None) for item in listed]
    return [label.strip() for label in value.split(separator)] if value.strip() else []


def _name(item: object, names: Sequence[str] | None) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, int) and not isinstance(item, bool) and names is not None and 0 <= item < len(names):
        return names[item]
    there = f"; the dataset names ids 0 to {len(names) - 1}" if names is not None else ""
    raise _RowError(f"{item!r} is no label{there}")


def _said(error: _RowError | LabelSetError) -> str:
    return f"the unknown {error}" if isinstance(error, LabelSetError) and error.reason is RejectionReason.UNKNOWN_LABEL else str(error)


def _expected(value: object, known: Collection[str], columns: LabelSetColumns) -> str:
    shown = ", ".join([*known][:_MAX_SHOWN]) + (" …" if len(known) > _MAX_SHOWN else "")
    between = f", with {columns.separator!r} between them (task.data.label_separator)" if isinstance(value, str) else ""
    return f"the task's labels are {shown}{between}"
