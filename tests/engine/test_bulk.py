"""Rows in bulk against the scripted server, whose rows are all different."""

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from engine import bulk
from engine.bulk import BulkSummary, Quotas, allot, generate_rows, reason_to_stop, shares
from engine.cli import app
from engine.config import AttrpromptConfig, RunConfig, ZerogenConfig
from engine.errors import UserError
from engine.export import export
from engine.progress import Silent
from engine.prompting import open_prompter
from engine.records import RoundRecord, RowCounts, TaskKind
from engine.rundir import RunDir
from engine.solo import NO_REPORT
from engine.store import read_rounds, read_samples
from engine.strategies import make_strategy
from engine.teacher import batcher
from engine.testing.server import ScriptedServer
from tests.engine.builders import LABELS, make_task
from tests.engine.kills import answers_on_disk
from tests.engine.scripted_runs import make_config as make_run_config

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def retry_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "BACKOFF_S", 0.01)


def make_config(endpoint: str, method: str = "zerogen") -> RunConfig:
    section = ZerogenConfig(rows_per_call=4) if method == "zerogen" else AttrpromptConfig(rows_per_call=4)
    return make_run_config(endpoint).model_copy(update={"strategy": section})


async def grow(endpoint: str, root: Path, rows: int, method: str = "zerogen", progress: Silent | None = None) -> BulkSummary:
    return await generate_rows(make_config(endpoint, method), make_task(), RunDir(root), rows, progress or Silent())


def make_record(round: int, asked: int, accepted: int) -> RoundRecord:
    rows = RowCounts(asked, accepted, asked - accepted)
    return RoundRecord(round, 0, 1, 1, rows, 10, 10, 1.0)


@pytest.mark.parametrize("method", ["zerogen", "attrprompt"])
async def test_every_label_gets_its_rows(tmp_path: Path, method: str) -> None:
    async with ScriptedServer() as server:
        summary = await grow(server.base_url, tmp_path, 100, method)
    # The scripted teacher draws labels as it likes: a label may get more rows than were asked for, and none fewer.
    assert summary.is_reached
    assert summary.reason == "all 100 rows are there"
    assert all(summary.classes[label] >= count for label, count in shares(LABELS, 100).items())
    assert sum(summary.classes.values()) == summary.rows.accepted == len(read_samples(RunDir(tmp_path)))
    assert summary.rows.is_balanced


async def test_failures_are_made_up_for(tmp_path: Path) -> None:
    async with ScriptedServer(["malformed:5", "truncated:4", "badjson:3"]) as server:
        summary = await grow(server.base_url, tmp_path, 120)
    assert summary.rows.failed + summary.rows.rejected > 0
    assert summary.is_reached


async def test_rounds_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "ROUND_ROWS", 40)
    async with ScriptedServer() as server:
        await grow(server.base_url, tmp_path, 60)
    assert max(record.rows.requested for record in read_rounds(RunDir(tmp_path))) == 40


