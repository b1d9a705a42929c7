"""Columns of strings from the files that people bring, batch by batch, so that a file may be larger than memory.

Rows come from a .jsonl, .csv or .parquet file, the first two also compressed (.gz, .zst, .bz2, .lz4), or from a folder with a Hugging Face
dataset: one that `save_to_disk` wrote, or one with data files named by split, as on the hub. `folder:split` chooses a split. Every mistake
is a UserError that names the file, the row or line where there is one, and what was expected.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import difflib
import json
import re
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from engine.errors import UserError
from engine.task.bad_lines import csv_delimiter, find_bad_line

_BLOCK_BYTES = 1 << 24
"""Of CSV and JSON lines read at once."""
_BATCH_ROWS = 10_000

_COMPRESSED = (".gz", ".zst", ".bz2", ".lz4")
_KINDS = ".jsonl, .csv or .parquet"
_SPLIT_FILE = re.compile(r"(?P<split>.+?)(-\d{5}-of-(?P<shards>\d{5})(-[0-9a-f]+)?)?\.(?P<kind>parquet|((csv|jsonl)(\.(gz|zst|bz2|lz4))?))")
"""Data files on the hub: `train.csv`, `train-00000-of-00002.parquet`, or the latter with a hash behind it."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What to read: texts are strings; labels may be whole numbers too, or ids with the names in the dataset's own features."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    """Read as they are: lists of anything, or strings that stand for some."""
    label_lists: tuple[str, ...] = ()
    """The same of labels: lists of strings or whole numbers, or strings."""

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.texts, *self.labels, *self.lists, *self.label_lists)


def data_files(path: Path) -> list[Path]:
    """The files that hold the rows; several where a dataset is sharded."""
    if path.is_file():
        return [path]
    if path.is_dir():
        return _folder_files(path, None)
    folder, colon, split = path.name.rpartition(":")
    if colon and path.with_name(folder).is_dir():
        return _folder_files(path.with_name(folder), split)
    raise UserError(f"{path}: no such file")


def read_batches(file: Path, columns: Columns) -> Iterator[pa.RecordBatch]:
    """The columns of one of `data_files`, texts and labels as strings, in the order of its rows."""
    with _explained(file, columns):
        schema, batches = _open(file, columns)
        _check_columns(file, schema, columns)
        names = {name: _class_names(file, schema, name) for name in columns.labels}
        for batch in batches:
            strings = [_as_strings(file, batch.column(name), names.get(name)) for name in (*columns.texts, *columns.labels)]
            yield pa.RecordBatch.from_arrays(
                [*strings, *(batch.column(name) for name in (*columns.lists, *columns.label_lists))], names=[*columns.names]
            )


def column_names(file: Path) -> list[str]:
    """Of one of `data_files`, in their order."""
    with _explained(file, Columns(())):
        return _open(file, Columns(()))[0].names


def tag_names(file: Path, column: str) -> list[str] | None:
    """What the numbers in the lists of this column are called; None where the dataset does not say."""
    with _explained(file, Columns(())):
        return _class_names(file, _open(file, Columns(()))[0], column)


def candidate_columns(file: Path) -> list[str]:
    """Of one of `data_files`: those that could hold texts or labels, in their order."""
    with _explained(file, Columns(())):
        schema, _ = _open(file, Columns(()))
    kinds = {field.name: field.type for field in schema}
    if any(map(pa.types.is_binary, kinds.values())) and (where := find_bad_line(file, ())):
        raise UserError(f"{file}: {where}")  # bytes that are no UTF-8 make a column one of bytes
    return [name for name, kind in kinds.items() if _is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)]


def list_columns(file: Path) -> list[str]:
    """Of one of `data_files`: those that could hold several labels a row, as lists."""
    with _explained(file, Columns(())):
        schema, _ = _open(file, Columns(()))
    return [
        field.name
        for field in schema
        if _is_list(field.type) and (_is_text(field.type.value_type) or pa.types.is_integer(field.type.value_type))
    ]


