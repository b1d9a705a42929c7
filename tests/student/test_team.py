"""Two processes on this machine's processor that train together, as they would on two GPUs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import student.team
from engine.config import StudentConfig
from engine.errors import StudentError, UserError
from student.data import Rows
from student.hardware import Hardware, choose_hardware, count_devices
from student.model import Student, new_student
from student.ranks import ALONE, Ranks
from student.team import Team
from student.trainer import Training, train
from tests.student.builders import LABELS, make_rows
from tests.student.test_trainer import HARDWARE, encode, make_settings, same, without_dropout


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with Team(HARDWARE, 2) as team:
        yield team


@pytest.fixture(scope="module")
def config(sentence_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> StudentConfig:
    """Nine rows, so that one of each epoch's batches has a single one and a process of the two no share of it."""
    encoder = without_dropout(sentence_encoder, tmp_path_factory.mktemp("without-dropout"))
    return make_settings(encoder, epochs=2, optimizer="continue", weights="continue", micro_batch_size=3, class_weights="balanced")


def teach(config: StudentConfig, team: Team | None, learning_rate: float | None = None) -> tuple[Student, Training]:
    if learning_rate is not None:
        config = config.model_copy(update={"learning_rate": learning_rate})
    student = new_student(config, LABELS, 0)
    rows = encode(student, make_rows(3))
    weighed = Rows(rows.tokens, rows.labels, weights=[1.0, 0.5, 0.25] * 3)
    validation = encode(student, make_rows(3, 100))
    if team is None:
        return student, train(student, weighed, validation, config, HARDWARE, 0)
    return student, team.train(student, weighed, validation, config, 0)


def test_two_processes_learn_what_one_does_from_the_same_batches(team: Team, config: StudentConfig) -> None:
    alone, apart = teach(config, None)
    together, shared = teach(config, team)
    start = new_student(config, LABELS, 0).model.state_dict()
    # No softmax sees a key's bias: its gradient is rounding alone, which AdamW makes steps of full length from.
    learned = {name: weight for name, weight in alone.model.state_dict().items() if not name.endswith("key.bias")}
    for name, weight in learned.items():
        torch.testing.assert_close(together.model.state_dict()[name], weight, rtol=1e-3, atol=1e-4, msg=name)
    assert any((weight - start[name]).abs().max() > 1e-2 for name, weight in together.model.state_dict().items())
    assert (shared.epochs, shared.best_epoch) == (apart.epochs, apart.best_epoch)
    assert apart.moments is not None
    assert shared.moments is not None
    assert shared.moments.keys() == apart.moments.keys()
    for name, moment in apart.moments.items():
        torch.testing.assert_close(shared.moments[name], moment, rtol=1e-2, atol=1e-4, msg=name)


def test_a_process_that_dies_ends_the_training_and_the_next_one_starts_others(
    team: Team, config: StudentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = teach(config, team)
    untouched = new_student(config, LABELS, 0)
    original = student.team.wait

    def killing(connections: Any) -> Any:
        """Both have been given their work by now."""
        os.kill(pids(team)[1], signal.SIGKILL)
        return original(connections)

    given = new_student(config, LABELS, 0)
    rows = encode(given, make_rows(8))
    long = config.model_copy(update={"epochs": 10_000, "patience": 10_000})
    with monkeypatch.context() as patch:
        patch.setattr(student.team, "wait", killing)
        with pytest.raises(StudentError, match=r"process \d of the 2 that train together ended .* start the same command again"):
            team.train(given, rows, rows, long, 0)
    assert same(given, untouched), "what was not finished is not kept"
    after, _ = teach(config, team)
    assert same(before, after)


def test_what_one_process_says_is_what_the_team_says(team: Team, config: StudentConfig) -> None:
    with pytest.raises(StudentError, match=r"training diverged: the loss is (nan|inf)"):
        teach(config, team, learning_rate=1e30)


def pids(team: Team) -> list[int]:
    return [process.pid or 0 for process in team._processes]  # pyright: ignore[reportPrivateUsage]


def test_shares_make_up_the_batch() -> None:
    batch = [4, 8, 1, 9, 3]
    shares = [Ranks(number, 3).share(batch) for number in range(3)]
    assert sorted(row for share in shares for row in share) == sorted(batch)
    assert [len(share) for share in shares] == [2, 2, 1]
    assert ALONE.share(batch) is batch


def test_how_many_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Hardware(torch.device("cuda"), "bfloat16")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [count_devices("auto", gpu, batch_size) for batch_size in (4, 16, 64)] == [1, 2, 4]
    assert count_devices(2, gpu, 64) == 2
    with pytest.raises(UserError, match=r"student.devices: 5 were asked for, but PyTorch sees 4 GPUs"):
        count_devices(5, gpu, 64)
    processor = choose_hardware("cpu")
    assert count_devices("auto", processor, 64) == 1
    assert count_devices(2, processor, 64) == 2
