import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.config import DataConfig, LabelConfig, TaskConfig
from engine.errors import UserError
from engine.records import Example
from engine.task import load_task, read_column, read_examples

ROWS = [Example(f"text {number}", label) for number in range(6) for label in ("a", "b")]


def write_rows(path: Path, rows: list[Example] = ROWS) -> Path:
    path.write_text("".join(json.dumps({"text": row.text, "label": row.label}) + "\n" for row in rows))
    return path


def make_task(folder: Path, *, per_class: int | None = None) -> TaskConfig:
    data = DataConfig(
        seed=folder / "seed.jsonl", validation=folder / "validation.jsonl", test=folder / "test.jsonl", seed_rows_per_class=per_class
    )
    for path in (data.seed, data.validation, data.test):
        write_rows(path)
    return TaskConfig(domain="d", labels=(LabelConfig(name="a"), LabelConfig(name="b")), data=data)


def test_seed_rows_are_drawn_per_class_by_the_seed(tmp_path: Path) -> None:
    config = make_task(tmp_path, per_class=2)
    first, again, other = (load_task(config, seed).seed for seed in (1, 1, 2))
    assert Counter(row.label for row in first) == {"a": 2, "b": 2}
    assert first == again
    assert first != other


def test_all_kinds_of_files_read_the_same(tmp_path: Path) -> None:
    rows = [Example('with, comma and "quotes"\nand a line', "1"), Example("x", "true")]
    table = pa.table({"label": [row.label for row in rows], "other": [1, 2], "text": [row.text for row in rows]})
    pq.write_table(table, tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text('text,label\n"with, comma and ""quotes""\nand a line",1\nx,true\n')
    write_rows(tmp_path / "rows.jsonl", rows)
    for kind in ("parquet", "csv", "jsonl"):
        assert read_examples(tmp_path / f"rows.{kind}") == rows
    assert read_column(tmp_path / "rows.csv", "text") == [row.text for row in rows]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, Example("x", "c")], "row 13 has the unknown label 'c'; the task's labels are a, b"),
        ([Example("x", "a")], "no seed row for 1 of 2 labels (b)"),
        ([*ROWS, Example("  ", "a")], "row 13 has no text"),
        ([*ROWS, Example("x", "")], "row 13 has no label"),
        ([], "seed.jsonl"),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, rows: list[Example], message: str) -> None:
    config = make_task(tmp_path)
    write_rows(config.data.seed, rows)
    with pytest.raises(UserError) as caught:
        load_task(config, 0)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such file"),
        ("rows.txt", "x", "unknown kind of file '.txt'"),
        ("rows.csv", "words,label\nx,a\n", "no column 'text'; it has words, label"),
        ("rows.jsonl", '{"text": "x"', "not a readable .jsonl file"),
        ("rows.parquet", "nonsense", "not a readable .parquet file"),
        ("rows.jsonl", '{"text": null, "label": "a"}\n{"text": "x", "label": "a"}', "row 1 has no text"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as caught:
        read_examples(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