def count_rows(file: Path, columns: Columns) -> int:
    """Reads a file through where it does not say so itself."""
    if file.suffix == ".parquet":
        with _explained(file, columns):
            return pq.read_metadata(file).num_rows
    return sum(batch.num_rows for batch in read_batches(file, columns))


def _folder_files(folder: Path, split: str | None) -> list[Path]:
    if (folder / "dataset_dict.json").exists():
        names: list[str] = _read_json(folder / "dataset_dict.json").get("splits", [])
        return _folder_files(folder / _choose_split(folder, names, split), None)
    if (folder / "state.json").exists():
        state = _read_json(folder / "state.json")
        if split is not None and split != state.get("_split"):
            raise UserError(f"{folder}: a dataset without the split {split!r}; give the folder alone")
        return [folder / file["filename"] for file in state.get("_data_files", [])]
    by_split: defaultdict[str, list[re.Match[str]]] = defaultdict(list)
    files: dict[str, Path] = {}
    for file in sorted([*folder.glob("*"), *folder.glob("data/*")]):
        if match := _SPLIT_FILE.fullmatch(file.name):
            by_split[match["split"]].append(match)
            files[file.name] = file
    if not by_split:
        raise UserError(
            f"{folder}: no dataset in this folder; expected one that `save_to_disk` wrote, "
            "or files such as data/train-00000-of-00001.parquet"
        )
    chosen = _choose_split(folder, list(by_split), split)
    _check_shards(folder, chosen, by_split[chosen])
    return [files[match[0]] for match in by_split[chosen]]


def _choose_split(folder: Path, names: list[str], split: str | None) -> str:
    if split is None and len(names) == 1:
        return names[0]
    if split in names:
        return split
    problem = f"no split {split!r}" if split else "several splits, or none"
    raise UserError(f"{folder}: {problem}; it has {', '.join(names) or 'none'}; choose one with {folder}:{names[0] if names else 'train'}")


def _check_shards(folder: Path, split: str, found: Sequence[re.Match[str]]) -> None:
    """A file that was lost, or is there in two kinds, would go unnoticed: rows would be too few, or there twice."""
    if len(kinds := sorted({match["kind"] for match in found})) > 1:
        raise UserError(f"{folder}: the split {split!r} has files of several kinds ({', '.join(kinds)}); leave one kind there")
    counts = {int(match["shards"]) if match["shards"] else 1 for match in found}
    if counts != {len(found)}:
        expected = " or ".join(map(str, sorted(counts)))
        raise UserError(f"{folder}: the split {split!r} has {len(found)} files, and their names say {expected}")


def _open(file: Path, columns: Columns) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    match file.with_suffix("").suffix if file.suffix in _COMPRESSED else file.suffix:
        case ".parquet" if file.suffix == ".parquet":
            parquet = pq.ParquetFile(file, memory_map=True)
            _check_columns(file, parquet.schema_arrow, columns)
            return parquet.schema_arrow, parquet.iter_batches(batch_size=_BATCH_ROWS, columns=[*columns.names])
        case ".csv":
            # Labels and texts are strings, whatever they look like: "1" or "true" must not become a number.
            strings = pa_csv.ConvertOptions(column_types=dict.fromkeys(columns.names, pa.string()), strings_can_be_null=False)
            blocks = pa_csv.ReadOptions(block_size=_BLOCK_BYTES)
            form = pa_csv.ParseOptions(delimiter=csv_delimiter(file), newlines_in_values=True)
            reader = pa_csv.open_csv(file, blocks, form, strings)
            return reader.schema, reader
        case ".jsonl":
            blocks = pa_json.ReadOptions(block_size=_BLOCK_BYTES)
            found = pa_json.open_json(file, blocks).schema
            # What is wanted has the type of its first rows, and no other field need keep to one: that would fail in a later block.
            fields = [pa.field(name, _json_type(found, name, columns)) for name in columns.names if name in found.names]
            only = pa_json.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore")
            return pa.schema(fields) if fields and len(fields) == len(columns.names) else found, pa_json.open_json(file, blocks, only)
        case ".arrow":
            reader = pa.ipc.open_stream(pa.memory_map(str(file)))
            return reader.schema, reader
        case _:
            raise UserError(f"{file}: unknown kind of file {file.suffix!r}; expected {_KINDS}, or the folder of a dataset")


