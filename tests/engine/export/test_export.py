# pyright: reportUnknownParameterType=false
# (pyarrow's and datasets' classes have no type stubs, so that naming them says something to readers only)

import fcntl
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.errors import StoreError, UserError
from engine.export import Options, dataset, export, rows, shards
from engine.export.card import COLUMNS, MEANING, code, licence_of, quoted, size_category
from engine.records import Annotation, RejectionReason, Span
from engine.rundir import RunDir
from engine.runs.retention import Part, prune
from engine.store import SCHEMAS
from engine.task.task import read_examples
from tests.engine.run_folders import LABELS, add_rows, finish_run, make_config, make_rows, make_run

HOSTILE = (
    "a|b",
    "back\\|slash",
    '"quoted"',
    "it's",
    "line\nbreak\n---\nlicense: evil",
    "<script>alert(1)</script>",
    "[link](javascript:alert(1))",
    "`code` ``more``",
    "yes",
    "0o17",
    "1",
    "null",
    "---",
    "# heading",
    "{{ 7 * 7 }}{% raw %}",
    " spaces ",
    "über 😀",
    "\u202egnp.exe",
    "\x1b[31mred\x00",
    "\x85\u2028\ufeff",
    "'0': x",
)


@pytest.fixture(scope="module")
def datasets() -> Any:
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    module = pytest.importorskip("datasets", reason="needs the dev dependency `datasets`")
    module.disable_progress_bars()
    return module


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(tmp_path / "tickets", [make_rows(1, LABELS), make_rows(2, (*LABELS, "track"))])


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """Front matter and text, told apart as the hub does."""
    found = re.match(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\n|$))", (folder / "README.md").read_text())
    assert found
    return yaml.safe_load(found[2]), found.string[found.end() :]


