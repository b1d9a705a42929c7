"""The benchmark of the student, as small as it goes: that it measures at all, and what it says where something is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.student import main
from tests.student.builders import make_encoder, make_rows

FEW = ["--rows", "12", "--test-rows", "6", "--repeats", "1", "--epochs", "1", "--batch-size", "4", "--no-setfit"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"), mean_pooled=True)


def test_both_trainers_and_the_updates_are_measured(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "things").mkdir()
    for number, split in enumerate(("train", "validation", "test")):
        rows = make_rows(6, 30 * number)
        table = pa.table({"text": [row.text for row in rows], "label": [row.label for row in rows]})
        pq.write_table(table, tmp_path / "things" / f"{split}.parquet")
    out = tmp_path / "student.json"
    given = ["--data", str(tmp_path), "--data-sets", "things", "--encoder", str(encoder), "--out", str(out)]
    main([*FEW, *given, "--seen", "20", "40", "--updates", "1"])
    content = json.loads(out.read_text())
    things = content["data_sets"]["things"]
    assert things["ratio_to_hf_trainer"] == content["ratio_to_hf_trainer"] > 0
    assert set(things["macro_f1"]) == {"ours", "hf_trainer", "hf_trainer_grouped"}
    assert set(things["macro_f1_differences"]) == {"hf_trainer", "hf_trainer_grouped"}
    assert "no-setfit" in things["setfit"]["skipped"]
    assert [point["seen"] for point in content["updates"]["points"]] == [20, 40]
    assert content["updates"]["ratio_last_to_first"] > 0


def test_a_data_set_that_is_not_there_is_left_out_with_a_word(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("REFLUX_BENCH_DATA", raising=False)
    out = tmp_path / "student.json"
    main([*FEW, "--encoder", str(encoder), "--out", str(out), "--seen"])
    assert "skipped" in json.loads(out.read_text())["data_sets"]["ag_news"]
    assert "no ag_news/train.parquet; name the folder with --data or REFLUX_BENCH_DATA" in " ".join(capsys.readouterr().out.split())
