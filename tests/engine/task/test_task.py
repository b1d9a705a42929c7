# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

import bz2
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.config import DataConfig, LabelConfig, TaskConfig
from engine.errors import UserError
from engine.records import Example
from engine.task.task import find_pool, load_task, pool_texts, read_contents, read_examples

ROWS = [Example(f"text {number}", label) for number in range(6) for label in ("a", "b")]


def write_rows(path: Path, rows: list[Example] = ROWS) -> Path:
    path.write_text("".join(json.dumps({"text": row.text, "label": row.label}) + "\n" for row in rows))
    return path


def make_table(rows: list[Example] = ROWS, *, names: tuple[str, ...] = ("a", "b"), in_schema: bool = True) -> pa.Table:
    """As `datasets` keeps it: label ids, with their names in the schema."""
    ids = [names.index(row.label) if row.label else -1 for row in rows]
    table = pa.table({"text": [row.text for row in rows], "label": pa.array(ids, pa.int64())})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": make_features(names)}})}) if in_schema else table


def make_features(names: tuple[str, ...]) -> dict[str, Any]:
    return {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": list(names), "_type": "ClassLabel"}}


def save_to_disk(folder: Path, *shards: pa.Table, names: tuple[str, ...] = ("a", "b")) -> Path:
    """A folder as `Dataset.save_to_disk` writes it."""
    folder.mkdir(parents=True)
    files = [f"data-{number:05d}-of-{len(shards):05d}.arrow" for number in range(len(shards))]
    for file, shard in zip(files, shards, strict=True):
        with pa.ipc.new_stream(folder / file, shard.schema) as writer:
            writer.write_table(shard)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": file} for file in files], "_split": None}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": make_features(names)}))
    return folder


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
    assert [text for texts in read_contents(tmp_path / "rows.csv", "text") for text in texts] == [row.text for row in rows]


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


