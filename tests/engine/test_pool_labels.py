"""A pool labelled by the scripted server: every row ends once, whatever it is and whatever happens."""

import asyncio
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from engine import pool_labels
from engine.cli import app
from engine.config import LabellingConfig, PoolConfig, RunConfig
from engine.errors import UserError
from engine.pool_labels import PLACE, PoolSummary, label_pool
from engine.progress import Silent
from engine.records import RowCounts
from engine.rundir import RunDir
from engine.store import read_rounds
from engine.task.task import find_pool
from engine.teacher import batcher
from engine.testing.server import ScriptedServer
from tests.engine.builders import LABELS, make_task
from tests.engine.scripted_runs import make_config as make_run_config

ODD = ("", "  ", "twice the same", "twice the same", " padded ", "x" * 3000, 'comma, "quote"\nnewline', "caf\u00e9 \U0001f600")


@pytest.fixture(autouse=True)
def retry_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "BACKOFF_S", 0.01)


def write_pool(folder: Path, texts: tuple[str, ...]) -> Path:
    path = folder / "pool.parquet"
    pq.write_table(pa.table({"id": list(range(len(texts))), "text": pa.array(texts, pa.string())}), path)
    return path


async def label(
    endpoint: str, pool: Path, out: Path, *, rows_per_call: int = 1, soft: bool = False, progress: Silent | None = None
) -> PoolSummary:
    config = make_run_config(endpoint)
    data = config.task.data.model_copy(update={"pool": pool})
    changes: dict[str, Any] = {
        "task": config.task.model_copy(update={"data": data}),
        "strategy": PoolConfig(pick="random", rows_per_call=rows_per_call),
        "labelling": LabellingConfig(soft=soft, calibrate="none"),
    }
    config = RunConfig.model_validate((config.model_copy(update=changes)).model_dump())
    task = make_task()
    task = type(task)(task.kind, task.domain, task.labels, task.seed, task.validation, task.test, find_pool(pool, "text"))
    return await label_pool(config, task, RunDir(out.parent / "run"), out, progress or Silent())


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    return pq.read_table(path).to_pylist()


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("rows_per_call", [1, 3])
async def test_every_row_ends_once(tmp_path: Path, kind: str, rows_per_call: int) -> None:
    texts = (*ODD, *(f"text {number}" for number in range(30)))
    out = tmp_path / f"labels.{kind}"
    async with ScriptedServer() as server:
        summary = await label(server.base_url, write_pool(tmp_path, texts), out, rows_per_call=rows_per_call)
    labelled, rejected = read(out), read(tmp_path / f"labels.rejected.{kind}")
    assert sorted(int(row[PLACE]) for row in (*labelled, *rejected)) == list(range(len(texts)))
    assert all(row["text"] == texts[int(row[PLACE])] for row in (*labelled, *rejected))
    assert {row["label"] for row in labelled} <= set(LABELS)
    assert {int(row[PLACE]): row["reason"] for row in rejected if int(row[PLACE]) in (0, 1, 5)} == {0: "empty", 1: "empty", 5: "too_long"}
    assert (summary.labelled, summary.rejected) == (len(labelled), len(rejected))
    assert sum(summary.classes.values()) == len(labelled)
    if rows_per_call == 1:
        assert len(rejected) == 3


async def test_answers_that_say_nothing_are_rejections_with_a_reason(tmp_path: Path) -> None:
    async with ScriptedServer(["badjson:2", "status:400:5"]) as server:
        summary = await label(
            server.base_url, write_pool(tmp_path, tuple(f"text {number}" for number in range(40))), tmp_path / "out.jsonl"
        )
    assert summary.labelled + summary.rejected == 40
    assert {row["reason"] for row in read(tmp_path / "out.rejected.jsonl")} <= {"unlabelled", "unknown_label"}
    assert summary.rejected > 0