def section(text: str, title: str) -> str:
    return text.split(f"{title}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]


# What `datasets` makes of it.


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_the_folder_loads_with_hostile_labels_and_texts(datasets: Any, tmp_path: Path, format: Any) -> None:
    texts = [*HOSTILE, "\ud800 half", "x" * 100_000]
    labels = [*HOSTILE, HOSTILE[0], HOSTILE[0]]
    samples = make_rows(1, labels, texts)
    run = make_run(tmp_path / "run", [samples], make_config(HOSTILE, domain=HOSTILE[4]))
    done = export(run, tmp_path / "out", Options(format=format, with_rejections=True, license="cc0-1.0", languages=("en",)))
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert [*loaded] == ["train"]
    train = loaded["train"]
    assert train.features["label"].names == [*HOSTILE]
    readable = {sample.id: (sample.text.replace("\ud800", "?"), sample.label) for sample in samples}
    found = {row["id"]: (row["text"], train.features["label"].int2str(row["label"])) for row in train}
    assert found == readable
    assert done.classes == Counter(labels)
    (refused,) = datasets.load_dataset(str(tmp_path / "out"), "rejections", cache_dir=str(tmp_path / "cache"))["train"]
    assert (refused["label"], refused["reason"]) == ("no such label", "duplicate")


def test_the_files_load_by_themselves(datasets: Any, run: RunDir, tmp_path: Path) -> None:
    export(run, tmp_path / "out")
    loaded = datasets.load_dataset("parquet", data_files=str(tmp_path / "out/data/*.parquet"), cache_dir=str(tmp_path / "cache"))
    assert Counter(loaded["train"]["label"]) == {"cancel": 2, "change": 2, "track": 3}


def test_an_export_can_be_the_seed_of_another_run(run: RunDir, tmp_path: Path) -> None:
    for format in ("parquet", "jsonl"):
        export(run, tmp_path / format, Options(format=format, with_rejections=True))
        assert Counter(row.label for row in read_examples(tmp_path / format)) == {"cancel": 2, "change": 2, "track": 3}


# Which rows, in which order.


def ids(folder: Path) -> list[str]:
    return [row for path in sorted(folder.glob("data/*.parquet")) for row in pq.read_table(path).column("id").to_pylist()]


def test_the_order_does_not_depend_on_the_order_of_the_answers(tmp_path: Path) -> None:
    first, second = make_rows(1, LABELS), make_rows(2, LABELS)
    one = make_run(tmp_path / "one", [first, second])
    other = make_run(tmp_path / "other", [first[::-1], [second[1], second[2], second[0]]])
    for run in (one, other):
        export(run, tmp_path / run.root.name / "out")
    assert ids(tmp_path / "one/out") == ids(tmp_path / "other/out") == sorted(sample.id for sample in [*first, *second])


def test_rows_of_a_round_in_progress_are_left_out_unless_asked_for(run: RunDir, tmp_path: Path) -> None:
    add_rows(run, 3, make_rows(3, LABELS))
    assert export(run, tmp_path / "out").rows == 7
    assert export(run, tmp_path / "all", Options(with_unfinished=True)).rows == 10
    assert "in the middle of a round" in card_of(tmp_path / "all")[1]
    assert "in the middle of a round" not in card_of(tmp_path / "out")[1]


def test_where_chooses_and_the_card_says_so(run: RunDir, tmp_path: Path) -> None:
    done = export(run, tmp_path / "out", Options(where="label = 'track' and id not in (select id from rejections)"))
    assert done.classes == {"track": 3}
    text = card_of(tmp_path / "out")[1]
    assert "Only rows for which this SQL condition holds were exported: `label = 'track'" in text
    assert "| `cancel` |  | 0 | 0.0 % |" in text
    assert "9 rows asked for = 7 accepted + 2 rejected + 0 failed" in text


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("label = 'nothing'", "no row of .* fulfils --where"),
        ("colour = 'red'", 'Referenced column "colour" not found'),
        ("label", "Could not convert string"),
        ("cast(text as int) > 0", "Could not convert string 'text"),
        ("1 = 1; drop table samples", "--where"),
        ("1 = 1) or (1 = 1", "syntax error"),
        ("true) union all select * from samples --", "syntax error"),
        ("(select count(*) from read_text('/etc/passwd')) > 0", "disabled|not allowed|Permission"),
        ("text = '\ud800'", "--where"),
        ("", "--where"),
    ],
)
def test_a_wrong_condition_is_named_and_nothing_is_written(run: RunDir, tmp_path: Path, where: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        export(run, tmp_path / "out", Options(where=where))
    assert [path.name for path in tmp_path.iterdir()] == ["tickets"]


def test_a_run_without_rows_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "new")
    with pytest.raises(UserError, match="has completed no round yet; --with-unfinished takes"):
        export(run, tmp_path / "out")
    with pytest.raises(UserError, match="has no accepted rows"):
        export(run, tmp_path / "out", Options(with_unfinished=True))


def test_a_pruned_run_is_exported_as_far_as_it_is_there(run: RunDir, tmp_path: Path) -> None:
    prune(run, [Part.SAMPLES])
    with pytest.raises(UserError, match="has no rejections any more, so it can no longer be exported with its refused rows"):
        export(run, tmp_path / "out", Options(with_rejections=True))
    export(run, tmp_path / "out")
    assert "The refused rows have been deleted from the run" in card_of(tmp_path / "out")[1]
    prune(run, [Part.LOGS])
    with pytest.raises(UserError, match="it can no longer be exported"):
        export(run, tmp_path / "again")


def test_folders_of_this_machine_are_not_told(tmp_path: Path) -> None:
    config = make_config()
    config = config.model_copy(update={"teacher": config.teacher.model_copy(update={"model": "/home/me/models/Qwen3-8B"})})
    run = make_run(tmp_path / "run", [make_rows(1, LABELS)], config)
    export(run, tmp_path / "out", Options(with_rejections=True))
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"/home/me" not in path.read_bytes()
    assert "Teacher: `Qwen3-8B`" in card_of(tmp_path / "out")[1]
    column = rows._readable(pq.read_table(tmp_path / "out/data/train-00000-of-00001.parquet").to_batches()[0], rows.schema("samples"))  # pyright: ignore[reportPrivateUsage]
    replaced = column.set_column(column.schema.names.index("teacher"), "teacher", column.column("teacher").cast("string"))
    assert set(replaced.column("teacher").to_pylist()) == {"teacher"}


