from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from typer.testing import CliRunner

import student.diagnosis
import student.trainer
import student.worker
from engine.cli import app
from engine.config import RunConfig, change_config
from engine.errors import StoreError, UserError
from engine.records import Finish, Rejection, RejectionReason
from engine.reports import Audit, FinalReport
from engine.rundir import RunDir, read_json, write_json
from engine.runs.manifest import Manifest
from engine.runs.summary import summarize
from engine.store import connect, read_rounds
from engine.store.schemas import pack_rejections
from engine.store.segments import write_segment
from student.checkpoint import checkpoint_rounds, load_checkpoint
from student.data import Rows, tokenise
from student.mined import MinedLog
from student.rounds import completed_rounds
from student.trainer import Training
from student.worker import derive_seed, work
from tests.student.builders import LABELS, complete_round, finish, make_config, make_rows, make_run, make_sample, make_tokenizer
from tests.student.kills import KilledError, killed_at
from tests.student.outcomes import reports, weights

ROUNDS = {1: make_rows(2, 10), 2: make_rows(3, 20), 3: make_rows(1, 30)}


def script(run: RunDir, rounds: int = 3, best_round: int = 2) -> RunDir:
    """All rounds are there from the start, as for a student that was away while the engine went on."""
    for round in range(1, rounds + 1):
        complete_round(run, round, ROUNDS[round])
    finish(run, best_round, rounds)
    return run


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, sentence_encoder: Path) -> RunConfig:
    return make_config(tmp_path_factory.mktemp("data"), sentence_encoder, student={"epochs": 2, "min_steps": 3})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> RunDir:
    run = script(make_run(tmp_path_factory.mktemp("runs") / "undisturbed", config))
    work(run)
    return run


def test_a_run_from_the_seed_to_the_final_report(undisturbed: RunDir) -> None:
    assert [(report.round, report.num_train_rows) for report in reports(undisturbed)] == [(0, 6), (1, 12), (2, 21), (3, 24)]
    final = read_json(undisturbed.final_report, FinalReport)
    assert (final.before.round, final.after.round) == (0, 2)
    assert final.after.scores.num_rows == 18
    assert final.precision == "float32"
    splits = connect(undisturbed).execute("select round, split, num_train_rows from evaluations order by 2 desc, 1").fetchall()
    assert splits == [
        (0, "validation", 6),
        (1, "validation", 12),
        (2, "validation", 21),
        (3, "validation", 24),
        (0, "test", 6),
        (2, "test", 21),
    ]


def test_the_final_student_is_the_one_of_the_best_round(undisturbed: RunDir) -> None:
    final = undisturbed.final_student
    assert (final / "model.safetensors").read_bytes() == (undisturbed.checkpoint(2) / "model.safetensors").read_bytes()
    assert not (final / "state.json").exists()


@pytest.fixture(scope="module")
def incremental(tmp_path_factory: pytest.TempPathFactory, sentence_encoder: Path) -> RunConfig:
    settings = {"update": "incremental", "weights": "continue", "optimizer": "continue", "epochs": 2, "min_steps": 3}
    return make_config(tmp_path_factory.mktemp("incremental"), sentence_encoder, student=settings)


@pytest.fixture(scope="module")
def undisturbed_updates(tmp_path_factory: pytest.TempPathFactory, incremental: RunConfig) -> RunDir:
    run = script(make_run(tmp_path_factory.mktemp("runs") / "updates", incremental))
    work(run)
    return run


