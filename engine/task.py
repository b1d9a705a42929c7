"""From the configuration's files to a TaskSpec: reads the real rows and checks them before anything starts.

Rows come from a .jsonl, .csv or .parquet file, or from a folder with a Hugging Face dataset: one that `save_to_disk` wrote, or one with
data files named by split, as on the hub. `folder:split` chooses a split. Every mistake is a UserError that names file, row and what was
expected.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from engine.config import DataConfig, TaskConfig
from engine.errors import UserError
from engine.records import Example, Label, Pool, TaskSpec

_MAX_SHOWN = 5
"""Unknown labels or empty classes named in one message."""

_BLOCK_BYTES = 1 << 24
"""Of CSV and JSON lines read at once; a longer row cannot be read."""

_SPLIT_FILE = re.compile(r"(?P<split>.+?)(-\d{5}-of-\d{5}(-[0-9a-f]+)?)?\.(parquet|csv|jsonl)")
"""Data files on the hub: `train.csv`, `train-00000-of-00002.parquet`, or the latter with a hash behind it."""


def load_task(config: TaskConfig, seed: int) -> TaskSpec:
    """Read seed, validation and test rows; the same configuration and seed give the same TaskSpec. The pool is only looked at.

    Raises UserError for a missing or unreadable file, a row without text or label, a label outside the taxonomy, or a class without
    seed rows.
    """
    data = config.data
    names = [label.name for label in config.labels]
    seed_rows, validation, test = (_labelled_rows(path, names, data) for path in (data.seed, data.validation, data.test))
    _require_every_class(seed_rows, names, data.seed)
    if data.seed_rows_per_class is not None:
        seed_rows = _draw(seed_rows, names, data.seed_rows_per_class, seed)
    return TaskSpec(
        kind=config.kind,
        domain=config.domain,
        labels=tuple(Label(label.name, label.description) for label in config.labels),
        seed=tuple(seed_rows),
        validation=tuple(validation),
        test=tuple(test),
        pool=None if data.pool is None else find_pool(data.pool, data.text_column),
    )


def read_examples(path: Path, text_column: str = "text", label_column: str = "label") -> list[Example]:
    """Labelled rows; label ids become the names that the dataset gives them."""
    table = read_columns(path, (text_column, label_column))
    rows = [Example(text, label) for text, label in zip(*(table[name].to_pylist() for name in (text_column, label_column)), strict=True)]
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
    """These columns of a file or dataset folder, as strings; UserError if that cannot be had."""
    wanted = tuple(columns)
    batches = [batch for file in _data_files(path) for batch in _read_batches(file, wanted)]
    return pa.Table.from_batches(batches, _strings(wanted))


def find_pool(path: Path, text_column: str) -> Pool:
    """Look whether the pool is there, has texts, and how many. It is not loaded: memory holds one batch of it at a time."""
    files = _data_files(path)
    pool = Pool(str(path), text_column, sum(_count_rows(file, text_column) for file in files))
    if not any(text.strip() for text in next(pool_texts(pool), [])):
        raise UserError(f"{path}: no texts in the column {text_column!r}; expected a real text a row")
    return pool


def pool_texts(pool: Pool) -> Iterator[list[str]]:
    """The pool's texts in their order, some thousands at a time; a null is an empty text."""
    for file in _data_files(Path(pool.path)):
        for batch in _read_batches(file, (pool.text_column,)):
            yield [text or "" for text in batch.column(0).to_pylist()]


def _data_files(path: Path) -> list[Path]:
    """The files that hold the rows; several where a dataset is sharded."""
    if path.is_file():
        return [path]
    if path.is_dir():
        return _folder_files(path, None)
    folder, colon, split = path.name.rpartition(":")
    if colon and path.with_name(folder).is_dir():
        return _folder_files(path.with_name(folder), split)
    raise UserError(f"{path}: no such file")


def _folder_files(folder: Path, split: str | None) -> list[Path]:
    if (folder / "dataset_dict.json").exists():
        names: list[str] = _read_json(folder / "dataset_dict.json").get("splits", [])
        return _folder_files(folder / _choose_split(folder, names, split), None)
    if (folder / "state.json").exists():
        state = _read_json(folder / "state.json")
        if split is not None and split != state.get("_split"):
            raise UserError(f"{folder}: a dataset without the split {split!r}; give the folder alone")
        return [folder / file["filename"] for file in state.get("_data_files", [])]
    by_split: defaultdict[str, list[Path]] = defaultdict(list)
    for file in sorted([*folder.glob("*"), *folder.glob("data/*")]):
        if match := _SPLIT_FILE.fullmatch(file.name):
            by_split[match["split"]].append(file)
    if not by_split:
        raise UserError(
            f"{folder}: no dataset in this folder; expected one that `save_to_disk` wrote, "
            "or files such as data/train-00000-of-00001.parquet"
        )
    return by_split[_choose_split(folder, list(by_split), split)]


