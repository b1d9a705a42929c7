"""`reflux init`: from a file of one's own to a task file that runs."""

import csv
import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from engine.cli import app
from engine.cli.interview import Interview
from engine.config import METHODS, load_config
from engine.errors import ServerError, UserError
from engine.gates.gates import comparable
from engine.loop import run_loop
from engine.progress import Silent
from engine.records import Example, Label
from engine.rundir import RunDir
from engine.task.column_guess import guess_columns
from engine.task.row_split import MOST_HELD_OUT, split_rows
from engine.task.task import load_task, read_examples
from engine.task.task_file import TaskDraft, key_notes, render_task_file
from engine.testing.server import ScriptedServer
from tests.engine.scripted_runs import FAKE_STUDENT

HOSTILE = ('say "no"', "two\nlines", "[[task.labels]]", "caf\u00e9 \u202e#", "back\\slash = 1")


def write_csv(path: Path, labels: tuple[str, ...] = ("cancel", "change", "track"), rows_per_label: int = 10) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "utterance", "intent"])
        rows = [(f"please do number {number} of {label}", label) for number in range(rows_per_label) for label in labels]
        writer.writerows([(number, *row) for number, row in enumerate(rows)])
    return path


def init(folder: Path, *options: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["init", str(folder / "shop.toml"), "--json", *options])
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


def with_teacher(data: Path) -> tuple[str, ...]:
    """A folder that would do as a teacher is not asked for: a hub id is left to vLLM."""
    return ("--data", str(data), "--domain", "messages to a shop", "--teacher", "someone/teacher")


def test_one_file_becomes_three_and_the_task_file_loads(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "rows.csv")
    written = init(tmp_path, *with_teacher(data), "--describe", "cancel=stop it", "--rows-per-round", "64")
    config = load_config(tmp_path / "shop.toml")
    task = load_task(config.task, config.seed)
    assert written["rows"] == {"seed": len(task.seed), "validation": len(task.validation), "test": len(task.test)}
    assert len(task.seed) + len(task.validation) + len(task.test) == 30
    assert (config.name, config.strategy.type, config.strategy.rows_per_round) == ("shop", "hybrid", 64)
    assert (config.task.data.text_column, config.task.data.label_column) == ("utterance", "intent")
    assert [(label.name, label.description) for label in task.labels] == [("cancel", "stop it"), ("change", ""), ("track", "")]
    assert (config.student.encoder, config.student.learning_rate, config.student.min_steps) == ("minilm", 1e-4, 12)
    assert written["next"] == f"reflux run {tmp_path / 'shop.toml'}"
    assert any("2 of 3 labels have no description" in note for note in written["notes"])


def test_rows_without_any_label_are_no_task(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(f'{{"text": "row {number}", "labels": []}}\n' for number in range(20)), encoding="utf-8")
    with pytest.raises(UserError, match="no row has a label in the column 'labels'; name another column with --label-column"):
        init(tmp_path, *with_teacher(data))


@pytest.mark.parametrize(
    ("rows", "message"), [("billing", "all rows have the label 'billing'.*name another column with --label-column"), (None, "no rows")]
)
def test_rows_of_one_label_or_none_are_no_task(tmp_path: Path, rows: str | None, message: str) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("Message,Department\n" + "".join(f"number {number} of mails,{rows}\n" for number in range(9) if rows))
    with pytest.raises(UserError, match=message):
        init(tmp_path, *with_teacher(data))


def test_hostile_labels_read_back_equal(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "rows.csv", HOSTILE)
    init(tmp_path, *with_teacher(data), "--describe", f'{HOSTILE[4]}=it\'s = "this"\n[run]')
    config = load_config(tmp_path / "shop.toml")
    assert {label.name for label in config.task.labels} == set(HOSTILE)
    assert next(label for label in config.task.labels if label.name == HOSTILE[4]).description == 'it\'s = "this"\n[run]'
    assert load_task(config.task, config.seed).label_names == tuple(sorted(HOSTILE))


def test_files_of_ones_own_stay_where_they_are(tmp_path: Path) -> None:
    data, validation, test = (write_csv(tmp_path / f"{name}.csv") for name in ("a", "b", "c"))
    written = init(tmp_path, *with_teacher(data), "--validation", str(validation), "--test", str(test))
    assert (written["files"], written["rows"]) == ([], {"seed": 30, "validation": 30, "test": 30})
    assert tomllib.loads((tmp_path / "shop.toml").read_text())["task"]["data"]["validation"] == "b.csv"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv", "c.csv", "shop.toml"]


