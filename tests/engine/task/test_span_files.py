# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.config import DataConfig, LabelConfig, TaskConfig
from engine.errors import UserError
from engine.records import Example, Span
from engine.task.span_files import SpanColumns, read_marked_examples
from engine.task.task import load_task

TYPES = ("PER", "LOC")
ROWS = [
    Example("Ana Lima is in Bern", "", (Span(0, 8, "PER"), Span(15, 19, "LOC"))),
    Example("nobody is here", ""),
    Example("Bern , Ana", "", (Span(0, 4, "LOC"), Span(7, 10, "PER"))),
]
TOKENS = [row.text.split() for row in ROWS]
TAGS = [["B-PER", "I-PER", "O", "O", "B-LOC"], ["O", "O", "O"], ["B-LOC", "O", "B-PER"]]
SPANS = [[{"start": span.start, "end": span.end, "type": span.type} for span in row.spans] for row in ROWS]
NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
IDS = [[NAMES.index(tag) for tag in tags] for tags in TAGS]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def with_features(table: pa.Table, feature: object) -> pa.Table:
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": {"tags": feature}}})})


def write_all(folder: Path) -> list[Path]:
    """The same rows in every way that a file may have."""
    names = {"names": NAMES, "_type": "ClassLabel"}
    tokens = pa.table({"tokens": TOKENS, "tags": TAGS})
    ids = pa.table({"tokens": TOKENS, "tags": pa.array(IDS, pa.list_(pa.int64()))})
    tables = {
        "tokens": tokens,
        "ids": with_features(ids, {"feature": names, "_type": "Sequence"}),
        "ids_old": with_features(ids, [names]),
        "spans": pa.table({"text": [row.text for row in ROWS], "spans": SPANS, "label": ["x"] * 3}),
        "spans_as_json": pa.table({"text": [row.text for row in ROWS], "spans": [json.dumps(spans) for spans in SPANS]}),
    }
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    saved = folder / "saved"
    saved.mkdir()
    with pa.ipc.new_stream(saved / "data.arrow", tokens.schema) as writer:
        writer.write_table(tokens)
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}], "_split": None}))
    words = [f'"{" ".join(tokens)}",{" ".join(tags)}' for tokens, tags in zip(TOKENS, TAGS, strict=True)]
    (folder / "tokens.csv").write_text("\n".join(["tokens,tags", *words]) + "\n")
    inline = ["<PER>Ana Lima</PER> is in <LOC>Bern</LOC>", "nobody is here", "<LOC>Bern</LOC> , <PER>Ana</PER>"]
    (folder / "inline.csv").write_text("\n".join(["text", *(f'"{text}"' for text in inline)]) + "\n")
    return [
        *(folder / f"{name}.parquet" for name in tables),
        saved,
        folder / "tokens.csv",
        folder / "inline.csv",
        write_lines(folder / "inline.jsonl", [{"text": text} for text in inline]),
        write_lines(folder / "spans.jsonl", [{"text": row.text, "spans": spans} for row, spans in zip(ROWS, SPANS, strict=True)]),
        write_lines(folder / "tokens.jsonl", [{"tokens": row, "tags": tags} for row, tags in zip(TOKENS, TAGS, strict=True)]),
    ]


