"""Rows that are pairs of texts, from every kind of file; and what is wrong with some."""

# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from engine.config import DataConfig, LabelConfig, TaskConfig
from engine.errors import UserError
from engine.records import Example
from engine.task.task import find_pool, load_task, pool_texts, read_examples
from tests.engine.task.test_task import save_to_disk

ROWS = [
    Example(f"premise {number}, with a comma", label, text_pair=f'"hypothesis" {number}') for number in range(4) for label in ("a", "b")
]


def as_table(text: str = "text", second: str = "text_pair") -> pa.Table:
    return pa.table(
        {"other": range(8), second: [row.text_pair for row in ROWS], "label": [row.label for row in ROWS], text: [row.text for row in ROWS]}
    )


def _jsonl(folder: Path, table: pa.Table) -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return folder / "rows.jsonl"


def _csv(folder: Path, table: pa.Table) -> Path:
    pa_csv.write_csv(table, folder / "rows.csv")
    return folder / "rows.csv"


def _parquet(folder: Path, table: pa.Table) -> Path:
    pq.write_table(table, folder / "rows.parquet")
    return folder / "rows.parquet"


WRITERS: dict[str, Callable[[Path, pa.Table], Path]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
    "folder": lambda folder, table: save_to_disk(folder / "saved", table),
}


def make_task(path: Path, **data: Any) -> TaskConfig:
    labels = (LabelConfig(name="a"), LabelConfig(name="b"))
    return TaskConfig(kind="pair", domain="d", labels=labels, data=DataConfig(seed=path, validation=path, test=path, **data))


@pytest.mark.parametrize("kind", WRITERS)
def test_all_kinds_of_files_read_the_same(kind: str, tmp_path: Path) -> None:
    assert load_task(make_task(WRITERS[kind](tmp_path, as_table())), 0).seed == tuple(ROWS)


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    config = make_task(_parquet(tmp_path, as_table("question", "passage")), text_column="question", text_pair_column="passage")
    assert load_task(config, 0).test == tuple(ROWS)
    drawn = load_task(make_task(config.data.seed, text_column="question", text_pair_column="passage", seed_rows_per_class=2), 0)
    assert sorted(row.label for row in drawn.seed) == ["a", "a", "b", "b"]


def test_a_file_without_second_texts_is_named(tmp_path: Path) -> None:
    path = _jsonl(tmp_path, as_table().drop_columns(["text_pair"]))
    expected = r"rows\.jsonl: no column 'text_pair'; it has other, label, text .*; expected text, text_pair, label"
    with pytest.raises(UserError, match=expected):
        load_task(make_task(path), 0)


@pytest.mark.parametrize("text", [None, "", "  \t"])
def test_an_empty_second_text_is_named_with_its_row(text: str | None, tmp_path: Path) -> None:
    lines = [{"text": "a", "text_pair": "b", "label": "a"}, {"text": "a", "text_pair": text, "label": "b"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=r"row 2 has no second text \(column 'text_pair'\); each row of a task of pairs has two"):
        read_examples(tmp_path / "rows.jsonl", text_pair_column="text_pair")


def test_a_second_column_is_only_for_pairs(tmp_path: Path) -> None:
    content = make_task(tmp_path / "rows.jsonl", text_pair_column="passage").model_dump() | {"kind": "classification"}
    with pytest.raises(ValidationError, match=r"text_pair_column = passage, but task.kind = classification classifies one text"):
        TaskConfig.model_validate(content)


def test_a_pair_stands_in_two_columns(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="are both 'text'; the texts of a pair stand in two columns"):
        make_task(tmp_path / "rows.jsonl", text_pair_column="text")


def test_a_pool_of_pairs_is_read_in_order(tmp_path: Path) -> None:
    pool = find_pool(_parquet(tmp_path, as_table()), "text", "text_pair")
    assert pool.num_rows == 8
    assert [pair for pairs in pool_texts(pool) for pair in pairs] == [row.content for row in ROWS]
    (tmp_path / "empty.jsonl").write_text('{"text": "a", "label": ""}\n')
    with pytest.raises(UserError, match="no row with texts in the columns 'text' and 'label'"):
        find_pool(tmp_path / "empty.jsonl", "text", "label")
