"""A task that marks spans, from the seed to what leaves the house."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from aiohttp import ClientSession
from transformers import pipeline
from typer.testing import CliRunner

from engine.cli import app
from engine.config import RunConfig, StudentConfig
from engine.errors import StoreError, UserError
from engine.records import Example, Span
from engine.reports import Audit, FinalReport, WeaknessReport
from engine.rundir import RunDir, read_json
from student.backends import load_predictor
from student.bio import tag_names
from student.export import Exported, export_student
from student.hardware import choose_hardware
from student.heads import HEADS
from student.inference import predict
from student.kinds import Ner
from student.mined import MinedLog
from student.model import new_student
from student.predictor import Predictor, score_rows
from student.serving import serving
from student.slices import Vocabulary
from student.trainer import train
from student.worker import work
from tests.student.builders import LABELS, finish, make_run, make_tokenizer
from tests.student.kills import killed_at
from tests.student.outcomes import reports, weights
from tests.student.span_builders import complete_marked_round, make_marked, make_span_config, mark, write_marked

SETTINGS: dict[str, Any] = {"update": "incremental", "weights": "continue", "optimizer": "continue", "epochs": 2, "min_steps": 12}
ROUNDS = {1: make_marked(12, 30), 2: make_marked(12, 50)}


def script(run: RunDir) -> RunDir:
    for round, rows in ROUNDS.items():
        complete_marked_round(run, round, rows)
    finish(run, 2, 2)
    return run


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> RunConfig:
    return make_span_config(tmp_path_factory.mktemp("data"), encoder, student=SETTINGS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> RunDir:
    run = script(make_run(tmp_path_factory.mktemp("runs") / "undisturbed", config))
    work(run)
    return run


@pytest.fixture(scope="module")
def exported(undisturbed: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported") / "out"
    return export_student(undisturbed.final_student, folder, ["onnx", "onnx-int8"], [row.text for row in make_marked(12)])


def test_a_run_from_the_seed_to_the_final_report(undisturbed: RunDir) -> None:
    told = reports(undisturbed)
    assert [(report.round, report.num_train_rows) for report in told] == [(0, 6), (1, 18), (2, 30)]
    assert all(tuple(score.label for score in report.classes) == LABELS for report in told)
    assert told[-1].scores.macro_f1 > told[0].scores.macro_f1
    assert told[-1].hits.count("1") / 18 == pytest.approx(told[-1].scores.accuracy)
    assert {weakness.name.split(":")[0] for report in told for weakness in report.weaknesses} <= {"type", "boundary", "pair"}
    assert {found.name.split(":")[0] for found in told[0].slices} > {"entity"}
    final = read_json(undisturbed.final_report, FinalReport)
    assert final.after.scores.micro_f1 is not None
    assert final.after.scores.micro_f1 > 0.5


def test_rows_are_mined_with_their_spans(undisturbed: RunDir) -> None:
    known = {row.text: row.spans for row in (*make_marked(6), *ROUNDS[1], *ROUNDS[2])}
    mined = MinedLog(undisturbed.student / "mined", 0, 0).read(2, 1000)
    assert len(mined) > len(ROUNDS[1])
    for prediction in mined:
        assert prediction.row.spans == known[prediction.row.text]
        assert prediction.is_right == (prediction.row.spans == prediction.row.predicted_spans)
        assert (prediction.own >= prediction.row.confidence - 1e-6) or not prediction.is_right
    report = reports(undisturbed)[-1]
    assert all(row.is_right for row in report.right)
    assert not any(row.is_right for row in (*report.hard, *report.wrong))


def test_no_text_of_validation_or_test_leaves(undisturbed: RunDir) -> None:
    taught = {row.text for row in (*make_marked(6), *ROUNDS[1], *ROUNDS[2])}
    written = "".join(path.read_text() for path in undisturbed.reports.iterdir())
    hidden = [row.text for row in (*make_marked(18, 100), *make_marked(18, 200)) if row.text not in taught]
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


def test_a_lost_row_cache_is_made_again(undisturbed: RunDir, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    shutil.copytree(undisturbed.root, run.root)
    paths = sorted((run.student / "rows").iterdir())
    cached = [pa.ipc.open_file(path).read_all() for path in paths]
    paths[1].unlink()
    work(run)
    assert [pa.ipc.open_file(path).read_all() for path in paths] == cached


def test_a_type_outside_the_task_is_said_so(config: RunConfig, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", config)
    complete_marked_round(run, 1, [mark("the apple", ("apple", "mineral"))])
    finish(run, 1, 1)
    with pytest.raises(StoreError, match="the type 'mineral', which is none of the task's"):
        work(run)


def test_entities_that_are_cut_are_counted_once(config: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path / "run", config)
    long = "the " * 60 + "apple"
    complete_marked_round(run, 1, [mark(long, ("apple", "fruit")), mark("the apple", ("ppl", "fruit"))])
    finish(run, 1, 1)
    work(run)
    assert caplog.text.count("entities beyond the 48 tokens where texts are cut, which count as missed: 1") == 1
    assert caplog.text.count("cannot mark them exactly: 1, such as ppl (fruit)") == 1


def test_the_training_rows_are_audited_at_the_end(undisturbed: RunDir) -> None:
    found = read_json(undisturbed.audit, Audit)
    assert found.noise is not None
    assert found.noise.classes == ()
    assert found.drift is not None
    assert {drift.label for drift in found.drift.classes} == set(LABELS)


def test_the_page_and_the_card_speak_of_entities(undisturbed: RunDir) -> None:
    card = (undisturbed.final_student / "README.md").read_text()
    assert "pipeline_tag: token-classification" in card
    assert "| micro F1 |" in card
    assert "seqeval" in card
    page = CliRunner().invoke(app, ["report", str(undisturbed.root)])
    assert page.exit_code == 0, page.exception


def test_transformers_loads_what_is_published(undisturbed: RunDir) -> None:
    """And says the same of every token; which tags may follow each other it does not look at."""
    tell = pipeline("token-classification", model=str(undisturbed.final_student), ignore_labels=[])
    text = make_marked(1)[0].text
    ours = Predictor.load(undisturbed.final_student, choose_hardware("cpu", "float32")).log_probabilities([text])[1:-1]
    theirs = tell(text)
    assert [found["entity"] for found in theirs] == [tag_names(LABELS)[tag] for tag in ours.argmax(axis=1)]
    assert [float(found["score"]) for found in theirs] == pytest.approx(np.exp(ours.max(axis=1)), abs=1e-4)


# What leaves the house


@pytest.mark.parametrize("backend", ["torch", "onnx", "onnx-int8"])
def test_every_backend_marks_the_same_spans(backend: Any, exported: Exported) -> None:
    rows = make_marked(12, 300)
    predictor = load_predictor(Path(exported.folder), backend)
    assert (predictor.labels, predictor.kind) == (LABELS, "ner")
    card = score_rows(predictor, [*rows, Example("", "")])
    reference = score_rows(load_predictor(Path(exported.folder)), [*rows, Example("", "")])
    assert card.scores.accuracy == pytest.approx(reference.scores.accuracy, abs=0.1)
    assert card.scores.num_rows == 13


def test_a_type_that_the_student_does_not_know_is_named(exported: Exported) -> None:
    with pytest.raises(UserError, match="row 1 has the type 'mineral', which the student does not know"):
        score_rows(load_predictor(Path(exported.folder), "onnx"), [mark("the apple", ("apple", "mineral"))])


def test_a_student_says_what_it_is_for(exported: Exported, trained: Path) -> None:
    with pytest.raises(UserError, match="marks spans"):
        Predictor.load(Path(exported.folder)).predict(["the apple"])
    with pytest.raises(UserError, match="marks no spans"):
        Predictor.load(trained).predict_spans(["the apple"])


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_the_command_line_writes_spans(kind: str, undisturbed: RunDir, tmp_path: Path) -> None:
    rows = make_marked(3, 300)
    write_marked(tmp_path / "in.jsonl", rows)
    out = tmp_path / f"out.{kind}"
    if kind == "csv":
        (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": row.text}) + "\n" for row in rows))
    answer = CliRunner().invoke(app, ["predict", str(undisturbed.root), str(tmp_path / "in.jsonl"), "--out", str(out)])
    assert answer.exit_code == 0, answer.output
    expected = Predictor.load(undisturbed.final_student).predict_spans([row.text for row in rows])
    assert [[Span(span["start"], span["end"], span["type"]) for span in row] for row in READERS[kind](out)] == [
        [span.span for span in guess.spans] for guess in expected
    ]


def read_parquet(path: Path) -> list[Any]:
    import pyarrow.parquet as pq

    return pq.read_table(path).column("predicted").to_pylist()


def read_csv(path: Path) -> list[Any]:
    import csv

    with path.open() as file:
        return [json.loads(row["predicted"]) for row in csv.DictReader(file)]


READERS: dict[str, Callable[[Path], list[Any]]] = {
    "jsonl": lambda path: [json.loads(line)["predicted"] for line in path.read_text().splitlines()],
    "csv": read_csv,
    "parquet": read_parquet,
}


def test_the_command_line_scores_spans(undisturbed: RunDir, tmp_path: Path) -> None:
    write_marked(tmp_path / "test.jsonl", make_marked(18, 200))
    command = ["evaluate", str(undisturbed.root), str(tmp_path / "test.jsonl")]
    value = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    final = read_json(undisturbed.final_report, FinalReport)
    assert value["scores"]["micro_f1"] == pytest.approx(final.after.scores.micro_f1, abs=0.05)
    assert "micro F1" in CliRunner().invoke(app, command).stdout
    refused = CliRunner().invoke(app, ["predict", str(undisturbed.root), str(tmp_path / "test.jsonl"), "--probabilities"])
    assert isinstance(refused.exception, UserError)


def test_two_students_are_compared_by_spans(undisturbed: RunDir, tmp_path: Path) -> None:
    write_marked(tmp_path / "test.jsonl", make_marked(18, 200))
    before, after = undisturbed.checkpoint(0), undisturbed.final_student
    command = ["compare", str(before), str(after), str(tmp_path / "test.jsonl")]
    value = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    scores = [found["name"] for found in value["differences"]]
    assert scores == ["macro F1", "accuracy", "weighted F1", "micro F1"]
    final = read_json(undisturbed.final_report, FinalReport)
    assert value["differences"][0]["first"] == pytest.approx(final.before.scores.macro_f1, abs=0.05)
    assert value["differences"][0]["interval"]["low"] <= value["differences"][0]["second"] - value["differences"][0]["first"]
    assert {found["label"] for found in value["classes"]} == set(LABELS)
    assert CliRunner().invoke(app, command).exit_code == 0


async def test_a_server_answers_with_spans(exported: Exported) -> None:
    row = make_marked(1)[0]
    predictor = load_predictor(Path(exported.folder), "onnx")
    (expected,) = Predictor.load(Path(exported.folder), choose_hardware("cpu", "float32")).predict_spans([row.text])
    async with serving(predictor, host="127.0.0.1", port=0) as url, ClientSession() as session:
        async with session.post(f"{url}/predict", json={"texts": [row.text, "again"]}) as response:
            answer = await response.json()
        async with session.post(f"{url}/predict", json={"texts": ["x"], "probabilities": True}) as response:
            assert response.status == 400
    first, _ = answer["predictions"]
    assert [(span["start"], span["end"], span["type"]) for span in first["spans"]] == [span[:3] for span in expected.spans]
    assert first["confidence"] == pytest.approx(expected.confidence, abs=1e-3)


# Known answers


def first_word_only(row: Example) -> Example:
    spans = (replace(span, end=span.start + len(row.text[span.start : span.end].split()[0])) for span in row.spans if span.type == "tool")
    return replace(row, spans=tuple(sorted({*spans, *(span for span in row.spans if span.type != "tool")}, key=lambda span: span.start)))


def as_beasts(row: Example) -> Example:
    return replace(row, spans=tuple(replace(span, type="beast") if span.type == "fruit" else span for span in row.spans))


def without_tools(row: Example) -> Example:
    return replace(row, spans=tuple(span for span in row.spans if span.type != "tool"))


@pytest.mark.parametrize(
    ("broken", "name"),
    [(first_word_only, "boundary:tool"), (as_beasts, "pair:fruit>beast"), (without_tools, "type:tool")],
)
def test_a_planted_weakness_is_the_only_thing_that_is_named(broken: Callable[[Example], Example], name: str) -> None:
    """The student says what somebody would who has learned one mistake, and nothing else wrong."""
    kind, tokenizer, real = Ner(LABELS), make_tokenizer(), make_marked(24, 300)
    rows, said = kind.encode(tokenizer, real), kind.encode(tokenizer, [broken(row) for row in real])
    tags = HEADS["ner"].truth(said)
    predicted = np.full((len(tags), 1 + 2 * len(LABELS)), -9.0)
    predicted[np.arange(len(tags)), np.maximum(tags, 0)] = -0.1
    mined = [prediction.row for prediction in kind.mined(predicted, real, rows, 1, 48)]
    card = kind.score(predicted, real, rows)
    found = kind.review(predicted, real, rows, card, mined=mined, vocabulary=Vocabulary(), before=None)
    assert [weakness.name for weakness in found.weaknesses] == [name]
    assert not found.weaknesses[0].examples[0].is_right
    assert np.array_equal(found.hits, [row.is_right for row in mined])


@pytest.mark.parametrize(("broken", "name"), [(as_beasts, "pair:fruit>beast"), (without_tools, "type:tool")])
def test_a_planted_weakness_is_the_first_thing_that_is_named(broken: Callable[[Example], Example], name: str, encoder: Path) -> None:
    """The student is taught rows with one mistake in all of them."""
    config = StudentConfig(encoder=str(encoder), batch_size=8, epochs=6, learning_rate=2e-3, head_learning_rate=5e-2)
    hardware, kind = choose_hardware("cpu", "float32"), Ner(LABELS)
    learner = new_student(config, LABELS, 0, "ner")
    taught = kind.encode(learner.tokenizer, [broken(row) for row in make_marked(48)])
    train(learner, taught, taught, config, hardware, 0)
    real = make_marked(24, 300)
    rows, vocabulary = kind.encode(learner.tokenizer, real), Vocabulary()
    kind.meet(vocabulary, taught)
    said = predict(learner, rows.tokens, hardware, 8)
    mined = [prediction.row for prediction in kind.mined(said, real, rows, 1, 48)]
    found = kind.review(said, real, rows, kind.score(said, real, rows), mined=mined, vocabulary=vocabulary, before=None)
    assert found.weaknesses[0].name == name
    assert not found.weaknesses[0].examples[0].is_right
    assert np.array_equal(found.hits, [row.is_right for row in mined])


def test_reports_can_be_read_back(undisturbed: RunDir) -> None:
    report = read_json(undisturbed.report(0), WeaknessReport)
    mined = next(row for row in (*report.hard, *report.wrong, *report.right) if row.spans)
    assert isinstance(mined.spans[0], Span)