# The files.


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_many_rows_are_written_batch_by_batch_in_files_of_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Any) -> None:
    monkeypatch.setattr(rows, "BATCH_ROWS", 512)
    monkeypatch.setattr(shards, "SHARD_BYTES", 30_000)
    texts = [f"{number:>50}" for number in range(3000)]
    run = make_run(tmp_path / "run", [make_rows(round, ["cancel"] * 3000, texts) for round in (1, 2)])
    seen: list[int] = []
    counted = dataset._counted  # pyright: ignore[reportPrivateUsage]

    def watched(batches: Any, *rest: Any) -> Any:
        for batch in counted(batches, *rest):
            seen.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(dataset, "_counted", watched)
    done = export(run, tmp_path / "out", Options(format=format))
    assert sum(seen) == done.rows == 6000
    assert max(seen) <= 512
    files = sorted((tmp_path / "out/data").iterdir())
    assert len(files) >= 2
    assert [path.name for path in files] == [f"train-{number:05d}-of-{len(files):05d}.{format}" for number in range(len(files))]
    assert all(30_000 <= path.stat().st_size < 300_000 for path in files[:-1])
    if format == "parquet":
        assert len(set(ids(tmp_path / "out"))) == 6000
        assert {pq.read_metadata(path).row_group(0).column(0).compression for path in files} == {"ZSTD"}
    else:
        lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
        assert len({line["id"] for line in lines}) == 6000
        assert list(lines[0])[:3] == ["text", "label", "id"]


def test_text_and_label_come_first_and_every_column_is_explained(run: RunDir, tmp_path: Path) -> None:
    export(run, tmp_path / "out")
    names = pq.read_schema(tmp_path / "out/data/train-00000-of-00001.parquet").names
    assert names[:2] == ["text", "label"]
    assert set(names) == set(SCHEMAS["samples"].names) - {"spans", "labels", "text_pair"}
    assert set(COLUMNS) == {*SCHEMAS["samples"].names, *SCHEMAS["rejections"].names}
    assert set(MEANING) == set(RejectionReason)


# The folder.


def test_a_folder_with_something_in_it_is_refused(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export(run, out)
    with pytest.raises(UserError, match="out is not empty; give a new folder, or --overwrite"):
        export(run, out)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is there already and is no folder"):
        export(run, tmp_path / "file", Options(overwrite=True))


def test_only_an_earlier_export_is_replaced(run: RunDir, tmp_path: Path) -> None:
    export(run, tmp_path / "out", Options(with_rejections=True))
    assert export(run, tmp_path / "out", Options(overwrite=True, where="round = 1")).rows == 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "data"}
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"out holds more than an earlier export \(mine\.txt\)"):
        export(run, tmp_path / "out", Options(overwrite=True))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/data").mkdir()
    with pytest.raises(UserError, match="photos is no earlier export"):
        export(run, tmp_path / "photos", Options(overwrite=True))
    assert {path.name for path in tmp_path.iterdir()} == {"tickets", "out", "photos"}


@pytest.mark.parametrize("fails", [KeyboardInterrupt, partial(OSError, 28, "No space left on device")])
def test_what_fails_in_the_middle_leaves_nothing_and_what_was_there(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[[], BaseException]
) -> None:
    def fail(_: object) -> str:
        raise fails()

    export(run, tmp_path / "out")
    before = (tmp_path / "out/README.md").read_bytes()
    monkeypatch.setattr(dataset, "render_card", fail)
    for name in ("out", "new"):
        with pytest.raises((KeyboardInterrupt, StoreError)):
            export(run, tmp_path / name, Options(overwrite=True))
    assert {path.name for path in tmp_path.iterdir()} == {"tickets", "out"}
    assert (tmp_path / "out/README.md").read_bytes() == before


