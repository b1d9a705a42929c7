"""Soft labels and several teachers in whole rounds, behind real sockets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.config import RunConfig
from engine.errors import RefluxError, UserError
from engine.generation import open_generation
from engine.loop import single_errors
from engine.progress import Silent
from engine.records import RejectionReason, RoundRecord, RowCounts, Sample, TaskSpec
from engine.rehearsal import make_up_report
from engine.rundir import RunDir
from engine.server.fleet import open_fleet
from engine.store import connect, read_samples
from engine.testing.server import ScriptedServer
from tests.engine.soft_runs import Seen, make_run, make_task
from tests.engine.strategies.schooling import make_config


async def teach(root: Path, config: RunConfig, task: TaskSpec, rounds: int = 2) -> list[RoundRecord]:
    """From the first round that is not complete."""
    run = RunDir(root)
    run.create()
    with single_errors():
        async with (
            open_fleet(config.teacher, config.engine, run, Silent(), lambda _note: None, config.teachers) as fleet,
            open_generation(config, task, run, fleet) as generation,
        ):
            return [
                await generation.ask_round(round, make_up_report(config, task, round - 1), Silent())
                for round in range(generation.last_round + 1, rounds + 1)
            ]
    raise AssertionError


def query(root: Path, sql: str) -> list[tuple[Any, ...]]:
    with connect(RunDir(root)) as connection:
        return connection.execute(sql).fetchall()


def assert_adds_up(root: Path, records: Sequence[RoundRecord]) -> RowCounts:
    """Rounds, calls and rows say the same, and each call is there once."""
    total = sum((record.rows for record in records), RowCounts())
    assert total.is_balanced
    (calls,) = query(root, "select count(*), count(distinct request_id), sum(completion_tokens), sum(rows_requested) from calls")
    (rows,) = query(root, "select (select count(*) from samples), (select count(*) from rejections where reason <> 'surplus')")
    assert calls == (*[sum(record.calls for record in records)] * 2, sum(record.completion_tokens for record in records), total.requested)
    assert rows == (total.accepted, total.rejected)
    return total


def assert_soft(samples: Sequence[Sample], task: TaskSpec) -> None:
    assert samples
    for sample in samples:
        assert sample.annotation is not None
        probabilities = sample.annotation.probabilities
        assert probabilities is not None
        assert len(probabilities) == len(task.labels)
        assert sum(probabilities) == pytest.approx(1.0, abs=1e-5)
        assert sample.annotation.agreement == probabilities[task.label_names.index(sample.label)]


@pytest.mark.parametrize("method", ["evokd", "hybrid", "pool"])
async def test_two_classes(tmp_path: Path, method: str) -> None:
    task = make_task(tmp_path, 2)
    settings = {"disagreement": "keep"} if method == "hybrid" else {}
    async with ScriptedServer() as server:
        records = await teach(tmp_path / "run", make_run(method, server, labelling={"soft": True}, **settings), task)
    assert assert_adds_up(tmp_path / "run", records).accepted == 16
    assert_soft(read_samples(RunDir(tmp_path / "run")), task)
    # Two rows of the seed calibrate it, once.
    assert query(tmp_path / "run", "select count(*) from calls where template like 'labelling/code@%'") == [(16 + 2,)]


async def test_150_classes_take_two_tokens_and_further_calls(tmp_path: Path) -> None:
    task = make_task(tmp_path, 150)
    labelling = {"soft": True, "calibration_rows": 15, "min_agreement": 0.0}
    async with ScriptedServer(["unsure:2"]) as server:
        records = await teach(tmp_path / "run", make_run("pool", server, labelling=labelling, rows_per_call=1), task)
    assert assert_adds_up(tmp_path / "run", records).accepted == 16
    assert_soft(read_samples(RunDir(tmp_path / "run")), task)
    kinds = dict(query(tmp_path / "run", "select regex = '[A-O][0-9]', count(*) from calls group by 1"))
    assert kinds[True] == 16 + 15
    assert kinds[False] > 0
    (sizes,) = query(tmp_path / "run", "select distinct max_tokens, top_logprobs, len(logprobs), len(logprobs[2]) from calls")
    assert sizes == (2, 20, 2, 20)


async def test_rows_below_the_threshold_are_rejected_and_counted(tmp_path: Path) -> None:
    task = make_task(tmp_path, 3)
    labelling = {"soft": True, "calibrate": "none", "min_agreement": 0.5}
    async with ScriptedServer(["unsure:4"]) as server:
        records = await teach(tmp_path / "run", make_run("pool", server, labelling=labelling, rows_per_call=2), task)
    total = assert_adds_up(tmp_path / "run", records)
    assert (total.requested, total.accepted, total.rejected) == (16, 12, 4)
    rejections = query(tmp_path / "run", "select reason, detail, label, agreement, len(label_probabilities) from rejections")
    for reason, detail, label, agreement, size in rejections:
        assert reason == RejectionReason.UNCERTAIN
        assert detail.startswith("agreement 0.")
        assert label in task.label_names
        assert agreement < 0.5
        assert size == 3


@pytest.mark.parametrize("soft", [True, False])
async def test_two_teachers_write_their_shares_and_label_together(tmp_path: Path, soft: bool) -> None:
    task = make_task(tmp_path, 2)
    labelling = {"soft": soft, "min_agreement": 0.6}
    big, small = Seen(), Seen()
    async with ScriptedServer(model="big", ledger=big) as one, ScriptedServer(model="small", ledger=small) as other:
        config = make_run("evokd", one, other, labelling=labelling, rows_per_round=32)
        records = await teach(tmp_path / "run", config, task)
    total = assert_adds_up(tmp_path / "run", records)
    assert 0 < total.accepted < total.requested == 64
    assert {json.loads(body)["model"] for body in big.asked_bodies} == {"big"}
    assert {json.loads(body)["model"] for body in small.asked_bodies} == {"small"}
    yields = query(
        tmp_path / "run",
        "select teacher, requested, accepted, rejected, failed, reasons['uncertain'], writing_calls, labelling_calls, calls, "
        "prompt_tokens + completion_tokens from teachers",
    )
    assert [row[0] for row in yields] == ["big", "small"]
    assert [sum(row[column] for row in yields) for column in (1, 2, 3, 4)] == [64, total.accepted, total.rejected, 0]
    assert sum(row[5] for row in yields) == total.rejected > 0
    assert all(6 <= row[6] <= 10 for row in yields)
    assert sum(row[9] for row in yields) == sum(record.prompt_tokens + record.completion_tokens for record in records)
    # Each labels every row, whoever wrote it: in soft ones a text a call, and two of the seed before.
    assert {row[7] for row in yields} == {64 + 2 if soft else 16}
    written = query(tmp_path / "run", "select teacher, count(*) from samples group by 1 order by 1")
    assert written == [(row[0], row[2]) for row in yields]
    agreements = {sample.annotation and sample.annotation.agreement for sample in read_samples(RunDir(tmp_path / "run"))}
    if soft:
        assert_soft(read_samples(RunDir(tmp_path / "run")), task)
    else:
        assert agreements == {1.0}


@pytest.mark.parametrize("num_labels", [2, 50])
async def test_a_run_stopped_in_the_middle_asks_nothing_twice_and_comes_to_the_same(tmp_path: Path, num_labels: int) -> None:
    task = make_task(tmp_path, num_labels)
    labelling = {"soft": True, "calibration_rows": 12}

    async def run(root: Path, behaviour: str, rounds: int) -> tuple[list[RoundRecord], Seen]:
        seen = Seen()
        async with ScriptedServer([behaviour], model="big", ledger=seen) as one, ScriptedServer(model="small", ledger=seen) as other:
            config = make_run("evokd", one, other, labelling=labelling)
            try:
                return await teach(root, config, task, rounds), seen
            except RefluxError:
                return [], seen

    whole, undisturbed = await run(tmp_path / "whole", "instant", 3)
    answered: list[bytes] = []
    records: list[RoundRecord] = []
    for behaviour, rounds in (("die:9", 1), ("die:20", 1), ("instant", 1), ("die:6", 3), ("instant", 3)):
        done, seen = await run(tmp_path / "stopped", behaviour, rounds)
        records += done
        answered += seen.answered_bodies
    # At a kill what was answered and not yet recorded would be asked again; here each process ends in peace.
    assert len(set(answered)) == len(answered)
    assert set(answered) == set(undisturbed.answered_bodies)
    assert assert_adds_up(tmp_path / "stopped", records) == assert_adds_up(tmp_path / "whole", whole)
    one, other = (read_samples(RunDir(tmp_path / name)) for name in ("whole", "stopped"))
    assert {(row.id, row.text, row.label, row.annotation) for row in one} == {
        (row.id, row.text, row.label, row.annotation) for row in other
    }


async def test_two_names_for_one_model_are_refused(tmp_path: Path) -> None:
    async with ScriptedServer(model="here") as server:
        teacher = {"model": "/somewhere/tiny", "endpoint": server.base_url}
        config = make_config("evokd", sections={"teacher": teacher, "teachers": [{**teacher, "model": "/elsewhere/small"}]})
        with pytest.raises(UserError, match="two teachers are called 'here'"):
            await teach(tmp_path / "run", config, make_task(tmp_path, 2), 1)
