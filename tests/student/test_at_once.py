"""A student behind an engine that asks ahead (`loop.max_staleness`): it learns all rounds that are complete at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import student.worker
from engine.config import RunConfig
from engine.reports import WeaknessReport
from engine.rundir import RunDir, read_json
from engine.store import connect
from student.rounds import completed_rounds
from student.worker import restore, work
from tests.student.builders import complete_round, finish, make_config, make_rows, make_run
from tests.student.kills import killed_at

ROUNDS = {1: make_rows(2, 10), 2: make_rows(3, 20), 3: make_rows(1, 30), 4: make_rows(1, 40)}


def reports(run: RunDir) -> list[WeaknessReport]:
    """As written, without how long it took."""
    return [replace(read_json(run.report(round), WeaknessReport), train_s=0.0) for round in run.reported_rounds()]


def weights(run: RunDir) -> dict[str, bytes]:
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in run.student.glob("round-*/*.safetensors")}


def learn(run: RunDir, *groups: int) -> None:
    """A worker in step with an engine that has completed so many rounds whenever it is free."""
    for newest in groups:
        for round in range(1, newest + 1):
            if round not in completed(run):
                complete_round(run, round, ROUNDS[round])
        worker = restore(run)
        worker.learn(next(completed_rounds(run, worker.progress.round, at_once=True)))


def completed(run: RunDir) -> list[int]:
    return [round for (round,) in connect(run).execute("select round from rounds").fetchall()]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, sentence_encoder: Path) -> RunConfig:
    settings = {"update": "incremental", "weights": "continue", "optimizer": "continue", "epochs": 2, "min_steps": 3}
    return make_config(tmp_path_factory.mktemp("data"), sentence_encoder, student=settings, loop={"max_staleness": 2})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> RunDir:
    run = make_run(tmp_path_factory.mktemp("runs") / "undisturbed", config)
    learn(run, 1, 3)
    complete_round(run, 4, ROUNDS[4])
    finish(run, 3, 4)
    work(run)
    return run


def test_what_is_behind_is_learned_at_once_and_each_row_once(undisturbed: RunDir) -> None:
    told = reports(undisturbed)
    assert [(report.round, report.num_train_rows) for report in told] == [(0, 6), (1, 12), (3, 24), (4, 27)]
    scored = connect(undisturbed).execute("select round from evaluations where split = 'validation' order by 1").fetchall()
    assert scored == [(0,), (1,), (3,), (4,)]
    # What changed is told against the report before, whichever round that was about.
    assert told[2].changes[0].before == sum(hit == "1" for hit in told[1].hits) / len(told[1].hits)


@pytest.mark.parametrize(
    ("function", "calls", "after"),
    [
        ("save_checkpoint", 1, False),
        ("save_checkpoint", 1, True),
        ("append_evaluation", 1, True),
        ("write_json", 1, True),
    ],
)
def test_killed_while_it_learns_rounds_at_once_it_goes_on_with_the_same_result(
    function: str, calls: int, after: bool, undisturbed: RunDir, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", config)
    learn(run, 1)
    for round in (2, 3):
        complete_round(run, round, ROUNDS[round])
    with killed_at(monkeypatch, function, calls, after=after):
        learn(run, 3)
    restore(run)  # reports, if that is all that was missing
    if 3 not in run.reported_rounds():
        learn(run, 3)
    complete_round(run, 4, ROUNDS[4])
    finish(run, 3, 4)
    work(run)
    assert reports(run) == reports(undisturbed)
    assert weights(run) == weights(undisturbed)


def test_what_a_killed_worker_had_predicted_is_forgotten_when_more_is_learned_at_once(config: RunConfig, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", config)
    learn(run, 1)
    complete_round(run, 2, ROUNDS[2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(student.worker, "save_checkpoint", None)
        with pytest.raises(TypeError):
            learn(run, 2)
    left = run.student / "mined" / "0002.json"
    assert left.exists()
    learn(run, 3)
    assert not left.exists()
    assert run.reported_rounds() == [0, 1, 3]
    assert reports(run)[-1].num_train_rows == 24


def test_rounds_that_a_report_took_together_are_learned_together_again(undisturbed: RunDir, config: RunConfig, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", config)
    learn(run, 1, 3)
    for round in (1, 3):
        next(run.checkpoint(round).glob("model.safetensors")).write_bytes(b"torn")
    complete_round(run, 4, ROUNDS[4])
    finish(run, 3, 4)
    work(run)
    assert reports(run) == reports(undisturbed)
    assert weights(run) == weights(undisturbed)


def test_an_engine_that_is_ahead_does_not_show_what_is_not_complete(config: RunConfig, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", config)
    for round in (1, 2):
        complete_round(run, round, ROUNDS[round])
    assert next(completed_rounds(run, 0, at_once=True)) == 2
    assert next(completed_rounds(run, 0)) == 1
    assert next(completed_rounds(run, 1, at_once=True)) == 2
