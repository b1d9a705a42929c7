"""The comparison of methods: what each is told, how runs are set against each other, and a whole campaign on the scripted server."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.methods import seed_student
from benchmarks.methods.campaign import Campaign, Piece, in_order, place
from benchmarks.methods.chart import draw
from benchmarks.methods.comparison import show, summarise
from benchmarks.methods.entries import CONTROL, ENTRIES, FEW, LIKE_FEW, MORE, ROUNDS, TASKS, TaskName, config_of, names_for, rows_per_round
from benchmarks.methods.figures import figures
from benchmarks.methods.findings import aim, balance
from benchmarks.paired import paired
from engine.reports import ClassScore, Scores, WeaknessReport
from engine.rundir import RunDir, read_json
from engine.store import read_rejections, read_samples
from engine.teacher.endpoint import user_endpoint
from engine.testing.server import ScriptedServer
from student.worker import work
from tests.engine import fake_student
from tests.student.builders import complete_round, finish, make_config, make_encoder, make_rows, make_run

FIGURES = {"prompt_tokens": 10, "completion_tokens": 5, "requested": 8, "accepted": 6, "rounds": 2}
SECONDS = {"generation_s": 1.0, "train_s": 2.0, "wall_s": 3.0}
AIM = {"asked": 0.5, "written": 0.4, "weak_gain": 0.2, "other_gain": 0.0}


def run(score: float, **more: Any) -> dict[str, Any]:
    return {"macro_f1": score, **FIGURES, **SECONDS, "reasons": {"duplicate": 2}, "aim": AIM, "cached_prompt_tokens": None, **more}


@pytest.mark.parametrize(("task", "method"), [(task, method) for task in TASKS for method in names_for(task)])
def test_every_method_is_configured_for_the_same_budget_and_student(task: TaskName, method: str, tmp_path: Path) -> None:
    config = config_of(method, task, 7, 5000, tmp_path / "pool.jsonl")
    control = config_of(CONTROL, task, 7, 5000)
    assert config.strategy.type == ENTRIES[method].type
    assert (config.seed, config.budget.teacher_tokens, config.student) == (7, 5000, control.student)
    assert config.strategy.patience is None
    assert config.sampling == control.sampling


def test_the_control_has_as_many_rounds_as_what_it_is_the_control_of() -> None:
    assert {
        ENTRIES[name].rounds for name in (CONTROL, "pgkd", "evokd", "evokd+init", "hybrid", "hybrid+keep", "hybrid+own", "llm2llm", "pool")
    } == {ROUNDS}


@pytest.mark.parametrize("task", TASKS)
def test_the_small_control_asks_for_as_many_rows_as_those_it_is_held_against(task: TaskName) -> None:
    rows = rows_per_round(ENTRIES[FEW], task, 40_000) * ENTRIES[FEW].rounds
    for method in LIKE_FEW:
        assert rows == pytest.approx(40_000 / ENTRIES[method].tokens_per_row[task], rel=0.25)


def test_a_round_is_whole_requests_and_all_rounds_use_the_budget_up() -> None:
    entry = ENTRIES[CONTROL]
    rows = rows_per_round(entry, "classification", 40_000)
    assert rows % 8 == 0
    assert 40_000 * MORE <= rows * entry.rounds * entry.tokens_per_row["classification"] <= 40_000 * 1.3
    once = rows_per_round(ENTRIES["zerogen"], "classification", 40_000)
    assert once * ENTRIES["zerogen"].tokens_per_row["classification"] == pytest.approx(40_000, rel=0.02)


def test_seed_by_seed_all_methods_come_before_the_next_seed() -> None:
    pieces = in_order(("classification", "ner"), lambda _task: ["a", "b"], [1, 2])
    assert pieces[:3] == [Piece("classification", "a", 1), Piece("classification", "b", 1), Piece("ner", "a", 1)]
    assert [piece.seed for piece in pieces] == [1] * 4 + [2] * 4


def test_a_difference_that_is_the_same_in_every_seed_is_sure() -> None:
    sure, unsure = paired([0.1, 0.11, 0.09, 0.1, 0.1]), paired([0.3, -0.2, 0.1, -0.1, 0.0])
    assert sure is not None
    assert unsure is not None
    assert sure["low"] > 0 > unsure["low"]
    assert paired([0.1]) is None


def test_methods_are_compared_seed_by_seed_with_the_control(capsys: pytest.CaptureFixture[str]) -> None:
    runs = {
        "unguided": {1: run(0.5), 2: run(0.7)},
        FEW: {1: run(0.4), 2: run(0.5)},
        "pgkd": {1: run(0.6, labels_agreed=0.5), 2: run(0.8), 3: run(0.1)},
    }
    lines = summarise(runs)
    pgkd = next(line for line in lines if line["method"] == "pgkd")
    assert pgkd["difference"]["mean"] == pytest.approx(0.1)
    assert pgkd["difference_few"]["mean"] == pytest.approx(0.25)
    assert pgkd["seeds"] == [1, 2, 3]
    assert (pgkd["labels_agreed"], pgkd["cached_prompt_tokens"], pgkd["reasons"]) == (0.5, None, {"duplicate": 2.0})
    show(lines, "tasks", Console(width=240))
    printed = capsys.readouterr().out
    assert "+0.100" in printed
    assert "75%" in printed
    assert "duplicate 2.0" in printed


def test_the_chart_names_every_method_and_hides_no_name_behind_another(tmp_path: Path) -> None:
    runs = {
        name: {"1": run(score, accepted=rows)} for name, score, rows in (("pgkd", 0.5, 100), ("zerogen", 0.505, 100), ("seed_only", 0.2, 0))
    }
    draw({task: {"runs": runs} for task in TASKS}, tmp_path / "methods.svg")
    drawn = (tmp_path / "methods.svg").read_text(encoding="utf-8")
    assert all(drawn.count(f">{name}<") == 2 for name in runs)
    heights = [float(height) for height in re.findall(r'y="(\S+)" transform="[^>]*>(?:pgkd|zerogen)<', drawn)]
    assert len(heights) == 4
    assert abs(heights[0] - heights[1]) > 8


def test_labels_that_come_alike_are_balanced() -> None:
    assert balance({"a": 4, "b": 4}, "ab") == pytest.approx(1)
    assert balance({"a": 4}, "ab") == 0
    assert balance({"a": 1, "b": 1}, "abcd") == pytest.approx(0.5)
    assert balance({}, "ab") is None


def report(round: int, f1: Mapping[str, float]) -> WeaknessReport:
    classes = tuple(ClassScore(label, score, score, score, 10) for label, score in f1.items())
    return WeaknessReport(round, 1.0, Scores(0.5, 0.5, 0.5, 40), classes, (), "none", (), (), (), 10, 1.0, 1)


def test_the_aim_is_how_much_went_to_the_weak_labels_of_the_report_before_and_what_they_gained() -> None:
    reports = [
        report(0, {"a": 0.1, "b": 0.9, "c": 0.9, "d": 0.9}),
        report(1, {"a": 0.9, "b": 0.2, "c": 0.8, "d": 0.8}),
        report(2, {"a": 0.9, "b": 0.5, "c": 0.8, "d": 0.9}),
    ]
    # Round 1 is not looked at: no report on rows of the run stood before it.
    found = aim(reports, {1: {"a": 8}, 2: {"b": 6, "c": 2}}, {2: {"b": 1, "c": 1}})
    assert found["asked"] == pytest.approx(0.75)
    assert found["written"] == pytest.approx(0.5)
    assert found["weak_gain"] == pytest.approx(0.3)
    assert found["other_gain"] == pytest.approx(0.1 / 3)
    assert aim(reports[:2], {}, {}) == dict.fromkeys(("asked", "written", "weak_gain", "other_gain"))


def test_a_run_that_is_given_the_seed_s_student_learns_what_it_would_have_learned(tmp_path: Path) -> None:
    config = make_config(tmp_path / "data", make_encoder(tmp_path / "encoder", mean_pooled=True), student={"epochs": 1, "min_steps": 3})
    alone, given, first = (make_run(tmp_path / name, config) for name in ("alone", "given", "first"))
    seed_student.main(first)
    given.run_json.unlink()
    seed_student.give(first, given)
    make_run(given.root, config)
    for run in (alone, given):
        complete_round(run, 1, make_rows(2, 10))
        finish(run, 1, 1)
        work(run)
    reports = [[replace(read_json(run.report(round), WeaknessReport), train_s=0.0) for round in (0, 1)] for run in (alone, given)]
    assert reports[0] == reports[1]
    assert (given.checkpoint(0) / "model.safetensors").samefile(first.checkpoint(0) / "model.safetensors")


async def test_runs_on_one_server_from_nothing_to_their_figures(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    student = (sys.executable, str(Path(fake_student.__file__)))
    pieces = [Piece("classification", method, 1) for method in ("unguided", "pool")]
    async with ScriptedServer() as server:
        campaign = Campaign(tmp_path, 3000, user_endpoint(server.base_url, "any", None), console, student)
        assert await campaign.carry_out(pieces, jobs=2) == []
        asked = server.num_requests
        assert await campaign.carry_out(pieces, jobs=2) == []
        assert server.num_requests == asked > 0
        other = Campaign(tmp_path, 4000, user_endpoint(server.base_url, "any", None), console, student)
        (failure,) = await other.carry_out(pieces[:1], jobs=1)
        assert "another configuration" in failure
    found = {piece.method: figures(place(tmp_path, piece)) for piece in pieces}
    for method, run in found.items():
        assert run["requested"] == run["accepted"] + run["rejected"] + run["failed"] > 0, method
        assert run["prompt_tokens"] + run["completion_tokens"] > 0
        assert sum(run["reasons"].values()) == run["rejected"]
    assert found["unguided"]["label_as_asked"] is None
    pool = RunDir(tmp_path / "classification-pool-1")
    labelled = [row.text for row in (*read_samples(pool), *read_rejections(pool))]
    texts = {line.split('"')[3] for line in (tmp_path / "classification-pool-1.jsonl").read_text().splitlines()}
    assert len(labelled) == len(set(labelled)) <= len(texts) == 160
    assert {row.origin.weakness for row in read_samples(pool)} == {"random"}  # this student looks at no pool