async def test_a_finished_run_answers_at_once_and_grows_when_more_is_wanted(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        first = await grow(server.base_url, tmp_path, 24)
        asked = server.num_requests
        assert await grow(server.base_url, tmp_path, 24) == first
        assert server.num_requests == asked
        more = await grow(server.base_url, tmp_path, 40)
    assert (more.wanted, more.is_reached) == (40, True)
    ids = [sample.id for sample in read_samples(RunDir(tmp_path))]
    assert len(ids) == len(set(ids)) == more.rows.accepted >= 40


async def test_a_round_ends_as_it_was_begun_though_more_is_wanted_now(tmp_path: Path) -> None:
    class CancelInTheMiddle(Silent):
        def assignment_done(self, rows: RowCounts) -> None:
            task.cancel()

    async with ScriptedServer() as server:
        task = asyncio.create_task(grow(server.base_url, tmp_path, 60, progress=CancelInTheMiddle()))
        with pytest.raises(asyncio.CancelledError):
            await task
        summary = await grow(server.base_url, tmp_path, 150)
    assert read_rounds(RunDir(tmp_path))[0].rows.requested == 60
    assert (summary.wanted, summary.is_reached) == (150, True)


def always_this(schema: object, seed: str) -> str:
    return '[{"text": "always this", "label": "cancel"}]'


async def test_a_teacher_that_repeats_itself_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.testing.server.rows_for", always_this)
    monkeypatch.setattr(bulk, "BARREN_ROWS", 100)
    async with ScriptedServer() as server:
        summary = await grow(server.base_url, tmp_path, 60)
    assert (summary.is_reached, summary.rows.accepted) == (False, 1)
    assert "59 are still lacking" in summary.reason


async def test_methods_that_need_a_student_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the method pgkd needs a student"):
        await generate_rows(make_run_config("http://127.0.0.1:9/v1"), make_task(), RunDir(tmp_path), 5, Silent())


async def test_no_command_goes_on_with_anothers_run(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        await grow(server.base_url, tmp_path / "rows", 8)
    taught = RunDir(tmp_path / "taught")
    taught.create()
    taught.run_json.write_text("{}")
    with pytest.raises(UserError, match="is a run of `reflux run`"):
        await grow(server.base_url, taught.root, 8)
    config = write_task(tmp_path, server.base_url)
    result = CliRunner().invoke(app, ["run", str(config), "--out", str(tmp_path / "rows")])
    assert "is a run of `reflux generate`, and teaches no student" in str(result.exception)


@given(lacking=st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 50), min_size=1), at_most=st.integers(1, 60))
def test_a_round_serves_all_labels_alike(lacking: dict[str, int], at_most: int) -> None:
    given = allot(lacking, at_most)
    total = sum(lacking.values())
    assert sum(given.values()) == min(total, at_most)
    assert all(0 <= given[label] <= count for label, count in lacking.items())
    assert all(abs(given[label] - count * min(at_most, total) / total) < 1 for label, count in lacking.items() if total)


@given(rows=st.integers(0, 100), labels=st.integers(1, 9))
def test_shares_add_up(rows: int, labels: int) -> None:
    found = shares([str(number) for number in range(labels)], rows)
    assert sum(found.values()) == rows
    assert max(found.values()) - min(found.values()) <= 1


def test_a_plan_asks_for_exactly_what_is_lacking() -> None:
    config = make_config("")
    quotas = Quotas(make_strategy(config, make_task(), open_prompter(config, "scripted")), rows_per_call=4, kind="classification")
    quotas.want({"a": 9, "b": 0, "c": 2})
    plan = list(quotas.plan(3, NO_REPORT))
    assert [(assignment.focus, assignment.num_rows) for assignment in plan] == [(("a",), 4), (("a",), 4), (("a",), 1), (("c",), 2)]
    assert [assignment.id for assignment in plan] == ["r0003-a0000", "r0003-a0001", "r0003-a0002", "r0003-a0003"]
    assert quotas.rows_per_round == 11


@pytest.mark.parametrize(
    ("lacking", "rounds", "reason"),
    [
        (0, [(100, 100)], "all 100 rows are there"),
        (40, [(100, 60)], None),
        (99, [(500, 1)], "500 rows were asked for, 5 for each that is wanted, and 99 are still lacking"),
        (1, [(1, 0)] * 19, None),
        (1, [(1, 0)] * 20, "the last 20 rounds brought no new row"),
    ],
)
def test_when_to_stop(lacking: int, rounds: list[tuple[int, int]], reason: str | None) -> None:
    said = reason_to_stop(100, lacking, [make_record(number, *round) for number, round in enumerate(rounds, start=1)])
    assert said is None if reason is None else reason in str(said)


def test_a_barren_end_is_seen_long_before_the_tries_are_used_up() -> None:
    rounds = [make_record(1, 20_000, 15_000), make_record(2, 20_000, 300)]
    assert "of the last 20,000 rows that were asked for 300 were new" in str(reason_to_stop(1_000_000, 984_700, rounds))
    assert reason_to_stop(1_000_000, 985_000, rounds[:1]) is None


# As a user meets it.


CONCURRENCY = 16


class Counting:
    """Says when so many requests have been asked."""

    def __init__(self, wanted: int) -> None:
        self._left = wanted
        self.is_asked = asyncio.Event()

    def asked(self, body: bytes) -> None:
        self._left -= 1
        if self._left == 0:
            self.is_asked.set()

    def answered(self, body: bytes, texts: Sequence[str]) -> None:
        pass