def test_every_way_reads_the_same(tmp_path: Path) -> None:
    for path in write_all(tmp_path):
        assert read_marked_examples(path, TYPES) == ROWS, path


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [{"words": ["Ana"], "ner": ["B-PER"]}])
    assert read_marked_examples(path, TYPES, SpanColumns(tokens="words", tags="ner")) == [Example("Ana", "", (Span(0, 3, "PER"),))]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "row 2: 2 tokens and 1 tags; expected a tag for each token"),
        ({"tokens": ["a"], "tags": ["I-PER"]}, "row 2: the tag 'I-PER' behind 'O'; by IOB2 an entity begins with B-PER"),
        ({"tokens": ["a"], "tags": ["S-PER"]}, "row 2: the tag 'S-PER'; expected IOB2, that is O, B-TYPE or I-TYPE"),
        ({"tokens": ["a"], "tags": ["B-ORG"]}, "row 2: unknown type 'ORG'; the task's types of entities are 'PER', 'LOC'"),
        ({"tokens": [" "], "tags": ["O"]}, "row 2: a token without text"),
        ({"tokens": [], "tags": []}, "row 2: no tokens"),
        ({"text": "Ana", "spans": [{"start": 0, "end": 9, "type": "PER"}]}, "row 2: 'PER' from 0 to 9 is no part of a text of 3"),
        (
            {"text": "Ana", "spans": [{"start": 0, "end": 2, "type": "PER"}, {"start": 1, "end": 3, "type": "PER"}]},
            "row 2: entities overlap",
        ),
        ({"text": "Ana", "spans": [{"start": 0, "type": "PER"}]}, "row 2: the span"),
        ({"text": " ", "spans": []}, "row 2 has no text"),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    good = {"tokens": ["Ana"], "tags": ["B-PER"]} if "tokens" in row else {"text": "Ana", "spans": [{"start": 0, "end": 3, "type": "PER"}]}
    path = write_lines(tmp_path / "rows.jsonl", [good, row])
    with pytest.raises(UserError) as caught:
        read_marked_examples(path, TYPES)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_wrong_marks_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows.jsonl: row 1: the tag of 'PER' is not closed; the task's types"):
        read_marked_examples(write_lines(tmp_path / "rows.jsonl", [{"text": "<PER>Ana"}]), TYPES)
    with pytest.raises(
        UserError, match=r"it has the columns a, b; expected 'tokens' with 'tags', 'text' with 'spans', or 'text' with tags"
    ):
        read_marked_examples(write_lines(tmp_path / "rows.jsonl", [{"a": "x", "b": "y"}]), TYPES)
    pq.write_table(pa.table({"tokens": [["Ana"]], "tags": [[1]]}), tmp_path / "ids.parquet")
    with pytest.raises(UserError, match="row 1: the tag 1 has no name; expected names such as B-PER"):
        read_marked_examples(tmp_path / "ids.parquet", TYPES)
    pq.write_table(pa.table({"text": ["Ana"], "spans": [3]}), tmp_path / "numbers.parquet")
    with pytest.raises(UserError, match="the column 'spans' holds int64, expected lists"):
        read_marked_examples(tmp_path / "numbers.parquet", TYPES)


def make_config(folder: Path, rows: list[Example], per_type: int | None = None) -> TaskConfig:
    lines = [{"text": row.text, "spans": [{"start": s.start, "end": s.end, "type": s.type} for s in row.spans]} for row in rows]
    for name in ("seed", "validation", "test"):
        write_lines(folder / f"{name}.jsonl", lines)
    data = DataConfig(
        seed=folder / "seed.jsonl", validation=folder / "validation.jsonl", test=folder / "test.jsonl", seed_rows_per_class=per_type
    )
    labels = tuple(LabelConfig(name=type) for type in TYPES)
    return TaskConfig(kind="ner", domain="d", labels=labels, data=data, marking="json")


def test_a_task_has_entities_and_no_labels(tmp_path: Path) -> None:
    task = load_task(make_config(tmp_path, ROWS), 1)
    assert (task.kind, task.marking, task.label_names) == ("ner", "json", TYPES)
    assert task.seed == task.validation == task.test == tuple(ROWS)


def test_seed_rows_are_drawn_until_every_type_occurs_so_often(tmp_path: Path) -> None:
    people = [Example(f"Ana {number}", "", (Span(0, 3, "PER"),)) for number in range(20)]
    both = [Example(f"Ana Bern {number}", "", (Span(0, 3, "PER"), Span(4, 8, "LOC"))) for number in range(5)]
    config = make_config(tmp_path, [*people, *both, Example("nobody", "")], per_type=3)
    first, again, other = (load_task(config, seed).seed for seed in (1, 1, 2))
    assert first == again != other
    counts = Counter(span.type for row in first for span in row.spans)
    assert counts == {"LOC": 3, "PER": 3}  # the rows with a place have a person each


def test_a_type_that_never_occurs_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no seed row for 1 of 2 entity types \(LOC\); each entity type needs at least one"):
        load_task(make_config(tmp_path, [Example("Ana", "", (Span(0, 3, "PER"),))]), 1)
