from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import student.worker
from engine.config import RunConfig
from engine.errors import StoreError, UserError
from engine.records import Example, FinalReport, WeaknessReport
from engine.rundir import RunDir, read_json
from engine.store import connect
from student.checkpoint import checkpoint_rounds, load_checkpoint
from student.worker import completed_rounds, derive_seed, work
from tests.student.builders import LABELS, complete_round, finish, make_config, make_rows, make_run

ROUNDS = {1: make_rows(2, 10), 2: make_rows(3, 20), 3: make_rows(1, 30)}


class KilledError(Exception):
    """Stands in for a kill, at a point where a process can be stopped."""


def script(run: RunDir, rounds: int = 3, best_round: int = 2) -> RunDir:
    """All rounds are there from the start, as for a student that was away while the engine went on."""
    for round in range(1, rounds + 1):
        complete_round(run, round, ROUNDS[round])
    finish(run, best_round, rounds)
    return run


def reports(run: RunDir) -> list[WeaknessReport]:
    """As written, without how long it took."""
    paths = sorted(run.reports.glob("[0-9]*.json"))
    return [replace(read_json(path, WeaknessReport), train_s=0.0) for path in paths]


def weights(run: RunDir) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in run.student.glob("*/model.safetensors")}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, sentence_encoder: Path) -> RunConfig:
    return make_config(tmp_path_factory.mktemp("data"), sentence_encoder)


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
    original, count = getattr(student.worker, function), 0

    def killing(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == calls and not after:
            raise KilledError
        result = original(*arguments)
        if count == calls:
            raise KilledError
        return result

    with monkeypatch.context() as patch:
        patch.setattr(student.worker, function, killing)
        with pytest.raises(KilledError):
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


def test_killed_hard_it_goes_on_with_the_same_result(undisturbed: RunDir, config: RunConfig, tmp_path: Path) -> None:
    run = script(make_run(tmp_path / "run", config))
    command = [sys.executable, "-m", "student", str(run.root)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}) as worker:
        while not run.report(1).exists():
            assert worker.poll() is None
            time.sleep(0.002)  # not to synchronise, but to kill at a moment that nobody chose
        os.kill(worker.pid, signal.SIGKILL)
    assert not run.final_report.exists()
    work(run)
    assert reports(run) == reports(undisturbed)
    assert weights(run) == weights(undisturbed)


def test_every_row_is_learned_once(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[list[str]] = []
    original = student.worker.Worker._train  # pyright: ignore[reportPrivateUsage]

    def recording(self: Any, model: Any, rows: list[Example], round: int) -> Any:
        learned.append([row.text for row in rows])
        return original(self, model, rows, round)

    monkeypatch.setattr(student.worker.Worker, "_train", recording)
    run = make_run(tmp_path / "run", make_config(tmp_path, Path(config.student.encoder), strategy={"mining": "train"}))
    work(script(run, rounds=2))
    run.finish.unlink()
    complete_round(run, 3, ROUNDS[3])
    finish(run, 3, 3)
    work(run)
    rows = make_rows(2)
    for round, texts in enumerate(learned):
        rows += ROUNDS.get(round, [])
        assert texts == [row.text for row in rows]
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

    worker = student.worker._restore(run)  # pyright: ignore[reportPrivateUsage]
    for _ in follow():
        losses = [report.loss for report in reports(run)]
        assert kept[-1] == sorted({0, losses.index(min(losses)), len(losses) - 1})


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
    assert ("fruit", "tool") in {(row.label, row.predicted) for row in (*mined.hard, *mined.wrong)}
    assert mined.mining == mining
    assert len(mined.hard) == 4
    assert [row.confidence for row in mined.hard] == sorted((row.confidence for row in mined.hard), reverse=True)


def test_rows_are_mined_before_they_are_learned(undisturbed: RunDir) -> None:
    predictions = load_checkpoint(undisturbed, 3).predictions
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