def write_task(folder: Path, endpoint: str) -> Path:
    for split in ("seed", "validation", "test"):
        rows = [{"text": f"{split} text of {label}", "label": label} for label in LABELS]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "task.toml"
    path.write_text(
        f"""
        name = "demo"
        task = {{domain = "messages", labels = [{", ".join(f'{{name = "{label}"}}' for label in LABELS)}],
                data = {{seed = "seed.jsonl", validation = "validation.jsonl", test = "test.jsonl"}}}}
        teacher = {{model = "scripted", endpoint = "{endpoint}"}}
        gates = {{near_duplicates = false}}
        engine = {{concurrency = {CONCURRENCY}}}
        """.replace("\n                ", "")
    )
    return path


async def run_command(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "engine.cli", *arguments, cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def result_of(process: asyncio.subprocess.Process) -> Any:
    output, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    return json.loads(output)


async def test_five_thousand_rows_killed_once_then_exported(tmp_path: Path) -> None:
    root = tmp_path / "rows"
    ledger = Counting(150)
    async with ScriptedServer(["latency:0.005"], ledger=ledger) as server:
        command = ["generate", str(write_task(tmp_path, server.base_url)), "--rows", "5000", "--out", str(root), "--json"]
        process = await run_command(*command)
        await ledger.is_asked.wait()
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        before, answered = server.num_sequences, len(answers_on_disk(RunDir(root)))
        summary = await result_of(await run_command(*command))
        asked = server.num_sequences
    assert summary["is_reached"] is True
    samples = read_samples(RunDir(root))
    assert len({sample.id for sample in samples}) == len({sample.text for sample in samples}) == len(samples) == summary["rows"]["accepted"]
    assert Counter(sample.label for sample in samples) == summary["classes"]
    # What was in flight when it was killed is asked again, and nothing else is.
    assert summary["calls"] <= asked <= summary["calls"] + 2 * CONCURRENCY
    # What was on disk is not. The server may count some that the killed process had sent only then.
    assert asked - before - (summary["calls"] - answered) in range(CONCURRENCY + 1)
    assert before < asked
    assert export(RunDir(root), tmp_path / "dataset").rows == len(samples)
    rows = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "dataset/data/*.parquet"), split="train", cache_dir=str(tmp_path / "c")
    )
    assert len(rows) == len(samples)
    card = (tmp_path / "dataset/README.md").read_text()
    assert "No student" in card
    assert "had not finished" not in card


@pytest.mark.parametrize("method", ["zerogen", "attrprompt"])
@pytest.mark.parametrize("kind", ["pair", "multi_label"])
async def test_every_kind_of_label_gets_its_rows(tmp_path: Path, method: str, kind: TaskKind) -> None:
    async with ScriptedServer() as server:
        config = make_config(server.base_url, method)
        config = config.model_copy(update={"task": config.task.model_copy(update={"kind": kind})})
        rows = tuple(
            replace(row, text_pair=f"beside {row.text}") if kind == "pair" else replace(row, label="", labels=(row.label,))
            for row in make_task().seed
        )
        task = replace(make_task(), kind=kind, seed=rows, validation=rows[:3], test=rows[3:])
        summary = await generate_rows(config, task, RunDir(tmp_path), 60, Silent())
        again = await generate_rows(config, task, RunDir(tmp_path), 60, Silent())
    assert again == summary
    assert summary.is_reached
    assert all(summary.classes[label] >= count for label, count in shares(LABELS, 60).items())
    samples = read_samples(RunDir(tmp_path))
    assert len(samples) == summary.rows.accepted
    if kind == "pair":
        assert all(sample.annotation is not None and sample.annotation.text_pair for sample in samples)
    else:
        found = [sample.annotation.labels or () for sample in samples if sample.annotation is not None]
        assert Counter(label for labels in found for label in labels) == summary.classes
        asked = Counter(sample.origin.weakness.removeprefix("class:") for sample in samples)
        assert set(asked) == set(LABELS)