def test_what_is_there_is_written_over_only_by_force(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "rows.csv")
    init(tmp_path, *with_teacher(data))
    before = (tmp_path / "shop.toml").read_text()
    with pytest.raises(UserError, match=r"there already: .*; --force writes over that"):
        init(tmp_path, *with_teacher(data), "--method", "pgkd")
    assert (tmp_path / "shop.toml").read_text() == before
    init(tmp_path, *with_teacher(data), "--method", "pgkd", "--force")
    assert load_config(tmp_path / "shop.toml").strategy.type == "pgkd"


def test_without_a_terminal_every_missing_flag_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing: --domain, --teacher; without a terminal"):
        init(tmp_path, "--data", str(write_csv(tmp_path / "rows.csv")))


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_spreadsheet_s_own_csv_is_read(tmp_path: Path, delimiter: str) -> None:
    data = write_csv(tmp_path / "rows.csv")
    data.write_bytes(b"\xef\xbb\xbf" + data.read_bytes().replace(b",", delimiter.encode()))
    init(tmp_path, *with_teacher(data), "--validation", str(data), "--test", str(data))
    config = load_config(tmp_path / "shop.toml")
    assert (config.task.data.text_column, config.task.data.label_column) == ("utterance", "intent")
    assert {example.label for example in read_examples(data, "utterance", "intent")} == {"cancel", "change", "track"}