GOOD = '{"text": "x", "label": "a"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such file"),
        ("rows.txt", "x", "unknown kind of file '.txt'; expected .jsonl, .csv or .parquet"),
        ("rows.parquet.gz", "x", "unknown kind of file '.gz'"),
        # Nothing in it.
        ("rows.csv", "", "the file is empty"),
        ("rows.jsonl", "", "the file is empty"),
        ("rows.parquet", "", "the file is empty"),
        ("rows.csv", "text,label\n", "no rows"),
        ("rows.jsonl", "\n\n", "not a readable .jsonl file"),
        # Columns.
        ("rows.csv", "words,label\nx,a\n", "no column 'text'; it has words, label; expected text, label"),
        ("rows.csv", "text, label\nx,a\n", "no column 'label'; it has text,  label ('label' is near)"),
        ("rows.csv", "text,text,label\nx,y,a\n", "the column 'text' is there 2 times"),
        ("rows.jsonl", '{"text": "x"}', "no column 'label'; it has text"),
        ("rows.jsonl", GOOD + '{"text": "x", "text": "y", "label": "a"}', "line 2 has 'text' twice"),
        # Values of a wrong kind.
        ("rows.jsonl", GOOD * 3 + '{"text": 5, "label": "a"}', "line 4: 'text' is a number, in earlier lines a string"),
        ("rows.jsonl", '{"text": 5, "label": "a"}', "the column 'text' holds int64, expected texts"),
        ("rows.jsonl", '{"text": ["x"], "label": "a"}', "the column 'text' holds list<item: string>, expected texts"),
        ("rows.jsonl", '{"text": "x", "label": 1.5}', "the column 'label' holds double, expected names or whole numbers"),
        ("rows.jsonl", '{"text": null, "label": "a"}\n' + GOOD, "row 1 has no text"),
        ("rows.jsonl", GOOD + '\n{"text": "x", "label": null}', "row 2 has no label"),
        ("rows.csv", "text,label\nx,a\ny,\n", "row 2 has no label"),
        # Lines that cannot be read.
        ("rows.jsonl", GOOD + '{"text": "x"', "line 2 is not JSON: Expecting ',' delimiter (character 13)"),
        ("rows.jsonl", GOOD + "[1]", "line 2 is a list; expected an object in each line"),
        ("rows.jsonl", GOOD + '{"text": "\\ud800", "label": "a"}', "line 2: 'text' holds half of a surrogate pair"),
        ("rows.csv", "text,label\nx,a\n\ny,b,c\n", "line 4 has 3 columns, the header 2"),
        ("rows.csv", 'text,label\nx,a\n"y,b\nz,c\n', "line 3 has 1 column, the header 2; is a quotation mark never closed?"),
        ("rows.csv", 'text,label\n"y,b\n' + "z,c\n" * 40_000, "line 2 begins a value that is very long; is a quotation mark never closed?"),
        ("rows.csv.gz", "no gzip", "not a readable .gz file"),
        ("rows.parquet", "nonsense", "not a readable .parquet file"),
        # Encodings.
        ("rows.csv", "text,label\nx,a\ncafé,b\n".encode("latin-1"), "line 3 is not UTF-8 (byte 0xe9); save the file as UTF-8"),
        ("rows.jsonl", (GOOD + '{"text": "café", "label": "a"}').encode("latin-1"), "line 2 is not UTF-8 (byte 0xe9)"),
        ("rows.csv", "text,label\nx,a\n".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        ("rows.csv.gz", gzip.compress("text,label\ncafé,b\n".encode("latin-1"), mtime=0), "line 2 is not UTF-8"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, name: str, content: str | bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read_examples(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "columns",
    [
        {"text": pa.array([b"x\xff"]), "label": ["a"]},
        {"text": [5], "label": ["a"]},
        {"text": ["x"], "label": [1.5]},
        {"text": [["x"]], "label": ["a"]},
    ],
)
def test_columns_of_a_wrong_type_are_named(tmp_path: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=r"rows\.parquet: the column '(text|label)' holds .*, expected (texts|names or whole numbers)"):
        read_examples(tmp_path / "rows.parquet")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("engine.task.row_files.pa_csv.open_csv", refuse)  # the tests may run as root, who may read anything
    (tmp_path / "rows.csv").write_text("text,label\nx,a\n")
    with pytest.raises(UserError, match=r"rows\.csv: cannot be read: Permission denied"):
        read_examples(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", b"\xef\xbb\xbftext,label\r\nx,a\r\n"),
        ("rows.jsonl", b"\xef\xbb\xbf" + GOOD.encode()),
        ("rows.jsonl", b"\n" + GOOD.encode() + b"\n"),
        ("rows.csv.gz", gzip.compress(b"text,label\nx,a\n", mtime=0)),
        ("rows.jsonl.gz", gzip.compress(GOOD.encode(), mtime=0)),
        ("rows.jsonl.bz2", bz2.compress(GOOD.encode())),
        ("rows.jsonl.zst", pa.compress(GOOD.encode(), codec="zstd", asbytes=True)),
    ],
)
def test_byte_order_marks_and_compression_change_nothing(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_examples(tmp_path / name) == [Example("x", "a")]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_all_kinds_of_strings_are_texts(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({name: pa.array([value], pa.string()).cast(kind) for name, value in (("text", "x"), ("label", "a"))})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert read_examples(tmp_path / "rows.parquet") == [Example("x", "a")]


def test_what_looks_like_a_date_or_a_number_stays_as_it_is(tmp_path: Path) -> None:
    rows = [Example("2024-01-01T10:00:00Z", "2024-01-01"), Example("1e3", "007")]
    assert read_examples(write_rows(tmp_path / "rows.jsonl", rows)) == rows
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"{row.text},{row.label}\n" for row in rows))
    assert read_examples(tmp_path / "rows.csv") == rows


@pytest.mark.parametrize("in_schema", [True, False])
def test_a_saved_dataset_is_read_shard_by_shard_with_its_label_names(tmp_path: Path, in_schema: bool) -> None:
    table = make_table(in_schema=in_schema)
    folder = save_to_disk(tmp_path / "saved", table.slice(0, 5), table.slice(5))
    assert read_examples(folder) == ROWS


def test_a_split_of_a_saved_dataset_is_chosen(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    for split, rows in (("train", ROWS), ("test", ROWS[:2])):
        save_to_disk(folder / split, make_table(rows))
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert read_examples(tmp_path / "saved:test") == ROWS[:2]
    assert read_examples(tmp_path / "saved:train") == ROWS


def test_a_dataset_as_on_the_hub(tmp_path: Path) -> None:
    data = tmp_path / "hub" / "data"
    data.mkdir(parents=True)
    (tmp_path / "hub" / "README.md").write_text("# A data set")
    pq.write_table(make_table(ROWS[:4]), data / "train-00000-of-00002.parquet")
    pq.write_table(make_table(ROWS[4:]), data / "train-00001-of-00002-1a2b3c.parquet")
    assert read_examples(tmp_path / "hub") == read_examples(tmp_path / "hub:train") == ROWS
    (tmp_path / "hub" / "test.jsonl.gz").write_bytes(gzip.compress(write_rows(tmp_path / "rows.jsonl", ROWS[:1]).read_bytes()))
    assert read_examples(tmp_path / "hub:test") == ROWS[:1]


def test_a_dataset_that_is_not_whole_is_named(tmp_path: Path) -> None:
    pq.write_table(make_table(ROWS[:4]), tmp_path / "train-00000-of-00002.parquet")
    with pytest.raises(UserError, match="the split 'train' has 1 files, and their names say 2"):
        read_examples(tmp_path)
    write_rows(tmp_path / "train-00001-of-00002.jsonl")
    with pytest.raises(UserError, match="the split 'train' has files of several kinds \\(jsonl, parquet\\)"):
        read_examples(tmp_path)


def test_a_wrong_row_of_a_dataset_is_named_in_its_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "train-00000-of-00002.jsonl")
    write_rows(tmp_path / "train-00001-of-00002.jsonl", [ROWS[0], Example("x", "c")])
    with pytest.raises(UserError, match=r"train-00001-of-00002\.jsonl: row 2 has the unknown label 'c'; the task's labels are a, b"):
        read_examples(tmp_path, label_names=("a", "b"))


def test_wrong_datasets_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    save_to_disk(tmp_path / "saved", make_table())
    save_to_disk(tmp_path / "nameless", make_table(in_schema=False), names=("a",))
    save_to_disk(tmp_path / "unlabelled", make_table([Example("x", "")]))
    save_to_disk(tmp_path / "lost", make_table())
    (tmp_path / "lost" / "data-00000-of-00001.arrow").unlink()
    save_to_disk(tmp_path / "broken", make_table())
    (tmp_path / "broken" / "state.json").write_text("{")
    hub = tmp_path / "hub"
    hub.mkdir()
    for split in ("train", "test"):
        write_rows(hub / f"{split}.jsonl")
    for name, message in {
        "empty": "no dataset in this folder; expected one that `save_to_disk` wrote",
        "saved:train": "a dataset without the split 'train'; give the folder alone",
        "nameless": "the label id 1 has no name; the dataset names ids 0 to 0",
        "unlabelled": "row 1 has no label",
        "lost": "data-00000-of-00001.arrow: no such file",
        "broken": "state.json: not a readable .json file",
        "hub": f"it has test, train; choose one with {hub}:test",
        "hub:dev": "no split 'dev'; it has test, train",
        "nothing:train": "nothing:train: no such file",
    }.items():
        with pytest.raises(UserError) as caught:
            read_examples(tmp_path / name)
        assert message in str(caught.value), name


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    config = make_task(tmp_path)
    for path in (config.data.seed, config.data.validation, config.data.test):
        path.write_text("".join(json.dumps({"utterance": row.text, "intent": row.label}) + "\n" for row in ROWS))
    data = config.data.model_copy(update={"text_column": "utterance", "label_column": "intent"})
    assert load_task(config.model_copy(update={"data": data}), 0).test == tuple(ROWS)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "saved"])
