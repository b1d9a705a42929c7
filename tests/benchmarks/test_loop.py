from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.loop import __main__ as benchmark
from benchmarks.loop import idle
from benchmarks.loop.__main__ import CONFIG, balance, f1_difference, median_ratio
from benchmarks.loop.spans import idle_s
from engine.rundir import RunDir
from engine.store import read_rounds


def test_idle_is_where_no_call_is_under_way() -> None:
    started, latency = np.array([0.0, 1.0, 2.0, 7.0]), np.array([5.0, 1.0, 1.0, 1.0])
    assert idle_s(started, latency) == 2.0
    assert idle_s(started[:1], latency[:1]) == 0.0


def run(mode: str, seed: int, loop_s: float, macro_f1: float) -> dict[str, Any]:
    return {"mode": mode, "seed": seed, "loop_s": loop_s, "macro_f1": macro_f1}


def test_modes_are_compared_seed_by_seed() -> None:
    runs = [run("own cores", seed, 10.0 * seed, 0.8) for seed in (1, 2, 3)]
    runs += [run("overlapped", seed, ratio * 10.0 * seed, f1) for seed, ratio, f1 in ((1, 0.5, 0.79), (2, 0.6, 0.81), (3, 0.9, 0.81))]
    assert median_ratio(runs, "overlapped", "own cores") == pytest.approx(0.6)
    difference = f1_difference(runs)
    assert difference["by_seed"] == pytest.approx([-0.01, 0.01, 0.01])
    assert difference["low"] < difference["mean"] < difference["high"]
    assert difference["is_within_noise"]


@pytest.mark.parametrize(
    ("written_s", "expected"),
    [
        ({None: 90.0}, (3, None)),
        ({None: 25.0}, (1, None)),
        ({None: 10.0, 16: 15.0, 8: 29.0}, (1, 8)),
        ({None: 1.0, 16: 2.0, 8: 3.0, 4: 4.0}, (1, 4)),
    ],
    ids=["a slow teacher gets more epochs", "as they are", "a fast teacher is slowed down", "as far as that goes"],
)
def test_learning_and_writing_are_made_to_take_similar_time(
    monkeypatch: pytest.MonkeyPatch, written_s: dict[int | None, float], expected: tuple[int, int | None]
) -> None:
    def run_once(name: str, seed: int, mode: str, rounds: int, rows: int, epochs: int, batch: int | None) -> dict[str, Any]:
        assert (mode, epochs) == ("own cores", 1)
        return {"generation_s": written_s[batch], "waiting_s": 30.0}

    monkeypatch.setattr(benchmark, "run_once", run_once)
    epochs, batch, tried = balance(256)
    assert (epochs, batch) == expected
    assert [found["batch"] for found in tried] == [*written_s]


def test_the_loop_runs_with_a_scripted_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "REQUESTS", 8)
    figures = idle.measure(CONFIG, tmp_path / "run", 3, 1)
    assert 0 <= figures["idle_share"] < 1
    assert figures["tokens_per_s"] > 0
    records = read_rounds(RunDir(tmp_path / "run"))
    assert [record.round for record in records] == [1, 2, 3]
    assert all(record.round - 1 - record.report <= 1 for record in records)