def test_what_a_killed_export_left_is_deleted_by_the_next(run: RunDir, tmp_path: Path) -> None:
    dead, alive = tmp_path / ".out.aaaa.exporting", tmp_path / ".out.bbbb.exporting"
    for folder in (dead, alive):
        (folder / "data").mkdir(parents=True)
    descriptor = os.open(alive, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    export(run, tmp_path / "out")
    os.close(descriptor)
    assert {path.name for path in tmp_path.iterdir()} == {"tickets", "out", alive.name}


def test_the_run_is_not_compacted_or_pruned_meanwhile(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(_: object) -> str:
        with pytest.raises(UserError, match="is being worked on"):
            prune(run, [Part.SAMPLES])
        return "---\n---\n"

    monkeypatch.setattr(dataset, "render_card", look)
    export(run, tmp_path / "out")


def test_a_run_that_may_only_be_read_is_exported(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(run: RunDir, who: str) -> None:
        raise StoreError(f"cannot write {run.root / who}: Permission denied")

    monkeypatch.setattr(RunDir, "_open_lock", refuse)
    assert export(run, tmp_path / "out").rows == 7


def test_others_may_read_the_folder(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "by hand").mkdir()
    export(run, tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "by hand").stat().st_mode


# The card.


def test_the_card_tells_how_it_was_made(run: RunDir, tmp_path: Path) -> None:
    finish_run(run)
    export(run, tmp_path / "out", Options(license="cc-by-4.0", languages=("en", "de")))
    front, text = card_of(tmp_path / "out")
    assert front["license"] == "cc-by-4.0"
    assert front["language"] == ["en", "de"]
    assert front["task_categories"] == ["text-classification"]
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}]
    assert "| `track` |  | 3 | 42.9 % |" in section(text, "## Rows by class")
    made = section(text, "## How it was made")
    assert "| `pgkd` | `pgkd/generate@1f2e` | `teacher` | 7 |" in made
    for setting in ("temperature `1.0`", "similarity `0.7`", "type `pgkd`", "Teacher: `teacher-model`", "reflux `0.1.0`"):
        assert setting in made
    assert "9 rows asked for = 7 accepted + 2 rejected + 0 failed (77.8 % accepted)" in text
    assert "| `duplicate` | the same text was there already | 2 |" in text
    assert "| 2 | 5 | 4 | 1 | 0 | 1000 | 100 | 0.450 |" in text
    assert "| all | 9 | 7 | 2 | 0 | 2000 | 200 | |" in text
    assert "0.400 after round 0, 0.800 after round 1" in text
    assert "gave it the licence `cc-by-4.0`" in section(text, "## Licence")
    assert "The run had not finished" not in text
    assert "no person wrote them" in section(text, "## Known limits")


def test_without_a_licence_it_says_so_and_a_leak_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [make_rows(1, LABELS)], leaks=("validation rows in prompts",))
    export(run, tmp_path / "out")
    front, text = card_of(tmp_path / "out")
    assert front["license"] == "unknown"
    assert "language" not in front
    assert "None was given. `reflux export … --license ID` writes one." in text
    assert "Not clean for evaluation: validation rows in prompts." in text
    assert "The run had not finished" in text


