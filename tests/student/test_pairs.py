"""A task whose rows are pairs of texts, from the seed to what leaves the house."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from aiohttp import ClientSession
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime import InferenceSession
from transformers import AutoTokenizer, pipeline
from typer.testing import CliRunner

from engine.cli import app
from engine.config import RunConfig, StudentConfig
from engine.errors import UserError
from engine.records import Example
from engine.reports import Audit, FinalReport
from engine.rundir import RunDir, read_json
from student.audit import find_copies
from student.backends import load_predictor
from student.data import collate, tokenise_counting
from student.export import Exported, export_student
from student.hardware import choose_hardware
from student.kinds import kind_of
from student.mined import MinedLog
from student.model import load_student, new_student
from student.predictor import Predictor, score_rows
from student.row_reader import read_lines
from student.rowcache import RowCache
from student.serving import serving
from student.trainer import train
from student.worker import work
from tests.student.builders import finish, make_run, make_tokenizer
from tests.student.kills import killed_at
from tests.student.outcomes import reports, weights
from tests.student.pair_builders import PAIR_LABELS, complete_pair_round, make_pair_run_config, make_pairs, write_pairs

SETTINGS: dict[str, Any] = {"update": "incremental", "weights": "continue", "optimizer": "continue", "epochs": 16, "min_steps": 12}
ROUNDS = {1: make_pairs(48, 30), 2: make_pairs(48, 90)}


def script(run: RunDir) -> RunDir:
    for round, rows in ROUNDS.items():
        complete_pair_round(run, round, rows)
    finish(run, 2, 2)
    return run


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> RunConfig:
    return make_pair_run_config(tmp_path_factory.mktemp("data"), encoder, student=SETTINGS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> RunDir:
    run = script(make_run(tmp_path_factory.mktemp("runs") / "undisturbed", config))
    work(run)
    return run


@pytest.fixture(scope="module")
def exported(undisturbed: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported") / "out"
    return export_student(undisturbed.final_student, folder, ["onnx", "onnx-int8"], [row.content for row in make_pairs(24)])


def test_a_run_from_the_seed_to_the_final_report_learns_which_text_is_which(undisturbed: RunDir) -> None:
    told = reports(undisturbed)
    assert [(report.round, report.num_train_rows) for report in told] == [(0, 24), (1, 72), (2, 120)]
    assert all(tuple(score.label for score in report.classes) == PAIR_LABELS for report in told)
    assert read_json(undisturbed.final_report, FinalReport).after.scores.macro_f1 > 0.9


def test_rows_are_mined_with_both_texts(undisturbed: RunDir) -> None:
    known = {row.content: row.label for row in (*make_pairs(24), *ROUNDS[1], *ROUNDS[2])}
    mined = MinedLog(undisturbed.student / "mined", 0, 0).read(2, 1000)
    assert len(mined) > len(ROUNDS[1])
    assert all(known[prediction.row.content] == prediction.row.label for prediction in mined)
    for report in reports(undisturbed):
        assert {row.content for row in (*report.right, *report.wrong, *report.hard)} <= {*known}
        assert all(row.content in known for weakness in report.weaknesses for row in weakness.examples)


def test_killed_before_a_checkpoint_it_goes_on_with_the_same_result(
    undisturbed: RunDir, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = script(make_run(tmp_path / "run", config))
    with killed_at(monkeypatch, "save_checkpoint", 2):
        work(run)
    shutil.rmtree(run.student / "rows")
    work(run)
    assert reports(run) == reports(undisturbed)
    assert weights(run) == weights(undisturbed)


def test_the_audit_and_the_card_know_of_pairs(undisturbed: RunDir) -> None:
    audit = read_json(undisturbed.audit, Audit)
    assert audit.noise is not None
    assert audit.drift is not None
    card = (undisturbed.final_student / "README.md").read_text()
    assert "text_pair" in card
    assert "A classifier of pairs of texts (things) into 3 labels" in card


def test_a_copy_is_alike_in_both_texts() -> None:
    long, other = "a long premise that stands in many rows of the same table " * 3, "one more hypothesis"
    seed = [Example(long, "first", text_pair="something is said here")]
    rows = [Example(long, "first", text_pair=other), Example(long, "first", text_pair="something was said here")]
    found = find_copies(seed, rows, 0.7, 1)
    assert found is not None
    assert found.of_seed == 1
    assert found.examples[0].original == f"{long} │ something is said here"


# What the network reads


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_both_texts_are_read_whatever_their_lengths(first: int, second: int) -> None:
    tokenizer = make_tokenizer()
    tokens, num_cut, _, firsts = tokenise_counting(tokenizer, [("apple " * first, "wolf " * second)])
    room = tokenizer.model_max_length - 3
    kept = min(first, max(room - second, room // 2 + room % 2)), min(second, max(room - first, room // 2 + room % 2))
    assert len(tokens[0]) == 3 + min(first + second, room)
    assert num_cut == (first + second > room)
    in_first = firsts[0] - 2
    assert in_first <= kept[0]
    assert len(tokens[0]) - firsts[0] - 1 <= kept[1]
    # The shorter text is cut only where both are longer than half.
    if min(first, second) <= room // 2:
        assert min(first, second) in (in_first, len(tokens[0]) - firsts[0] - 1)


def test_a_batch_says_which_tokens_are_of_which_text() -> None:
    tokens, _, _, firsts = tokenise_counting(make_tokenizer(), [("apple", "wolf bear"), ("apple pear plum", "")])
    batch = collate(tokens, 0, torch.device("cpu"), firsts)
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1]]
    assert batch["attention_mask"].tolist() == [[1] * 6] * 2
    batch = collate([[2, 7, 3, 8, 3], [2, 3, 3]], 0, torch.device("cpu"), [3, 2])
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 0, 0]]


def test_tokens_are_those_that_transformers_makes_of_pairs(undisturbed: RunDir, tmp_path: Path) -> None:
    rows = make_pairs(9)
    tokenizer = AutoTokenizer.from_pretrained(undisturbed.final_student)
    expected = tokenizer([row.text for row in rows], [str(row.text_pair) for row in rows], truncation=True)
    cache = RowCache(tmp_path / "rows", load_student(undisturbed.final_student).tokenizer, PAIR_LABELS, "pair", tells_apart=True)
    cache.add_seed(rows)
    kept = cache.rows(range(9))
    assert [list(tokens) for tokens in kept.tokens] == expected["input_ids"]
    assert kept.firsts is not None
    padded = collate(kept.tokens, 0, torch.device("cpu"), kept.firsts)["token_type_ids"]
    assert [row[: len(types)] for row, types in zip(padded.tolist(), expected["token_type_ids"], strict=True)] == expected["token_type_ids"]
    assert cache.examples(range(9)) == rows


def test_an_encoder_without_types_reads_pairs_too(encoder: Path, tmp_path: Path) -> None:
    """As RoBERTa: it knows the texts by the tokens between them, and by their places."""
    folder = tmp_path / "encoder"
    shutil.copytree(encoder, folder)
    learner = new_student(StudentConfig(encoder=str(folder)), PAIR_LABELS, 0, "pair")
    assert learner.tells_apart
    learner.model.config.type_vocab_size = 1
    assert not learner.tells_apart
    kind, rows = kind_of("pair", PAIR_LABELS), make_pairs(48)
    encoded = kind.encode(learner.tokenizer, rows).without_firsts()
    config = StudentConfig(encoder=str(folder), batch_size=8, epochs=2, learning_rate=2e-3, head_learning_rate=5e-2)
    train(learner, encoded, encoded, config, choose_hardware("cpu", "float32"), 0)
    predictor = Predictor(learner, choose_hardware("cpu", "float32"))
    assert len(predictor.predict([row.content for row in rows])) == 48


# At work


def test_a_pair_s_order_counts(undisturbed: RunDir) -> None:
    predictor = Predictor.load(undisturbed.final_student, choose_hardware("cpu", "float32"))
    assert predictor.kind == "pair"
    said = predictor.predict([("the apple", "a saw again"), ("the saw", "a apple again")])
    assert [found.label for found in said] == ["first", "second"]


def test_texts_are_no_pairs_and_pairs_no_texts(undisturbed: RunDir) -> None:
    predictor = Predictor.load(undisturbed.final_student)
    with pytest.raises(UserError, match="gives a label to two texts together; expected pairs"):
        predictor.predict(["the apple"])
    assert predictor.predict([]) == []


def test_transformers_alone_says_the_same(undisturbed: RunDir) -> None:
    rows = make_pairs(12, 600)
    classify = pipeline("text-classification", model=str(undisturbed.final_student), device="cpu")
    theirs = cast(Any, classify)([{"text": row.text, "text_pair": row.text_pair} for row in rows], truncation=True)
    ours = Predictor.load(undisturbed.final_student, choose_hardware("cpu", "float32")).predict([row.content for row in rows])
    assert [found["label"] for found in theirs] == [found.label for found in ours]
    assert np.allclose([found["score"] for found in theirs], [found.confidence for found in ours], atol=1e-4)


def test_graphs_are_told_the_types_and_say_the_same(exported: Exported, undisturbed: RunDir) -> None:
    folder = Path(exported.folder)
    names = {found.name for found in InferenceSession(str(folder / "onnx/model.onnx")).get_inputs()}
    assert names == {"input_ids", "attention_mask", "token_type_ids"}
    rows = make_pairs(24, 600)
    here, there = Predictor.load(undisturbed.final_student, choose_hardware("cpu", "float32")), load_predictor(folder, "onnx")
    contents = [row.content for row in rows]
    assert there.kind == "pair"
    assert np.allclose(here.predict_texts(contents).log_probabilities, there.predict_texts(contents).log_probabilities, atol=1e-3)
    assert score_rows(there, rows).scores == score_rows(here, rows).scores
    long = [("apple " * 300, "saw " * 300)]
    assert here.predict_texts(long).num_cut == there.predict_texts(long).num_cut == 1
    with pytest.raises(UserError, match="expected pairs"):
        there.predict_texts(["a text"])


def _csv(path: Path) -> list[Any]:
    with path.open() as file:
        return [row["predicted"] for row in csv.DictReader(file)]


def _parquet(path: Path) -> list[Any]:
    return pq.read_table(path).column("predicted").to_pylist()


READERS: dict[str, Callable[[Path], list[Any]]] = {
    "jsonl": lambda path: [json.loads(line)["predicted"] for line in path.read_text().splitlines()],
    "csv": _csv,
    "parquet": _parquet,
}


@pytest.mark.parametrize("kind", READERS)
def test_the_command_line_labels_pairs(kind: str, undisturbed: RunDir, tmp_path: Path) -> None:
    rows, source, out = make_pairs(9, 600), tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    columns = {"question": [row.text for row in rows], "answer": [row.text_pair for row in rows]}
    if kind == "jsonl":
        source.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in zip(*columns.values(), strict=True)))
    elif kind == "csv":
        lines = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
        source.write_text("\n".join(["question,answer", *lines]))
    else:
        pq.write_table(pa.table(columns), source)
    command = ["predict", str(undisturbed.root), str(source), "--out", str(out), "--text-column", "question"]
    answer = CliRunner().invoke(app, [*command, "--text-pair-column", "answer"])
    assert answer.exit_code == 0, answer.output
    expected = Predictor.load(undisturbed.final_student).predict([row.content for row in rows])
    assert READERS[kind](out) == [found.label for found in expected]
    if kind != "jsonl":
        assert "no column 'text_pair'" in str(CliRunner().invoke(app, command).exception)


def test_rows_that_lack_a_text_say_so(undisturbed: RunDir, tmp_path: Path) -> None:
    lines = [{"text": "the apple", "text_pair": "a saw"}, {"text": "the apple"}, {"text": "the apple", "text_pair": 3}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    answer = CliRunner().invoke(app, ["predict", str(undisturbed.root), str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")])
    assert answer.exit_code == 0, answer.output
    told = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row.get("problem") for row in told] == [
        None,
        "line 2: 'text_pair' has no text, expected a string",
        "line 3: 'text_pair' is int, expected a string",
    ]


def test_a_second_column_is_only_for_pairs(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "the apple"}\n')
    answer = CliRunner().invoke(app, ["predict", str(trained), str(tmp_path / "in.jsonl"), "--text-pair-column", "answer"])
    assert "--text-pair-column answer: this student reads one text at a time" in str(answer.exception)


def test_a_pair_a_line_has_a_tab_between_its_texts() -> None:
    (chunk,) = read_lines([[b"the apple\ta saw\n", b"one text\n"]], "text", "text_pair")
    assert chunk.texts == [("the apple", "a saw"), ("one text", "")]
    assert chunk.problems == {1: "line 2: one text, expected a pair with a tab between its texts"}


def test_the_command_line_scores_and_compares_pairs(undisturbed: RunDir, tmp_path: Path) -> None:
    write_pairs(tmp_path / "test.jsonl", make_pairs(24, 600))
    final = read_json(undisturbed.final_report, FinalReport)
    value = json.loads(CliRunner().invoke(app, ["evaluate", str(undisturbed.root), str(tmp_path / "test.jsonl"), "--json"]).stdout)
    assert value["scores"]["macro_f1"] == pytest.approx(final.after.scores.macro_f1, abs=0.05)
    command = ["compare", str(undisturbed.checkpoint(0)), str(undisturbed.final_student), str(tmp_path / "test.jsonl")]
    value = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert value["differences"][0]["first"] == pytest.approx(final.before.scores.macro_f1, abs=0.05)
    assert all(" │ " in row["text"] for row in (*value["gained"], *value["lost"]))


async def test_a_server_answers_pairs(exported: Exported) -> None:
    pairs = [row.content for row in make_pairs(3)]
    predictor = load_predictor(Path(exported.folder), "onnx")
    async with serving(predictor, host="127.0.0.1", port=0) as url, ClientSession() as session:
        response = await session.post(f"{url}/predict", json={"texts": pairs})
        answer = await response.json()
        assert [found["label"] for found in answer["predictions"]] == [found[0] for found in predictor.predict_texts(pairs).best()]
        response = await session.post(f"{url}/predict", json={"texts": ["one text"]})
        assert response.status == 400
        assert 'expected {"texts": [["…", "…"], …]}' in (await response.json())["error"]