@pytest.mark.parametrize(
    ("function", "calls", "after"),
    [
        ("save_checkpoint", 1, False),
        ("save_checkpoint", 3, True),
        ("append_evaluation", 2, True),
        ("write_json", 4, True),
        ("append_evaluation", 5, True),
        ("publish", 1, True),
    ],
)
def test_killed_between_two_steps_it_goes_on_with_the_same_result(
    function: str, calls: int, after: bool, undisturbed: RunDir, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = script(make_run(tmp_path / "run", config))
    with killed_at(monkeypatch, function, calls, after=after):
        work(run)
    work(run)
    assert reports(run) == reports(undisturbed)
    assert weights(run) == weights(undisturbed)


def test_a_checkpoint_without_its_report_is_not_trained_again(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = script(make_run(tmp_path / "run", config), rounds=1, best_round=1)
    work(run)
    before = reports(run)
    run.report(1).unlink()
    run.final_report.unlink()
    monkeypatch.setattr(student.worker, "train", None)
    work(run)
    assert reports(run) == before


def test_killed_hard_in_an_update_it_goes_on_with_the_same_result(
    undisturbed_updates: RunDir, incremental: RunConfig, tmp_path: Path
) -> None:
    run = script(make_run(tmp_path / "run", incremental))
    command = [sys.executable, "-m", "student", str(run.root)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}) as worker:
        while not run.report(1).exists():
            assert worker.poll() is None
            time.sleep(0.002)  # not to synchronise, but to kill at a moment that nobody chose
        os.kill(worker.pid, signal.SIGKILL)
    assert not run.final_report.exists()
    work(run)
    assert reports(run) == reports(undisturbed_updates)
    assert weights(run) == weights(undisturbed_updates)


@pytest.mark.parametrize("step", [1, 9])
def test_killed_in_the_middle_of_an_update_it_comes_out_the_same_to_the_bit(
    step: int, undisturbed_updates: RunDir, incremental: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = script(make_run(tmp_path / "run", incremental))
    original, count = student.trainer._Epochs._compute, 0  # pyright: ignore[reportPrivateUsage]

    def killing(self: Any, rows: Any, batch: Any) -> Any:
        nonlocal count
        count += run.checkpoint(0).exists()  # steps of updates, not of the seed
        if count == step:
            raise KilledError
        return original(self, rows, batch)

    with monkeypatch.context() as patch:
        patch.setattr(student.trainer._Epochs, "_compute", killing)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(KilledError):
            work(run)
    work(run)
    assert reports(run) == reports(undisturbed_updates)
    assert weights(run) == weights(undisturbed_updates)
    assert f"{run.checkpoint(3).name}/optimizer.safetensors" in weights(run)


def test_an_update_learns_the_new_rows_and_a_replay(incremental: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def recording(_student: Any, rows: Any, *_rest: Any) -> Training:
        given.append(rows)
        return Training(1, 1, 0.0)

    monkeypatch.setattr(student.worker, "train", recording)
    config = incremental.model_copy(update={"strategy": incremental.strategy.model_copy(update={"mining": "train"})})
    run = script(make_run(tmp_path / "run", config))
    complete_round(run, 4, [])
    finish(run, 0, 4)
    work(run)
    seed, *updates = given
    assert len(seed) == 6
    # Rounds of 6, 9 and 3 rows, each with as many earlier ones, in both epochs; nothing to learn in the last.
    assert [[len(epoch) for epoch in update] for update in updates] == [[12, 12], [18, 18], [6, 6]]
    new = tokenise(make_tokenizer(), [row.text for row in ROUNDS[3]])
    assert [list(tokens) for tokens in updates[2][0].tokens[3:]] == new
    assert reports(run)[4].num_train_rows == 24


@pytest.mark.parametrize("damaged", ["round-0003/model.safetensors", "round-0000/state.json"])
def test_a_damaged_checkpoint_is_named_and_learned_again(
    damaged: str, undisturbed_updates: RunDir, incremental: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(undisturbed_updates.root, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    run.final_report.unlink()
    path = run.student / damaged
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    work(run)
    assert f"the checkpoint {path.parent} is damaged" in caplog.text
    assert reports(run) == reports(undisturbed_updates)
    assert weights(run) == weights(undisturbed_updates)


def test_a_lost_row_cache_is_made_again(undisturbed: RunDir, tmp_path: Path) -> None:
    shutil.copytree(undisturbed.root, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    cached = {path.name: path.read_bytes() for path in (run.student / "rows").iterdir()}
    (run.student / "rows" / "0001.arrow").unlink()
    (run.student / "rows" / "0002.arrow").write_bytes(b"no Arrow file")
    work(run)
    assert {path.name: path.read_bytes() for path in (run.student / "rows").iterdir()} == cached


def test_every_row_is_learned_once(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[Rows] = []
    original = student.worker.Worker._train  # pyright: ignore[reportPrivateUsage]

    def recording(self: Any, model: Any, rows: Rows, *rest: Any) -> Any:
        learned.append(rows)
        return original(self, model, rows, *rest)

    monkeypatch.setattr(student.worker.Worker, "_train", recording)
    run = make_run(tmp_path / "run", make_config(tmp_path, Path(config.student.encoder), strategy={"mining": "train"}))
    work(script(run, rounds=2))
    run.finish.unlink()
    complete_round(run, 3, ROUNDS[3])
    finish(run, 3, 3)
    work(run)
    rows = make_rows(2)
    for round, given in enumerate(learned):
        rows += ROUNDS.get(round, [])
        assert [row.tolist() for row in map(np.asarray, given.tokens)] == tokenise(make_tokenizer(), [row.text for row in rows])
        assert given.labels == [LABELS.index(row.label) for row in rows]
    assert len(learned) == 4


def test_a_round_without_rows_is_reported_too(config: RunConfig, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", config)
    complete_round(run, 1, [])
    finish(run, 0, 1)
    work(run)
    assert reports(run)[1].num_train_rows == 6


def test_checkpoints_that_nobody_needs_are_deleted(config: RunConfig, tmp_path: Path) -> None:
    run = script(make_run(tmp_path / "run", config))
    kept: list[list[int]] = []

    def follow() -> Iterator[None]:
        for round in completed_rounds(run, worker.progress.round):
            worker.learn(round)
            kept.append(checkpoint_rounds(run))
            yield

    worker = student.worker.restore(run)
    for _ in follow():
        losses = [report.loss for report in reports(run)]
        assert kept[-1] == sorted({0, losses.index(min(losses)), max(len(losses) - 2, 0), len(losses) - 1})


def test_the_table_may_not_change_behind_the_students_back(config: RunConfig, tmp_path: Path) -> None:
    run = script(make_run(tmp_path / "run", config), rounds=1, best_round=1)
    work(run)
    (run.table("samples") / "000001.parquet").unlink()
    with pytest.raises(StoreError, match="has been changed"):
        work(run)


def test_two_workers_do_not_share_a_run(config: RunConfig, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", config)
    with run.lock("student"), pytest.raises(UserError, match="in use"):
        work(run)


@pytest.mark.parametrize("mining", ["train", "held_out", "out_of_fold"])
def test_a_planted_weakness_comes_first(mining: str, sentence_encoder: Path, tmp_path: Path) -> None:
    """The teacher takes fruits for tools, and the student believes it."""
    run = make_run(tmp_path / "run", make_config(tmp_path, sentence_encoder, strategy={"mining": mining, "hard": 4}))
    complete_round(run, 1, [replace(row, label="tool") if row.label == "fruit" else row for row in make_rows(12, 30)])
    complete_round(run, 2, [row for row in make_rows(6, 50) if row.label == "fruit"])
    finish(run, 0, 2)
    work(run)
    confused, mined = reports(run)[1].confusions[0], reports(run)[2]
    assert (confused.label, confused.predicted) == ("fruit", "tool")
    assert reports(run)[1].weaknesses[0].name == "pair:fruit>tool"
    assert ("fruit", "tool") in {(row.label, row.predicted) for row in (*mined.hard, *mined.wrong)}
    assert mined.mining == mining
    assert len(mined.hard) == 4
    assert [row.confidence for row in mined.hard] == sorted((row.confidence for row in mined.hard), reverse=True)


def test_a_class_that_is_mislabelled_as_anything_comes_first(sentence_encoder: Path, tmp_path: Path) -> None:
    """The teacher calls half of the fruits tools and half beasts. Which of them the student takes most for is its own affair."""
    others = [label for label in LABELS if label != "fruit"]
    run = make_run(tmp_path / "run", make_config(tmp_path, sentence_encoder, strategy={"mining": "train"}, student={"epochs": 6}))
    rows = make_rows(16, 30)
    wrong = [replace(row, label=others[number % 2]) if row.label == "fruit" else row for number, row in enumerate(rows)]
    complete_round(run, 1, wrong)
    finish(run, 0, 1)
    work(run)
    first = reports(run)[1].weaknesses[0]
    assert first.labels[0] == "fruit"
    assert first.missed > first.num_rows / 2


def test_no_text_of_validation_or_test_leaves(undisturbed: RunDir) -> None:
    """Rows of which the student missed some, so that there is something to give examples of."""
    assert any(report.weaknesses for report in reports(undisturbed))
    written = "".join(path.read_text() for path in undisturbed.reports.iterdir())
    assert not [row.text for row in (*make_rows(6, 100), *make_rows(6, 200)) if json.dumps(row.text) in written]
    assert json.dumps(reports(undisturbed)[-1].right[0].text) in written


def test_a_report_tells_what_has_changed_since_the_one_before(undisturbed: RunDir) -> None:
    first, second, *_ = reports(undisturbed)
    assert first.changes == ()
    everything = second.changes[0]
    assert (everything.name, everything.num_rows) == ("all", 18)
    assert everything.fixed - everything.broken == second.hits.count("1") - first.hits.count("1")
    assert second.hits.count("1") / 18 == pytest.approx(second.scores.accuracy)
    assert second.intervals is not None
    assert second.intervals.accuracy.low <= second.scores.accuracy <= second.intervals.accuracy.high
    assert second.calibration is not None


def test_the_training_rows_are_audited_at_the_end(undisturbed: RunDir) -> None:
    found = read_json(undisturbed.audit, Audit)
    assert found.noise is not None
    assert found.copies is not None
    assert found.drift is not None
    assert found.copies.num_rows == found.drift.num_synthetic == 18
    assert found.drift.num_real == 18
    assert found.noise.clean_share is not None


def test_old_predictions_are_made_again(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student.diagnosis, "MIN_LEARNED_ROWS", 2)
    run = script(make_run(tmp_path / "run", config), rounds=2)
    work(run)
    predictions = MinedLog(run.student / "mined", 0, 0).read(2, 1000)
    by_round = {round: [mined for mined in predictions if mined.round == round] for round in range(3)}
    assert [len(mined) for mined in by_round.values()] == [6, 6, 9]
    assert {mined.learned for mined in by_round[0]} == {6}, "those of the seed were by students of three rows"
    assert {mined.learned for mined in by_round[2]} == {12}


def test_rows_are_mined_before_they_are_learned(undisturbed: RunDir) -> None:
    predictions = MinedLog(undisturbed.student / "mined", 0, 0).read(3, 1000)
    rows = [row.text for round in ROUNDS.values() for row in sorted(round, key=lambda row: row.text)]
    by_round = {round: sorted(mined.row.text for mined in predictions if mined.round == round) for round in ROUNDS}
    assert [text for round in ROUNDS for text in by_round[round]] == rows
    assert sum(mined.round == 0 for mined in predictions) == 6


def test_weights_go_on_from_round_to_round_if_asked(sentence_encoder: Path, tmp_path: Path) -> None:
    going_on = make_config(
        tmp_path, sentence_encoder, student={"weights": "continue", "epochs": 1, "learning_rate": 1e-9, "head_learning_rate": 1e-9}
    )
    run = script(make_run(tmp_path / "run", going_on), rounds=1, best_round=1)
    work(run)
    first, second = (load_checkpoint(run, round).student.model.state_dict() for round in (0, 1))
    assert all((first[name] - second[name]).abs().max() < 1e-6 for name in first)


def test_rounds_that_are_complete_before_the_last_word_are_all_given(config: RunConfig, tmp_path: Path) -> None:
    run = script(make_run(tmp_path / "run", config))
    assert list(completed_rounds(run, 1)) == [2, 3]


def test_seeds_differ_by_run_round_and_purpose() -> None:
    seeds = {derive_seed(seed, round, purpose) for seed in (0, 1) for round in (0, 1) for purpose in ("weights", "training")}
    assert len(seeds) == 8


def test_labels_of_the_report_are_the_tasks(undisturbed: RunDir) -> None:
    assert tuple(score.label for score in reports(undisturbed)[0].classes) == LABELS


def test_a_run_is_a_page_and_a_value(undisturbed: RunDir, config: RunConfig, tmp_path: Path) -> None:
    """`reflux report`, before the engine has summed up and after."""
    run = RunDir(tmp_path / "run")
    shutil.copytree(undisturbed.root, run.root)
    unfinished = CliRunner().invoke(app, ["report", str(run.root)])
    assert "Label noise" in unfinished.stdout, unfinished.exception
    final, manifest, told = read_json(run.final_report, FinalReport), read_json(run.run_json, Manifest), reports(run)
    write_json(run.summary, summarize(config, manifest, read_json(run.finish, Finish), final, told, read_rounds(run), run.root))
    page = CliRunner().invoke(app, ["report", str(run.root)]).stdout
    assert "validation after round 2" in page or "is missed after round 2" in page, "the round whose student was kept"
    value = json.loads(CliRunner().invoke(app, ["report", str(run.root), "--json"]).stdout)
    assert value["report"]["round"] == value["student"]["after"]["round"] == 2
    assert value["audit"]["copies"]["num_rows"] == 18


def test_a_report_names_the_texts_of_the_pool_that_the_student_is_least_sure_of_and_nobody_asked_about(
    tmp_path: Path, config: RunConfig
) -> None:
    pool = tmp_path / "pool.jsonl"
    learned, refused, held_out = ROUNDS[1][0].text, "what was refused", make_rows(1, 100)[0].text
    texts = [*(row.text for row in make_rows(2, 500)), learned, refused, held_out, " "]
    pool.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    strategy = {"type": "pool", "rows_per_round": 6}
    run = make_run(tmp_path / "run", change_config(config, {"strategy": strategy, "task.data.pool": str(pool)}))
    origin = structs.replace(make_sample(0, refused, "", 1).origin, round=1)
    write_segment(run.table("rejections"), pack_rejections([Rejection("0-0", RejectionReason.UNCERTAIN, "", "", refused, "", origin)]))
    script(run, rounds=1, best_round=1)
    work(run)
    for round, report in enumerate(reports(run)):
        assert report.uncertain is not None
        assert len(report.uncertain) == 6
        confidences = [row.confidence for row in report.uncertain]
        assert confidences == sorted(confidences)
        unasked = {row.text for row in make_rows(2, 500)} | ({learned, refused} if round == 0 else set())
        assert {row.text for row in report.uncertain} <= unasked


def test_only_a_method_that_labels_a_pool_has_it_looked_at(undisturbed: RunDir) -> None:
    assert {report.uncertain for report in reports(undisturbed)} == {None}


def test_evokd_is_shown_the_last_batch_as_it_was_before_it_was_learned_and_nothing_older(tmp_path: Path, config: RunConfig) -> None:
    run = make_run(tmp_path / "run", change_config(config, {"strategy": {"type": "evokd"}}))
    work(script(run))
    for round, report in enumerate(reports(run)):
        batch = {row.text for row in ROUNDS[round]} if round else {row.text for row in make_rows(2)}
        assert {row.text for row in (*report.right, *report.wrong)} == batch
    learned = {mined.learned for round in range(4) for mined in MinedLog(run.student / "mined", 0, 0).of(round)}
    assert learned == {3, 6, 12, 21}, "by students of other seed rows, of the seed, and of the rounds before"