def _json_type(schema: pa.Schema, name: str, columns: Columns) -> pa.DataType:
    """Of a field; one that has been null so far may become a text, and one that looks like a date is one. A list that has been empty so
    far may become one of labels, or of spans.
    """
    found = schema.field(name).type
    if name in columns.label_lists and pa.types.is_list(found):
        is_open = pa.types.is_null(found.value_type) or pa.types.is_timestamp(found.value_type)
        return pa.list_(pa.string()) if is_open else found
    if pa.types.is_list(found) and pa.types.is_null(found.value_type):
        return pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64()), ("type", pa.string())]))
    return pa.string() if pa.types.is_null(found) or pa.types.is_timestamp(found) else found


def _check_columns(file: Path, schema: pa.Schema, columns: Columns) -> None:
    there = ", ".join(schema.names)
    for name in columns.names:
        if name not in schema.names:
            near = difflib.get_close_matches(name, [found.strip() for found in schema.names], n=1)
            hint = f" ({near[0]!r} is near)" if near else ""
            raise UserError(
                f"{file}: no column {name!r}; it has {there}{hint}; expected {', '.join(columns.names)}, which [task.data] of a task file "
                "says (text_column, label_column and others), or a flag of `reflux init`"
            )
        if schema.names.count(name) > 1:
            raise UserError(f"{file}: the column {name!r} is there {schema.names.count(name)} times; it has {there}")
        kind = schema.field(name).type
        if name in columns.label_lists:
            if not _is_text(kind) and not (_is_list(kind) and (_is_text(kind.value_type) or pa.types.is_integer(kind.value_type))):
                raise UserError(f"{file}: the column {name!r} holds {kind}, expected lists of labels, or texts with labels in them")
            continue
        if name in columns.lists:
            if not _is_text(kind) and not _is_list(kind):
                raise UserError(f"{file}: the column {name!r} holds {kind}, expected lists")
            continue
        if _is_text(kind) or (name in columns.labels and (pa.types.is_integer(kind) or pa.types.is_boolean(kind))):
            continue
        expected = "names or whole numbers" if name in columns.labels else "texts"
        raise UserError(f"{file}: the column {name!r} holds {kind}, expected {expected}")


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind)


def _as_strings(file: Path, column: pa.Array, names: list[str] | None) -> pa.Array:
    if names is None or not pa.types.is_integer(column.type):
        array = column.cast(pa.string())
        array.validate(full=True)  # files may hold bytes that are no UTF-8
        return array
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
    while isinstance(feature, list) or (isinstance(feature, dict) and "feature" in feature):
        feature = (feature or [None])[0] if isinstance(feature, list) else feature["feature"]  # of the items of a list
    return feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None


def _read_json(path: Path) -> dict[str, Any]:
    with _explained(path, Columns(())):
        return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def _explained(file: Path, columns: Columns) -> Generator[None]:
    """What goes wrong with a file, as a UserError."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (pa.ArrowException, OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise UserError(f"{file}: cannot be read: {error.strerror}") from None
        if file.is_file() and file.stat().st_size == 0:
            raise UserError(
                f"{file}: the file is empty; expected a row at least, in a .csv behind a line with the columns' names"
            ) from None
        where = find_bad_line(file, columns.names)
        raise UserError(f"{file}: {where or f'not a readable {file.suffix} file: {str(error).splitlines()[0]}'}") from None