def _choose_split(folder: Path, names: list[str], split: str | None) -> str:
    if split is None and len(names) == 1:
        return names[0]
    if split in names:
        return split
    problem = f"no split {split!r}" if split else "several splits, or none"
    raise UserError(f"{folder}: {problem}; it has {', '.join(names) or 'none'}; choose one with {folder}:{names[0] if names else 'train'}")


def _read_batches(file: Path, wanted: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """These columns as strings, batch by batch."""
    with _explained(file):
        schema, batches = _open(file, wanted)
        missing = [name for name in wanted if name not in schema.names]
        if missing:
            raise UserError(f"{file}: no column {missing[0]!r}; it has {', '.join(schema.names)}, expected {', '.join(wanted)}")
        names = {name: _class_names(file, schema, name) for name in wanted}
        for batch in batches:
            columns = [_as_strings(file, batch.column(name), names[name]) for name in wanted]
            yield pa.RecordBatch.from_arrays(columns, schema=_strings(wanted))


def _open(file: Path, wanted: tuple[str, ...]) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    match file.suffix:
        case ".parquet":
            parquet = pq.ParquetFile(file, memory_map=True)
            present = [name for name in wanted if name in parquet.schema_arrow.names]
            return parquet.schema_arrow, parquet.iter_batches(batch_size=10_000, columns=present)
        case ".csv":
            # Labels and texts are strings, whatever they look like: "1" or "true" must not become a number.
            strings = pa_csv.ConvertOptions(column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False)
            blocks = pa_csv.ReadOptions(block_size=_BLOCK_BYTES)
            reader = pa_csv.open_csv(file, blocks, pa_csv.ParseOptions(newlines_in_values=True), strings)
            return reader.schema, reader
        case ".jsonl":
            blocks = pa_json.ReadOptions(block_size=_BLOCK_BYTES)
            found = pa_json.open_json(file, blocks).schema
            # What is wanted has the type of its first rows, and no other field need keep to one: that would fail in a later block.
            fields = [pa.field(name, _type(found, name)) for name in wanted if name in found.names]
            only = pa_json.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore")
            return found, pa_json.open_json(file, blocks, only)
        case ".arrow":
            reader = pa.ipc.open_stream(pa.memory_map(str(file)))
            return reader.schema, reader
        case suffix:
            raise UserError(f"{file}: unknown kind of file {suffix!r}; expected .jsonl, .csv or .parquet, or the folder of a dataset")


def _type(schema: pa.Schema, name: str) -> pa.DataType:
    """Of a JSON field; one that has been null so far may become a text."""
    found = schema.field(name).type
    return pa.string() if pa.types.is_null(found) else found


def _count_rows(file: Path, column: str) -> int:
    if file.suffix == ".parquet":
        with _explained(file):
            return pq.read_metadata(file).num_rows
    return sum(batch.num_rows for batch in _read_batches(file, (column,)))


def _strings(names: Iterable[str]) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in names])


def _as_strings(file: Path, column: pa.Array, names: list[str] | None) -> pa.Array:
    if names is None or not pa.types.is_integer(column.type):
        return column.cast(pa.string())
    ids: list[int | None] = column.to_pylist()
    if (nameless := next((number for number in ids if number is not None and number >= len(names)), None)) is not None:
        raise UserError(f"{file}: the label id {nameless} has no name; the dataset names ids 0 to {len(names) - 1}")
    # Hugging Face writes -1 where the label is not known.
    return pa.array([None if number is None or number < 0 else names[number] for number in ids], pa.string())


def _class_names(file: Path, schema: pa.Schema, column: str) -> list[str] | None:
    """Names of the label ids in this column, as `datasets` keeps them in the schema, and beside the files that it saves."""
    described = (schema.metadata or {}).get(b"huggingface")
    info = file.parent / "dataset_info.json"
    if described is not None:
        features = json.loads(described).get("info", {}).get("features")
    else:
        features = _read_json(info).get("features") if info.exists() else None
    feature = (features or {}).get(column)
    return feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None


def _read_json(path: Path) -> dict[str, Any]:
    with _explained(path):
        return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def _explained(file: Path) -> Generator[None]:
    """What goes wrong with a file, as a UserError."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (pa.ArrowException, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a readable {file.suffix} file: {str(error).splitlines()[0]}") from None


def _labelled_rows(path: Path, names: list[str], data: DataConfig) -> list[Example]:
    rows = read_examples(path, data.text_column, data.label_column)
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