def spoil(data: Path, old: bytes, new: bytes) -> None:
    assert old in data.read_bytes()
    data.write_bytes(data.read_bytes().replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"id,utterance,intent\r\n", b"", "lack a first line with names"),
        (b"number 3 of track,track", b"number 3 of track, Track ", "differ by spaces or capitals alone: ' Track ', 'track'"),
        (b"number 3", b"num\xe9ro 3", "line 11 is not UTF-8"),
        (b"id,utterance", b"utterance,utterance", "is there 2 times"),
        (b"number 3 of track,", b"number 3, of track,", "line 13 has 4 columns, the header 3"),
        (b"please do number 3 of track", b"", "row 12 has no text"),
        (b",intent", b"", "line 2 has 3 columns, the header 2"),
    ],
)
def test_what_is_wrong_in_a_csv_is_said_with_its_place(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    data = write_csv(tmp_path / "rows.csv")
    spoil(data, old, new)
    with pytest.raises(UserError, match=message):
        init(tmp_path, *with_teacher(data))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--teacher", "./nowhere"), "is not a folder"),
        (("--encoder", "./nowhere"), r"student\.encoder"),
        (("--method", "magic"), "no method 'magic'"),
        (("--method", "pool"), "give them with --pool"),
        (("--describe", "zebra=striped"), "expected LABEL=TEXT"),
        (("--label-column", "id"), "different values|too few rows"),
        (("--validation", "nowhere.csv"), "no such file"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    data = write_csv(tmp_path / "rows.csv")
    with pytest.raises(UserError, match=message):
        init(tmp_path, *with_teacher(data), *options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv"]


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no server answers"):
        init(tmp_path, *with_teacher(write_csv(tmp_path / "rows.csv")), "--endpoint", "http://127.0.0.1:9/v1")


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"too few rows to split.*'cancel' has 2"):
        init(tmp_path, *with_teacher(write_csv(tmp_path / "rows.csv", rows_per_label=2)))


def test_somebody_at_a_terminal_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        *("messages to a shop", str(tmp_path / "nowhere.csv"), str(write_csv(tmp_path / "rows.csv"))),
        *("stop it", "", "where it is", "someone/teacher", "minilm", "magic", "hybrid", "none", "32"),
    ]

    def answer(_interview: Interview, _question: str, default: str | None) -> str:
        return answers.pop(0) or default or ""

    monkeypatch.setattr(Interview, "here", lambda: Interview(has_listener=True))
    monkeypatch.setattr(Interview, "_read", answer)
    result = CliRunner().invoke(app, ["init", str(tmp_path / "shop.toml")])
    assert result.exception is None, result.output
    assert not answers
    config = load_config(tmp_path / "shop.toml")
    assert [label.description for label in config.task.labels] == ["stop it", "", "where it is"]
    assert config.strategy.rows_per_round == 32


async def test_a_whole_run_from_what_init_wrote(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "rows.csv")
    init(tmp_path, "--data", str(data), "--domain", "messages", "--teacher", "scripted", "--rows-per-round", "24")
    async with ScriptedServer() as server:
        settings = {
            "teacher.endpoint": server.base_url,
            "strategy.rounds": 1,
            "gates.near_duplicates": False,
            "strategy.disagreement": "keep",
        }
        config = load_config(tmp_path / "shop.toml", settings)
        task = load_task(config.task, config.seed)
        summary = await run_loop(config, task, RunDir(tmp_path / "run"), Silent(), FAKE_STUDENT)
    assert (summary.rounds, summary.rows.requested) == (1, 24)
    assert summary.rows.accepted > 0


@pytest.mark.parametrize(
    ("header", "row", "text", "label"),
    [
        ("id,utterance,intent", "7,where is it,track", "utterance", "intent"),
        ("Label,Text", "a,some words", "Text", "Label"),
        ("a,b", "yes,some words of a text", "b", "a"),
        ("a,b", "yes,no", None, "a"),
    ],
)
def test_columns_are_guessed_by_name_then_by_content(tmp_path: Path, header: str, row: str, text: str | None, label: str | None) -> None:
    (tmp_path / "rows.csv").write_text("\n".join([header, row, row.replace("yes", "no").replace("7", "8"), row, row]) + "\n")
    guess = guess_columns(tmp_path / "rows.csv")
    assert (guess.text, guess.label) == (text, label)


@given(
    texts=st.lists(st.tuples(st.text("ab !", min_size=1), st.sampled_from(("x", "y", "z"))), min_size=1, max_size=80),
    held_out=st.lists(st.text("ab !", min_size=1), max_size=5),
    seed=st.integers(0, 3),
)
def test_a_split_loses_nothing_and_leaks_nothing(texts: list[tuple[str, str]], held_out: list[str], seed: int) -> None:
    rows = [Example(f"{text}{label}", label) for text, label in texts]
    other = [Example(f"{text}x", "x") for text in held_out]
    try:
        parts = split_rows(rows, ("seed", "validation", "test"), seed, apart_from=other)
    except UserError:
        kept = {comparable(row.text): row.label for row in rows if comparable(row.text) not in {comparable(row.text) for row in other}}
        assert min(list(kept.values()).count(label) for label in {row.label for row in rows}) < 3
        return
    assert parts == split_rows(rows, ("test", "seed", "validation"), seed, apart_from=other)
    assert sum(map(len, parts.rows.values())) + parts.num_copies == len(rows)
    spread = [comparable(row.text) for part in parts.rows.values() for row in part]
    assert len(spread) == len(set(spread))
    assert not set(spread) & {comparable(row.text) for row in other}
    for part in parts.rows.values():
        assert {row.label for row in part} == {row.label for row in rows}


def test_held_out_parts_stay_small() -> None:
    rows = [Example(f"text {number} {label}", label) for number in range(2000) for label in "ab"]
    parts = split_rows(rows, ("seed", "validation", "test"), 0)
    assert {name: len(part) for name, part in parts.rows.items()} == {
        "seed": 4000 - 4 * MOST_HELD_OUT,
        "validation": 2 * MOST_HELD_OUT,
        "test": 2 * MOST_HELD_OUT,
    }


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_text_stands_in_a_task_file_as_it_is(text: str) -> None:
    labels = (Label(text, text[::-1]), Label("other", ""))
    draft = TaskDraft("demo", 0, text, labels, {"seed": text, "validation": "v", "test": "t"}, {"model": text}, {"type": "pgkd"}, {})
    content = tomllib.loads(render_task_file(draft))
    assert content["task"]["labels"] == [{"name": text, "description": text[::-1]}, {"name": "other", "description": ""}]
    assert (content["task"]["domain"], content["task"]["data"]["seed"], content["teacher"]["model"]) == (text, text, text)


@pytest.mark.parametrize("method", METHODS)
def test_every_offered_key_runs_when_its_comment_is_taken_away(tmp_path: Path, method: str) -> None:
    draft = TaskDraft(
        "demo",
        0,
        "texts",
        (Label("a", ""), Label("b", "")),
        {"seed": "s", "validation": "v", "test": "t", "pool": "p"},
        {"model": "m"},
        {"type": method},
        {"encoder": "minilm"},
    )
    lines = render_task_file(draft).splitlines()
    shown = [line.removeprefix("# ") if line.startswith("# ") and " = " in line else line for line in lines]
    (tmp_path / "demo.toml").write_text("\n".join(shown))
    config = load_config(tmp_path / "demo.toml")
    assert config.strategy.type == method
    assert config.student.epochs == 30
    assert "max_length" in key_notes(type(config.student))


# Pairs, and several labels.


def write_pairs_csv(path: Path) -> Path:
    rows = [(f"premise {number} on {label}", f"hypothesis {number}", label) for number in range(10) for label in ("yes", "no")]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("premise", "hypothesis", "label"), *rows])
    return path


@pytest.mark.parametrize("options", [("--kind", "pair"), ("--text-pair-column", "hypothesis", "--text-column", "premise")])
def test_pairs_become_a_task_of_pairs(tmp_path: Path, options: tuple[str, ...]) -> None:
    data = write_pairs_csv(tmp_path / "rows.csv")
    written = init(tmp_path, *with_teacher(data), "--pool", str(data), *options)
    config = load_config(tmp_path / "shop.toml")
    task = load_task(config.task, config.seed)
    assert (config.task.kind, config.task.text_pair_column) == ("pair", "hypothesis")
    assert sum(written["rows"].values()) == 20
    assert all(row.text.startswith("premise") and str(row.text_pair).startswith("hypothesis") for row in (*task.seed, *task.test))
    assert task.pool is not None
    assert task.pool.text_pair_column == "hypothesis"
    assert len({row.content for part in (task.seed, task.validation, task.test) for row in part}) == 20


