from typing import Any

import pytest
from rich.console import Console

from benchmarks.methods import CONFIG, SHOWN, paired, settings, show, summarise
from engine.config import load_config

FIGURES = {"prompt_tokens": 10, "completion_tokens": 5, "requested": 8, "accepted": 6, "rounds": 2}
SECONDS = {"generation_s": 1.0, "train_s": 2.0, "wall_s": 3.0}


def run(score: float) -> dict[str, Any]:
    return {"macro_f1": score, **FIGURES, **SECONDS}


@pytest.mark.parametrize("method", SHOWN)
def test_every_method_is_configured_for_the_same_budget(method: str) -> None:
    config = load_config(CONFIG, settings(method, seed=7, teacher_tokens=5000))
    assert config.strategy.type == method
    assert (config.seed, config.budget.teacher_tokens) == (7, 5000)
    assert config.strategy.rounds in (0, 8, 1000)


def test_a_difference_that_is_the_same_in_every_seed_is_sure() -> None:
    sure, unsure = paired([0.1, 0.11, 0.09, 0.1, 0.1]), paired([0.3, -0.2, 0.1, -0.1, 0.0])
    assert sure is not None
    assert unsure is not None
    assert sure["low"] > 0 > unsure["low"]
    assert paired([0.1]) is None


def test_methods_are_compared_seed_by_seed_with_the_control(capsys: pytest.CaptureFixture[str]) -> None:
    lines = summarise({"unguided": {1: run(0.5), 2: run(0.7)}, "pgkd": {1: run(0.6), 2: run(0.8), 3: run(0.1)}})
    pgkd = next(line for line in lines if line["method"] == "pgkd")
    assert pgkd["difference"]["mean"] == pytest.approx(0.1)
    assert pgkd["seeds"] == [1, 2, 3]
    show(lines, Console(width=160))
    printed = capsys.readouterr().out
    assert "+0.100" in printed
    assert "75%" in printed
