"""The benchmark on public data, as small as it goes: both sides learn and are scored alike, and what is done is not done again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import benchmarks.real_data
from benchmarks.data_sets import load
from benchmarks.real_data import Cell, Recipe, main, read_cells, summarise, train_hugging_face, word_tags
from engine.records import Example, Span
from student.hardware import choose_hardware
from tests.student.builders import make_encoder, make_rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with labels, and sentences whose labels' words are entities."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("things", "places"):
        (folder / name).mkdir()
        for number, split in enumerate(("train", "validation", "test")):
            rows = make_rows(6, 30 * number)
            if name == "things":
                table = pa.table({"text": [row.text for row in rows], "label": [row.label for row in rows]})
            else:
                tokens = [row.text.split() for row in rows]
                tags = [[f"B-{row.label}" if place == 1 else "O" for place in range(len(row.text.split()))] for row in rows]
                table = pa.table({"tokens": tokens, "tags": tags})
            pq.write_table(table, folder / name / f"{split}.parquet")
    return folder


def test_both_sides_are_trained_and_what_is_done_stays(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder(tmp_path / "encoder", mean_pooled=True)
    out, cells = tmp_path / "real.json", tmp_path / "cells.jsonl"
    sizes = ["--shots", "1", "full", "--seeds", "1", "--epochs", "1"]
    given = ["--data", str(data), "--encoder", str(encoder), "--cells", str(cells), "--out", str(out), *sizes]
    main([*given, "--data-sets", "things", "places", "absent"])
    content = json.loads(out.read_text())
    assert [(line["data_set"], line["per_class"], line["train_rows"]) for line in content["table"]] == [
        ("places", 1, 3), ("places", None, 18), ("things", 1, 3), ("things", None, 18),
    ]  # fmt: skip
    assert all(0 <= line["f1"][side] <= 1 for line in content["table"] for side in ("ours", "hf_trainer"))
    assert "no absent/train.parquet" in content["skipped"]["absent"]
    monkeypatch.setattr(benchmarks.real_data, "run_cell", None)
    main([*given, "--data-sets", "things"])
    assert json.loads(out.read_text())["table"] == content["table"][2:]
    main([*given, "--data-sets", "places", "--seeds", "2", "--only-done"])
    again = json.loads(out.read_text())
    assert again["table"] == content["table"][:2]
    assert again["to_do"] == ["places, 1 a class, seed 1, ours", "places, 1 a class, seed 1, hf_trainer"]


@pytest.mark.parametrize("name", ["things", "places"])
def test_the_trainers_answers_are_held_against_their_own_rows(data: Path, tmp_path: Path, name: str) -> None:
    """It predicts texts of like length together, in an order of its own."""
    encoder = make_encoder(tmp_path / "encoder", mean_pooled=True)
    task = load(data / name, None, 0, None)
    cell = Cell(name, None, 0, "hf_trainer", Recipe(20, 4, learning_rate=5e-3), str(encoder), "float32")
    assert train_hugging_face(cell, task, choose_hardware("cpu", "float32")) > 0.8


def test_a_line_that_was_cut_off_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "cells").write_text('{"key": "one", "result": {"f1": 0.5}}\n{"key": "two", "res')
    assert read_cells(tmp_path / "cells") == {"one": {"f1": 0.5}}


def test_the_difference_is_over_the_seeds_that_both_have() -> None:
    def result(side: str, seed: int, f1: float) -> tuple[Cell, dict[str, Any]]:
        return Cell("things", 1, seed, side, Recipe(1, 8), "minilm", "float32"), {"f1": f1, "train_rows": 3}

    (line,) = summarise(dict([result("ours", 0, 0.5), result("hf_trainer", 0, 0.53), result("ours", 1, 0.9)]))
    assert line["difference"] == pytest.approx(-0.03)
    assert not line["within_2_points"]
    (line,) = summarise(dict([result("ours", 0, 0.52), result("hf_trainer", 0, 0.53)]))
    assert line["within_2_points"]


def test_spans_become_tags_of_words() -> None:
    row = Example("Ana Lee sees Bern", "", (Span(0, 7, "PER"), Span(13, 17, "LOC")))
    assert word_tags(row) == ["B-PER", "I-PER", "O", "B-LOC"]