def test_the_teachers_licence_is_read_from_its_card(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    assert licence_of(tmp_path) is None
    for content, licence in {
        "---\nlicense: apache-2.0\n---\n# A model": "apache-2.0",
        "---\nlicense: [a, b]\n---\n": None,
        "---\n- license\n---\n": None,
        "---\n{ [\n---\n": None,
        "# No front matter": None,
    }.items():
        card.write_text(content)
        assert licence_of(tmp_path) == licence, content


@pytest.mark.parametrize(("option", "message"), [({"license": "a b"}, "no name of a licence"), ({"languages": ("english!",)}, "no code")])
def test_wrong_options_are_named(run: RunDir, tmp_path: Path, option: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        export(run, tmp_path / "out", Options(**option))


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_what_is_quoted_is_read_back_equal_and_stays_in_its_line(text: str) -> None:
    assert yaml.safe_load(f"key: {quoted(text)}") == {"key": text}
    assert len(quoted(text).splitlines()) == 1


@given(st.text(max_size=60) | st.text("`|\\ \n<", max_size=20))
def test_a_code_span_is_one_cell_in_one_line_that_ends_where_it_should(text: str) -> None:
    shown = code(text)
    assert shown.isprintable()
    assert not re.search(r"(?<!\\)\||\\\\\|", shown), "a pipe that ends the cell in one program or another"
    fence = re.match("`+", shown)
    assert fence
    inside = shown[fence.end() : -fence.end()]
    assert inside.strip()
    assert fence[0] not in re.findall("`+", inside)
    assert shown.endswith(fence[0])


@pytest.mark.parametrize(
    ("count", "name"),
    [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (9999, "1K<n<10K"), (10_000, "10K<n<100K"), (10**6, "1M<n<10M"), (10**13, "n>1T")],
)
def test_sizes_are_named_as_on_the_hub(count: int, name: str) -> None:
    assert size_category(count) == name


# Entities.


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_rows_with_entities_are_exported_with_them(tmp_path: Path, datasets: Any, format: Literal["parquet", "jsonl"]) -> None:
    types = ("PER", 'a|b\ufdd0"c"')
    spans = ((Span(0, 3, types[0]), Span(7, 11, types[1])), ())
    rows = [
        replace(row, label="", annotation=Annotation(found))
        for row, found in zip(make_rows(1, ["", ""], ["Ana in Bern", "nobody"]), spans, strict=True)
    ]
    run = make_run(tmp_path / "run", [rows], make_config(types, kind="ner"))
    exported = export(run, tmp_path / "out", Options(format=format, with_rejections=True))
    assert (exported.rows, exported.classes) == (2, {types[0]: 1, types[1]: 1})
    front, text = card_of(tmp_path / "out")
    assert front["task_categories"] == ["token-classification"]
    assert "2 texts with entities of 2 types" in text
    assert "| `PER` |  | 1 | 50.0 % |" in section(text, "## Entities by type")
    assert "ClassLabel" not in text
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert loaded.column_names[:2] == ["text", "spans"]
    assert "label" not in loaded.column_names
    there = {row["text"]: [(span["start"], span["end"], span["type"]) for span in row["spans"]] for row in loaded}
    assert there == {"Ana in Bern": [(0, 3, types[0]), (7, 11, types[1])], "nobody": []}


# Any number of labels.


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_rows_with_several_labels_are_exported_as_lists_of_classes(
    tmp_path: Path, datasets: Any, format: Literal["parquet", "jsonl"]
) -> None:
    labels = ("news", 'a|b"c"')
    found = [labels, (), labels[1:]]
    rows = [
        replace(row, label="", annotation=Annotation(labels=own))
        for row, own in zip(make_rows(1, [""] * 3, ["both", "none", "one"]), found, strict=True)
    ]
    run = make_run(tmp_path / "run", [rows], make_config(labels, kind="multi_label"))
    exported = export(run, tmp_path / "out", Options(format=format))
    assert (exported.rows, exported.classes) == (3, {labels[0]: 1, labels[1]: 2})
    front, text = card_of(tmp_path / "out")
    assert front["task_ids"] == ["multi-label-classification"]
    assert "3 texts with any number of 2 labels" in text
    assert "| `news` |  | 1 | 33.3 % |" in section(text, "## Rows by label")
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert loaded.column_names[:2] == ["text", "labels"]
    assert "label" not in loaded.column_names
    assert {row["text"]: row["labels"] for row in loaded} == {"both": [0, 1], "none": [], "one": [1]}
    assert loaded.features["labels"].feature.names == [*labels]


def test_a_dataset_of_texts_with_labels_has_no_entities(run: RunDir, tmp_path: Path) -> None:
    export(run, tmp_path / "out")
    assert "spans" not in pq.read_schema(tmp_path / "out/data/train-00000-of-00001.parquet").names
    assert "dataset_info" in card_of(tmp_path / "out")[0]


def test_pairs_are_exported_with_both_texts(tmp_path: Path, datasets: Any) -> None:
    rows = [replace(row, annotation=Annotation(text_pair=f"beside {row.text}")) for row in make_rows(1, LABELS[:2], ["one", "two"])]
    run = make_run(tmp_path / "run", [rows], make_config(LABELS, kind="pair"))
    assert export(run, tmp_path / "out").rows == 2
    assert f"2 pairs of texts in {len(LABELS)} classes" in card_of(tmp_path / "out")[1]
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert loaded.column_names[:3] == ["text", "text_pair", "label"]
    assert {row["text"]: row["text_pair"] for row in loaded} == {"one": "beside one", "two": "beside two"}
    again = read_examples(tmp_path / "out/data/train-00000-of-00001.parquet", text_pair_column="text_pair")
    assert {row.content for row in again} == {("one", "beside one"), ("two", "beside two")}
