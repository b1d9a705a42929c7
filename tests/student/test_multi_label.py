"""A task whose texts have any number of labels, from the seed to what leaves the house."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import ClientSession
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import pipeline
from typer.testing import CliRunner

from engine.cli import app
from engine.config import RunConfig, StudentConfig
from engine.errors import StoreError, UserError
from engine.records import Example
from engine.reports import Audit, FinalReport, MinedRow
from engine.rundir import RunDir, read_json
from student.backends import load_predictor
from student.export import Exported, export_student
from student.hardware import choose_hardware
from student.heads.multi_label import truth_of
from student.inference import predict
from student.kinds import MultiLabel
from student.mined import MinedLog
from student.model import load_student, new_student
from student.predictor import Predictor, score_rows
from student.row_columns import SetColumns
from student.serving import serving
from student.slices import Vocabulary
from student.trainer import train
from student.worker import work
from tests.student.builders import LABELS, finish, make_run, make_tokenizer
from tests.student.kills import killed_at
from tests.student.outcomes import reports, weights
from tests.student.set_builders import complete_set_round, make_set_run_config, make_sets, write_sets

SETTINGS: dict[str, Any] = {"update": "incremental", "weights": "continue", "optimizer": "continue", "epochs": 4, "min_steps": 12}
ROUNDS = {1: make_sets(24, 30), 2: make_sets(24, 60)}


def script(run: RunDir) -> RunDir:
    for round, rows in ROUNDS.items():
        complete_set_round(run, round, rows)
    finish(run, 2, 2)
    return run


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> RunConfig:
    return make_set_run_config(tmp_path_factory.mktemp("data"), encoder, student=SETTINGS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> RunDir:
    run = script(make_run(tmp_path_factory.mktemp("runs") / "undisturbed", config))
    work(run)
    return run


@pytest.fixture(scope="module")
def exported(undisturbed: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported") / "out"
    return export_student(undisturbed.final_student, folder, ["onnx", "onnx-int8"], [row.text for row in make_sets(24)])


def test_a_run_from_the_seed_to_the_final_report(undisturbed: RunDir) -> None:
    told = reports(undisturbed)
    assert [(report.round, report.num_train_rows) for report in told] == [(0, 16), (1, 40), (2, 64)]
    assert all(tuple(score.label for score in report.classes) == LABELS for report in told)
    assert all(score.support == 12 for score in told[0].classes)
    assert told[-1].hits.count("1") / 24 == pytest.approx(told[-1].scores.accuracy)
    assert all(report.scores.has_sets for report in told)
    final = read_json(undisturbed.final_report, FinalReport)
    assert final.after.scores.micro_f1 is not None
    assert final.after.scores.micro_f1 > 0.7
    assert final.after.scores.macro_f1 > 0.7


def test_rows_are_mined_with_their_labels(undisturbed: RunDir) -> None:
    known = {row.text: row.labels for row in (*make_sets(16), *ROUNDS[1], *ROUNDS[2])}
    mined = MinedLog(undisturbed.student / "mined", 0, 0).read(2, 1000)
    assert len(mined) > len(ROUNDS[1])
    for prediction in mined:
        assert prediction.row.labels == known[prediction.row.text]
        assert prediction.is_right == (prediction.row.labels == prediction.row.predicted_labels)
    report = reports(undisturbed)[-1]
    assert all(row.is_right for row in report.right)
    assert not any(row.is_right for row in (*report.hard, *report.wrong))


def test_no_text_of_validation_or_test_leaves(undisturbed: RunDir) -> None:
    taught = {row.text for row in (*make_sets(16), *ROUNDS[1], *ROUNDS[2])}
    written = "".join(path.read_text() for path in undisturbed.reports.iterdir())
    hidden = [row.text for row in (*make_sets(24, 100), *make_sets(24, 200)) if row.text not in taught]
    assert hidden
    assert not [text for text in hidden if json.dumps(text) in written]


def test_killed_before_a_checkpoint_it_goes_on_with_the_same_result(
    undisturbed: RunDir, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = script(make_run(tmp_path / "run", config))
    with killed_at(monkeypatch, "save_checkpoint", 2):
        work(run)
    work(run)
    assert reports(run) == reports(undisturbed)
    assert weights(run) == weights(undisturbed)
    assert load_student(run.final_student).thresholds == load_student(undisturbed.final_student).thresholds


def test_a_lost_row_cache_is_made_again(undisturbed: RunDir, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    shutil.copytree(undisturbed.root, run.root)
    paths = sorted((run.student / "rows").iterdir())
    cached = [pa.ipc.open_file(path).read_all() for path in paths]
    paths[1].unlink()
    work(run)
    assert [pa.ipc.open_file(path).read_all() for path in paths] == cached


def test_a_label_outside_the_task_is_said_so(config: RunConfig, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", config)
    complete_set_round(run, 1, [Example("the apple", "", labels=("fruit", "mineral"))])
    finish(run, 1, 1)
    with pytest.raises(StoreError, match="the label 'mineral', which is none of the task's"):
        work(run)


def test_the_audit_says_why_it_did_not_look_for_label_noise(undisturbed: RunDir) -> None:
    found = read_json(undisturbed.audit, Audit)
    assert found.noise is None
    assert "confident learning" in found.without_noise
    assert found.drift is not None
    told = CliRunner().invoke(app, ["report", str(undisturbed.root)])
    assert found.without_noise in " ".join(told.stdout.split())


def test_the_page_and_the_card_speak_of_several_labels(undisturbed: RunDir) -> None:
    card = (undisturbed.final_student / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "any number of 3 labels" in card
    assert "thresholds" in card
    page = CliRunner().invoke(app, ["report", str(undisturbed.root), "--html", "--json"])
    assert page.exit_code == 0, page.output
    assert "onfident learning" in Path(json.loads(page.stdout)["html"]).read_text()


def test_transformers_loads_what_is_published(undisturbed: RunDir) -> None:
    """Without being told, its pipeline gives a sigmoid for each label; the thresholds lie in the configuration."""
    tell = pipeline("text-classification", model=str(undisturbed.final_student), top_k=None)
    assert tell.model.config.problem_type == "multi_label_classification"
    texts = [row.text for row in make_sets(8, 300)]
    ours = Predictor.load(undisturbed.final_student, choose_hardware("cpu", "float32"))
    said = ours.predict_sets(texts)
    for text, found, guess in zip(texts, tell(texts), said, strict=True):
        scores = {one["label"]: float(one["score"]) for one in cast(list[dict[str, Any]], found)}
        expected = np.exp(ours.log_probabilities([text]))[0]
        assert [scores[label] for label in LABELS] == pytest.approx(expected.tolist(), abs=1e-4)
        chosen = zip(LABELS, tell.model.config.thresholds, strict=True)
        assert guess.labels == tuple(label for label, least in chosen if scores[label] >= least)


# What leaves the house


@pytest.mark.parametrize("backend", ["torch", "onnx", "onnx-int8"])
def test_every_backend_says_the_same_labels(backend: Any, exported: Exported) -> None:
    rows = [*make_sets(16, 300), Example("", "")]
    predictor, reference = load_predictor(Path(exported.folder), backend), load_predictor(Path(exported.folder))
    assert (predictor.labels, predictor.kind) == (LABELS, "multi_label")
    card, expected = score_rows(predictor, rows), score_rows(reference, rows)
    assert card.scores.micro_f1 == pytest.approx(expected.scores.micro_f1, abs=0.1)
    assert card.scores.num_rows == 17


def test_a_label_that_the_student_does_not_know_is_named(exported: Exported) -> None:
    with pytest.raises(UserError, match="row 1 has the label 'mineral', which the student does not know"):
        score_rows(load_predictor(Path(exported.folder), "onnx"), [Example("the apple", "", labels=("mineral",))])


def test_a_student_says_what_it_is_for(exported: Exported, trained: Path) -> None:
    with pytest.raises(UserError, match="any number of labels"):
        Predictor.load(Path(exported.folder)).predict(["the apple"])
    with pytest.raises(UserError, match="does not give a text any number"):
        Predictor.load(trained).predict_sets(["the apple"])


def _csv(path: Path) -> list[Any]:
    with path.open() as file:
        return [json.loads(row["predicted"]) for row in csv.DictReader(file)]


def _parquet(path: Path) -> list[Any]:
    return pq.read_table(path).column("predicted").to_pylist()


READERS: dict[str, Callable[[Path], list[Any]]] = {
    "jsonl": lambda path: [json.loads(line)["predicted"] for line in path.read_text().splitlines()],
    "csv": _csv,
    "parquet": _parquet,
}


@pytest.mark.parametrize("kind", READERS)
def test_the_command_line_writes_labels(kind: str, undisturbed: RunDir, tmp_path: Path) -> None:
    rows, out = make_sets(8, 300), tmp_path / f"out.{kind}"
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": row.text}) + "\n" for row in rows))
    answer = CliRunner().invoke(app, ["predict", str(undisturbed.root), str(tmp_path / "in.jsonl"), "--out", str(out), "--probabilities"])
    assert answer.exit_code == 0, answer.output
    expected = Predictor.load(undisturbed.final_student).predict_sets([row.text for row in rows])
    assert [tuple(row) for row in READERS[kind](out)] == [guess.labels for guess in expected]


def test_the_command_line_scores_and_compares_labels(undisturbed: RunDir, tmp_path: Path) -> None:
    write_sets(tmp_path / "test.jsonl", make_sets(24, 200))
    final = read_json(undisturbed.final_report, FinalReport)
    command = ["evaluate", str(undisturbed.root), str(tmp_path / "test.jsonl")]
    value = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert value["scores"]["micro_f1"] == pytest.approx(final.after.scores.micro_f1, abs=0.05)
    assert "micro F1" in CliRunner().invoke(app, command).stdout
    command = ["compare", str(undisturbed.checkpoint(0)), str(undisturbed.final_student), str(tmp_path / "test.jsonl")]
    value = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert [found["name"] for found in value["differences"]] == ["macro F1", "accuracy", "weighted F1", "micro F1"]
    assert value["differences"][0]["first"] == pytest.approx(final.before.scores.macro_f1, abs=0.05)
    assert {found["label"] for found in value["classes"]} == set(LABELS)
    assert CliRunner().invoke(app, command).exit_code == 0


async def test_a_server_answers_with_labels(exported: Exported) -> None:
    texts = [make_sets(8)[3].text, "again"]
    predictor = load_predictor(Path(exported.folder), "onnx")
    expected = Predictor.load(Path(exported.folder), choose_hardware("cpu", "float32")).predict_sets(texts)
    body = {"texts": texts, "probabilities": True}
    async with serving(predictor, host="127.0.0.1", port=0) as url, ClientSession() as session:
        response = await session.post(f"{url}/predict", json=body)
        answer = await response.json()
    assert [tuple(found["labels"]) for found in answer["predictions"]] == [guess.labels for guess in expected]
    assert set(answer["predictions"][0]["probabilities"]) == set(LABELS)


# Targets


@settings(deadline=None)  # a tokenizer is made for each
@given(st.lists(st.sets(st.sampled_from(LABELS)), max_size=6))
def test_labels_are_cached_and_come_back(chosen: list[set[str]]) -> None:
    rows = [Example("the apple", "", labels=tuple(label for label in LABELS if label in own)) for own in chosen]
    columns, tokenizer = SetColumns(LABELS), make_tokenizer()
    source = columns.stored(rows)
    encoded = columns.encode([row.text for row in rows], source, tokenizer, 0)
    assert columns.examples(pa.table({"text": [row.text for row in rows], "labels": source})) == rows
    kept = MultiLabel(LABELS).encode(tokenizer, rows)
    assert encoded.columns["label"].to_pylist() == kept.labels
    assert encoded.columns["distribution"].to_pylist() == (kept.distributions or [])
    if rows:
        targets = truth_of(kept)
        assert [tuple(label for label, has in zip(LABELS, row, strict=True) if has) for row in targets] == [row.labels for row in rows]


# Known answers


def without_tools(row: Example) -> Example:
    return replace(row, labels=tuple(label for label in row.labels if label != "tool"))


def fruit_as_beasts(row: Example) -> Example:
    said = {"beast" if label == "fruit" else label for label in row.labels}
    return replace(row, labels=tuple(label for label in LABELS if label in said))


def reviewed(kind: MultiLabel, predicted: Any, real: list[Example], rows: Any, thresholds: Any) -> tuple[Any, list[MinedRow]]:
    mined = [prediction.row for prediction in kind.mined(predicted, real, rows, 1, 48, thresholds)]
    card = kind.score(predicted, real, rows, thresholds)
    return kind.review(predicted, real, rows, card, thresholds, mined=mined, vocabulary=Vocabulary(), before=None), mined


PLANTED = [(without_tools, "class:tool"), (fruit_as_beasts, "pair:fruit>beast")]


@pytest.mark.parametrize(("broken", "name"), PLANTED)
def test_a_planted_weakness_is_the_only_thing_that_is_named(broken: Callable[[Example], Example], name: str) -> None:
    """The student says what somebody would who has learned one mistake, and nothing else wrong."""
    kind, tokenizer = MultiLabel(LABELS), make_tokenizer()
    # A fruit beside a beast is missed without anything being made up, so that such rows say nothing of the pair.
    real = [row for row in make_sets(48, 300) if not {"fruit", "beast"} <= {*row.labels}]
    rows = kind.encode(tokenizer, real)
    predicted = np.log(np.where(truth_of(kind.encode(tokenizer, [broken(row) for row in real])) > 0, 0.9, 0.1))
    found, mined = reviewed(kind, predicted, real, rows, (0.5,) * 3)
    assert [weakness.name for weakness in found.weaknesses] == [name]
    assert not found.weaknesses[0].examples[0].is_right
    assert np.array_equal(found.hits, [row.is_right for row in mined])
    if name.startswith("pair"):
        assert [(confusion.label, confusion.predicted) for confusion in found.confusions] == [("fruit", "beast")]


@pytest.mark.parametrize(("broken", "name"), PLANTED)
def test_a_planted_weakness_is_the_first_thing_that_is_named(broken: Callable[[Example], Example], name: str, encoder: Path) -> None:
    """The student is taught rows with one mistake in all of them."""
    config = StudentConfig(encoder=str(encoder), batch_size=8, epochs=30, learning_rate=2e-3, head_learning_rate=5e-2)
    hardware, kind = choose_hardware("cpu", "float32"), MultiLabel(LABELS)
    learner = new_student(config, LABELS, 0, "multi_label")
    taught = kind.encode(learner.tokenizer, [broken(row) for row in make_sets(192)])
    train(learner, taught, taught, config, hardware, 0)
    real = [row for row in make_sets(48, 300) if not {"fruit", "beast"} <= {*row.labels}]
    rows = kind.encode(learner.tokenizer, real)
    found, _ = reviewed(kind, predict(learner, rows.tokens, hardware, 8), real, rows, learner.thresholds)
    assert found.weaknesses[0].name == name
    assert not found.weaknesses[0].examples[0].is_right


def test_what_is_made_up_counts_for_itself_where_nothing_was_missed() -> None:
    kind, tokenizer = MultiLabel(LABELS), make_tokenizer()
    real = [Example("the apple", "", labels=("fruit",))] * 6 + [Example("again", "")] * 2
    said = [("fruit", "tool")] * 4 + [("fruit",)] * 2 + [()] * 2
    rows = kind.encode(tokenizer, real)
    guesses = kind.encode(tokenizer, [replace(row, labels=labels) for row, labels in zip(real, said, strict=True)])
    found, _ = reviewed(kind, np.log(np.where(truth_of(guesses) > 0, 0.9, 0.1)), real, rows, (0.5,) * 3)
    (weakness,) = found.weaknesses
    assert (weakness.name, weakness.missed, weakness.num_rows) == ("class:tool", 4, 4)
    assert found.confusions == ()


def test_a_single_label_and_no_positives_can_be_taught(encoder: Path) -> None:
    """One label is a task too; one that no row has is never said."""
    config = StudentConfig(encoder=str(encoder), batch_size=8, epochs=2, learning_rate=2e-3, class_weights="balanced")
    kind = MultiLabel(("fruit",))
    learner = new_student(config, ("fruit",), 0, "multi_label")
    rows = [Example("the apple", "", labels=("fruit",)), Example("the saw", "")] * 4
    encoded = kind.encode(learner.tokenizer, rows)
    train(learner, encoded, encoded, config, choose_hardware("cpu", "float32"), 0)
    card = kind.score(predict(learner, encoded.tokens, choose_hardware("cpu", "float32"), 8), rows, encoded, learner.thresholds)
    assert 0 <= card.scores.macro_f1 <= 1
    none = [Example("the apple", "")] * 4
    encoded = kind.encode(learner.tokenizer, none)
    train(learner, encoded, encoded, config, choose_hardware("cpu", "float32"), 0)
    card = kind.score(predict(learner, encoded.tokens, choose_hardware("cpu", "float32"), 8), none, encoded, learner.thresholds)
    assert card.scores.macro_f1 == 0.0
    assert learner.thresholds == (0.5,)