async def test_a_stopped_pass_goes_on_and_asks_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_labels, "ROUND_ROWS", 20)
    done = 0

    class CancelInTheMiddle(Silent):
        def assignment_done(self, rows: RowCounts) -> None:
            nonlocal done
            done += 1
            if done == 30:
                task.cancel()

    pool = write_pool(tmp_path, tuple(f"text {number}" for number in range(70)))
    async with ScriptedServer() as server:
        task = asyncio.create_task(label(server.base_url, pool, tmp_path / "out.csv", progress=CancelInTheMiddle()))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not (tmp_path / "out.csv").exists()
        summary = await label(server.base_url, pool, tmp_path / "out.csv")
        assert server.num_sequences <= 70 + 2 * 4
        again = await label(server.base_url, pool, tmp_path / "again.csv")
    assert summary.labelled == again.labelled == 70
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()
    assert len(read_rounds(RunDir(tmp_path / "run"))) == 4


async def test_a_pool_that_has_changed_is_refused(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        await label(server.base_url, write_pool(tmp_path, ("one", "two")), tmp_path / "out.jsonl")
        with pytest.raises(UserError, match="holds other rows than those"):
            await label(server.base_url, write_pool(tmp_path, ("one", "three")), tmp_path / "out.jsonl")
        with pytest.raises(UserError, match="holds other rows than those"):
            await label(server.base_url, write_pool(tmp_path, ("one", "two", "three")), tmp_path / "out.jsonl")


async def test_soft_labels_have_a_column_for_them(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    async with ScriptedServer() as server:
        summary = await label(server.base_url, write_pool(tmp_path, ("one", "two", "three")), out, soft=True)
    assert summary.labelled + summary.rejected == 3
    for row in read(out):
        assert row["probabilities"] is None or sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-3)
        assert row["probabilities"] is None or max(row["probabilities"], key=row["probabilities"].get) == row["label"]


def test_a_name_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["label", "task.toml", "pool.csv", "--out", str(tmp_path / "labels.xlsx")])
    assert "unknown kind of file '.xlsx'" in str(result.exception)


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("rows_per_call", [1, 3])
async def test_pairs_end_once_with_both_texts(tmp_path: Path, kind: str, rows_per_call: int) -> None:
    pairs = [("a question", "an answer"), ("a question", ""), (" ", "an answer"), (" padded", "beside "), ("short", "x" * 3000)]
    pairs += [(f"question {number}", f"answer {number}") for number in range(9)]
    pool, out = tmp_path / "pool.parquet", tmp_path / f"labels.{kind}"
    pq.write_table(pa.table({"q": [first for first, _ in pairs], "a": [second for _, second in pairs]}), pool)
    async with ScriptedServer() as server:
        config = make_run_config(server.base_url)
        data = config.task.data.model_copy(update={"pool": pool, "text_column": "q", "text_pair_column": "a"})
        task = config.task.model_copy(update={"kind": "pair", "data": data})
        strategy = PoolConfig(pick="random", rows_per_call=rows_per_call)
        config = RunConfig.model_validate(config.model_copy(update={"task": task, "strategy": strategy}).model_dump())
        spec = replace(make_task(), kind="pair", pool=find_pool(pool, "q", "a"))
        summary = await label_pool(config, spec, RunDir(tmp_path / "run"), out, Silent())
    labelled, rejected = read(out), read(tmp_path / f"labels.rejected.{kind}")
    assert sorted(int(row[PLACE]) for row in (*labelled, *rejected)) == list(range(len(pairs)))
    assert all((row["q"], row["a"]) == pairs[int(row[PLACE])] for row in (*labelled, *rejected))
    assert {row["label"] for row in labelled} <= set(LABELS)
    reasons = {int(row[PLACE]): row["reason"] for row in rejected}
    assert {place: reasons[place] for place in (1, 2, 4)} == {1: "empty", 2: "empty", 4: "too_long"}
    assert summary.labelled == len(labelled) >= 5
