"""From the configuration's files to a TaskSpec: reads the real rows and checks them before anything starts.

Every mistake is a UserError that names file, line and what was expected.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from engine.config import TaskConfig
from engine.errors import UserError
from engine.records import Example, Label, TaskSpec

_MAX_SHOWN = 5
"""Unknown labels or empty classes named in one message."""


def load_task(config: TaskConfig, seed: int) -> TaskSpec:
    """Read seed, validation and test rows; the same configuration and seed give the same TaskSpec.

    Raises UserError for a missing or unreadable file, a row without text or label, a label outside the taxonomy, or a class without
    seed rows.
    """
    names = [label.name for label in config.labels]
    seed_rows, validation, test = (_labelled_rows(path, names) for path in (config.data.seed, config.data.validation, config.data.test))
    _require_every_class(seed_rows, names, config.data.seed)
    if config.data.seed_rows_per_class is not None:
        seed_rows = _draw(seed_rows, names, config.data.seed_rows_per_class, seed)
    return TaskSpec(
        kind=config.kind,
        domain=config.domain,
        labels=tuple(Label(label.name, label.description) for label in config.labels),
        seed=tuple(seed_rows),
        validation=tuple(validation),
        test=tuple(test),
    )


def read_examples(path: Path) -> list[Example]:
    """Rows of a .jsonl, .csv or .parquet file with the string columns `text` and `label`."""
    table = read_columns(path, ("text", "label"))
    rows = [Example(text, label) for text, label in zip(*(table[name].to_pylist() for name in ("text", "label")), strict=True)]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.text, str) or not row.text.strip():  # pyright: ignore[reportUnnecessaryIsInstance] -- a null comes as None
            raise UserError(f"{path}: row {number} has no text")
        if not isinstance(row.label, str) or not row.label:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError(f"{path}: row {number} has no label")
    if not rows:
        raise UserError(f"{path}: no rows")
    return rows


def read_column(path: Path, name: str) -> list[str]:
    """One column of strings; a null is an empty text."""
    return [value or "" for value in read_columns(path, (name,)).column(name).to_pylist()]


def read_columns(path: Path, columns: Iterable[str]) -> pa.Table:
    """These columns of a .jsonl, .csv or .parquet file, as strings; UserError if that cannot be had."""
    try:
        table = _read_table(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except pa.ArrowException as error:
        raise UserError(f"{path}: not a readable {path.suffix} file: {str(error).splitlines()[0]}") from None
    wanted = list(columns)
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise UserError(f"{path}: no column {missing[0]!r}; it has {', '.join(table.column_names)}, expected {', '.join(wanted)}")
    table = table.select(wanted)
    return table.cast(pa.schema([(name, pa.string()) for name in wanted]))


def _read_table(path: Path) -> pa.Table:
    if not path.is_file():
        raise FileNotFoundError(path)
    match path.suffix:
        case ".parquet":
            return pq.read_table(path)
        case ".csv":
            # Labels and texts are strings, whatever they look like: "1" or "true" must not become a number.
            strings = pa_csv.ConvertOptions(column_types={"text": pa.string(), "label": pa.string()}, strings_can_be_null=False)
            return pa_csv.read_csv(path, convert_options=strings, parse_options=pa_csv.ParseOptions(newlines_in_values=True))
        case ".jsonl":
            return pa_json.read_json(path)
        case suffix:
            raise UserError(f"{path}: unknown kind of file {suffix!r}; expected .jsonl, .csv or .parquet")


def _labelled_rows(path: Path, names: list[str]) -> list[Example]:
    rows = read_examples(path)
    known = set(names)
    for number, row in enumerate(rows, start=1):
        if row.label not in known:
            shown = ", ".join(names[:_MAX_SHOWN]) + (" …" if len(names) > _MAX_SHOWN else "")
            raise UserError(f"{path}: row {number} has the unknown label {row.label!r}; the task's labels are {shown}")
    return rows


def _require_every_class(rows: list[Example], names: list[str], path: Path) -> None:
    counts = Counter(row.label for row in rows)
    empty = [name for name in names if not counts[name]]
    if empty:
        shown = ", ".join(empty[:_MAX_SHOWN])
        raise UserError(f"{path}: no seed row for {len(empty)} of {len(names)} labels ({shown}); each label needs at least one")


def _draw(rows: list[Example], names: list[str], per_class: int, seed: int) -> list[Example]:
    by_label: defaultdict[str, list[Example]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    generator = random.Random(f"seed rows {seed}")
    return [row for name in names for row in generator.sample(by_label[name], min(per_class, len(by_label[name])))]
