"""Rows with any number of labels, from every kind of file; what is wrong in one is said by file and row."""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.config import DataConfig, LabelConfig, TaskConfig
from engine.errors import UserError
from engine.records import Example
from engine.task.label_set_files import LabelSetColumns, read_set_examples
from engine.task.task import load_task

KNOWN = ("news", "sport", "a, b")
ROWS = [Example("one", "", labels=()), Example("two", "", labels=("news", "a, b")), Example("three", "", labels=("sport",))]


def write_jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_all_kinds_of_files_read_the_same(tmp_path: Path) -> None:
    """In the task's order, whatever theirs was. The first list is empty, from which no type can be told."""
    texts, lists = [row.text for row in ROWS], [[], ["a, b", "news"], ["sport"]]
    write_jsonl(tmp_path / "rows.jsonl", *({"text": text, "labels": own, "more": 1} for text, own in zip(texts, lists, strict=True)))
    pq.write_table(pa.table({"labels": lists, "text": texts}), tmp_path / "rows.parquet")
    ids = pa.table({"text": texts, "labels": pa.array([[KNOWN.index(label) for label in own] for own in lists], pa.list_(pa.int64()))})
    features = {"labels": {"feature": {"names": list(KNOWN), "_type": "ClassLabel"}, "_type": "Sequence"}}
    named = ids.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(named, tmp_path / "ids.parquet")
    (tmp_path / "rows.csv").write_text('text,labels\none,\ntwo,"a, b | news"\nthree,sport\n')
    (tmp_path / "json.csv").write_text('text,labels\none,[]\ntwo,"[""a, b"", ""news""]"\nthree,"[""sport""]"\n')
    for name in ("rows.jsonl", "rows.parquet", "ids.parquet", "rows.csv", "json.csv"):
        assert read_set_examples(tmp_path / name, known=KNOWN) == ROWS, name
    (tmp_path / "other.csv").write_text("words,tags\ntwo,news;sport\n")
    columns = LabelSetColumns("words", "tags", ";")
    assert read_set_examples(tmp_path / "other.csv", columns, KNOWN) == [Example("two", "", labels=("news", "sport"))]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", [{"text": "x", "labels": 3}], "the column 'labels' holds int64, expected lists of labels, or texts with labels"),
        ("rows.jsonl", [{"text": "x", "labels": [{"name": "news"}]}], "expected lists of labels"),
        ("rows.jsonl", [{"text": "x", "label": "news"}], "no column 'labels'; it has text, label ('label' is near)"),
        ("rows.jsonl", [{"text": "x", "labels": ["news"]}, {"text": "y", "labels": ["weather"]}], "row 2: the unknown label 'weather'"),
        (
            "rows.jsonl",
            [{"text": "x", "labels": ["news", "news"]}],
            "row 1: label 'news' more than once; the task's labels are news, sport",
        ),
        ("rows.jsonl", [{"text": "x", "labels": ["news"]}, {"text": "y", "labels": None}], "row 2: no list in 'labels'; expected an empty"),
        ("rows.jsonl", [{"text": "x", "labels": [0]}], "row 1: 0 is no label"),
        ("rows.jsonl", [{"text": " ", "labels": []}], "row 1 has no text"),
        (
            "rows.csv",
            "text,labels\nx,news;sport\n",
            "row 1: the unknown label 'news;sport'; the task's labels are news, sport, a, b, with '|' ",
        ),
        ("rows.csv", "text,labels\n", "no rows"),
    ],
)
def test_wrong_files_are_explained(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        write_jsonl(path, *content)
    with pytest.raises(UserError) as caught:
        read_set_examples(path, known=KNOWN)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def make_config(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> TaskConfig:
    path = write_jsonl(folder / "rows.jsonl", *rows)
    data = DataConfig(seed=path, validation=path, test=path, seed_rows_per_class=settings.pop("per_class", None))
    labels = tuple(LabelConfig(name=name) for name in KNOWN)
    return TaskConfig(kind="multi_label", domain="d", labels=labels, data=data, **settings)


def test_a_row_without_labels_is_a_mistake_where_there_must_be_one(tmp_path: Path) -> None:
    rows = [{"text": label, "labels": [label]} for label in KNOWN] + [{"text": "none", "labels": []}]
    assert [row.labels for row in load_task(make_config(tmp_path, rows), 0).seed] == [*((label,) for label in KNOWN), ()]
    with pytest.raises(UserError, match="row 4: no label, and the task wants one at least"):
        load_task(make_config(tmp_path, rows, allow_none=False), 0)


def test_a_label_without_a_seed_row_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no seed row for 1 of 3 labels \(a, b\)"):
        load_task(make_config(tmp_path, [{"text": "x", "labels": ["news", "sport"]}]), 0)


def test_few_seed_rows_have_every_label_so_often_and_as_many_none(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"{number} {label}", "labels": [label]} for number in range(9) for label in KNOWN]
    rows += [{"text": f"none {number}", "labels": []} for number in range(9)]
    seed = load_task(make_config(tmp_path, rows, per_class=2), 1).seed
    assert sorted(row.labels for row in seed) == sorted([(), (), *((label,) for label in KNOWN for _ in range(2))])