def test_pairs_that_share_a_text_are_different_rows(tmp_path: Path) -> None:
    rows = [("the same premise", f"hypothesis {number} {label}", label) for number in range(6) for label in ("yes", "no")]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("premise", "hypothesis", "label"), *rows, rows[0]])
    written = init(tmp_path, *with_teacher(tmp_path / "rows.csv"), "--kind", "pair")
    assert sum(written["rows"].values()) == 12
    assert any(note.startswith("1 rows were left out") for note in written["notes"])


def test_columns_that_look_like_a_pair_are_not_taken_for_one_unasked(tmp_path: Path) -> None:
    init(tmp_path, *with_teacher(write_pairs_csv(tmp_path / "rows.csv")), "--text-column", "premise")
    assert load_config(tmp_path / "shop.toml").task.kind == "classification"


def test_somebody_at_a_terminal_is_asked_whether_they_are_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(_interview: Interview, question: str, default: str | None) -> str:
        asked.append(question)
        return default or ""

    monkeypatch.setattr(Interview, "here", lambda: Interview(has_listener=True))
    monkeypatch.setattr(Interview, "_read", answer)
    result = CliRunner().invoke(app, ["init", str(tmp_path / "shop.toml"), *with_teacher(write_pairs_csv(tmp_path / "rows.csv"))])
    assert result.exception is None, result.output
    assert "Is the label of premise and hypothesis together (pair), or of one text (classification)?" in asked
    assert load_config(tmp_path / "shop.toml").task.kind == "pair"


SETS: list[list[str]] = [["news"], ["sport"], ["news", "sport"], ["news", "local"], []]


@pytest.mark.parametrize("separator", [None, ";"])
def test_rows_with_several_labels_become_such_a_task(tmp_path: Path, separator: str | None) -> None:
    rows = [(f"text {number} of {labels}", labels) for number in range(8) for labels in SETS]
    lines = [{"text": text, "labels": labels if separator is None else separator.join(labels)} for text, labels in rows]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = () if separator is None else ("--kind", "multi_label", "--label-separator", separator)
    written = init(tmp_path, *with_teacher(tmp_path / "rows.jsonl"), *options)
    config = load_config(tmp_path / "shop.toml")
    task = load_task(config.task, config.seed)
    assert config.task.kind == "multi_label"
    assert task.label_names == ("local", "news", "sport")
    assert sum(written["rows"].values()) == 40
    for part in (task.seed, task.validation, task.test):
        assert {label for row in part for label in row.labels} == {"local", "news", "sport"}
        assert () in {row.labels for row in part}
    known = {text: tuple(sorted(labels)) for text, labels in rows}
    assert all(known[row.text] == row.labels for part in (task.seed, task.validation, task.test) for row in part)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--text-pair-column", "hypothesis", "--kind", "classification"), "only pairs have a second text"),
        (("--label-separator", ";"), "only rows with several labels have one"),
        (("--kind", "pair", "--text-pair-column", "premise", "--text-column", "premise"), "cannot hold two things"),
        (("--text-column", "label", "--label-column", "label"), "the column 'label' cannot hold two things"),
        (("--kind", "pair", "--text-pair-column", "nothing"), "no column 'nothing'"),
        (("--kind", "multi_label", "--method", "eda"), "the method eda borrows words"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    data = write_pairs_csv(tmp_path / "rows.csv")
    with pytest.raises(UserError, match=message):
        init(tmp_path, *with_teacher(data), *options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv"]


label_sets = st.sets(st.sampled_from("abc")).map(lambda labels: tuple(sorted(labels)))


@given(st.lists(label_sets, min_size=1, max_size=60))
def test_a_split_of_several_labels_loses_nothing_and_leaves_the_seed_every_label(sets: list[tuple[str, ...]]) -> None:
    rows = [Example(f"text {number}", "", labels=labels) for number, labels in enumerate(sets)]
    there = Counter(label for labels in sets for label in labels)
    try:
        parts = split_rows(rows, ("seed", "validation", "test"), 1)
    except UserError:
        assert not there or min(there.values()) < 3
        return
    assert sorted(row.text for part in parts.rows.values() for row in part) == sorted(row.text for row in rows)
    rarest = {min(labels, key=lambda label: there[label]) for labels in sets if labels}
    assert rarest <= {label for row in parts.rows["seed"] for label in row.labels}