def test_a_pool_is_counted_and_read_in_batches(tmp_path: Path, kind: str) -> None:
    texts = [f"text {number}" for number in range(25_000)]
    table = pa.table({"words": texts})
    path = tmp_path / f"pool.{kind}"
    match kind:
        case "parquet":
            pq.write_table(table, path)
        case "saved":
            save_to_disk(path, table.slice(0, 10_000), table.slice(10_000))
        case "csv":
            path.write_text("words\n" + "\n".join(texts))
        case _:
            path.write_text("".join(json.dumps({"words": text}) + "\n" for text in texts))
    pool = find_pool(path, "words")
    assert pool.num_rows == len(texts)
    assert [text for batch in pool_texts(pool) for text in batch] == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": null}\n', "no texts in the column 'text'"),
        ('{"text": " "}\n', "no texts in the column 'text'"),
        ('{"words": "x"}\n', "no column 'text'; it has words"),
        (None, "no such file"),
    ],
)
def test_a_pool_without_texts_is_named_at_the_start(tmp_path: Path, content: str | None, message: str) -> None:
    config = make_task(tmp_path)
    pool = tmp_path / "pool.jsonl"
    if content is not None:
        pool.write_text(content)
    config = config.model_copy(update={"data": config.data.model_copy(update={"pool": pool})})
    with pytest.raises(UserError) as caught:
        load_task(config, 0)
    assert message in str(caught.value)
    assert str(pool) in str(caught.value)


def test_a_task_need_not_have_a_pool(tmp_path: Path) -> None:
    config = make_task(tmp_path)
    assert load_task(config, 0).pool is None
    write_rows(tmp_path / "pool.jsonl")
    config = config.model_copy(update={"data": config.data.model_copy(update={"pool": tmp_path / "pool.jsonl"})})
    pool = load_task(config, 0).pool
    assert pool is not None
    assert pool.num_rows == len(ROWS)
