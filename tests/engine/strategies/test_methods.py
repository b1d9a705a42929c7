"""What holds for every method, in whole runs against a scripted teacher."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from engine.config import METHODS, RunConfig
from engine.loop import run_loop
from engine.progress import Silent
from engine.prompting import LOCAL
from engine.records import Request, RowCounts
from engine.rundir import RunDir, read_json
from engine.runs.manifest import begin
from engine.runs.summary import Summary
from engine.store import connect, read_samples
from engine.strategies import STRATEGIES
from engine.testing.server import ScriptedServer
from engine.testing.teacher import ScriptedTeacher, answer, write_rows
from tests.engine import builders, fake_student
from tests.engine.asking import refused
from tests.engine.strategies.schooling import HELD_OUT, LABELS, TAUGHT, make_config, make_task, teach

ASKING = [name for name in TAUGHT if name != "eda"]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in TAUGHT),
    ("evokd", {"init_rounds": 1, "first_batch": "unguided"}),
    ("hybrid", {"labelling": "none"}),
    ("hybrid", {"disagreement": "keep"}),
    ("pool", {"rows_per_call": 1}),
    ("evokd", {"sections": {"labelling": {"soft": True}}}),
    ("hybrid", {"sections": {"labelling": {"soft": True}}, "disagreement": "keep"}),
    ("pool", {"sections": {"labelling": {"soft": True}}}),
]


def test_every_method_has_a_section_of_the_configuration() -> None:
    assert set(STRATEGIES) == set(METHODS)


@pytest.mark.parametrize(("method", "settings"), VARIANTS)
async def test_rows_and_calls_add_up_and_no_prompt_shows_a_held_out_row(tmp_path: Path, method: str, settings: dict[str, Any]) -> None:
    task = make_task(tmp_path / "task")
    teacher = ScriptedTeacher(answer)
    records = await teach(tmp_path / "run", make_config(method, **settings), task, teacher, rounds=3)
    for record in records:
        assert record.rows.is_balanced
        assert record.rows.requested == 8
        assert record.rows.accepted > 0
    total = sum((record.rows for record in records), RowCounts())
    run = RunDir(tmp_path / "run")
    samples = read_samples(run)
    assert len(samples) == total.accepted
    assert {sample.label for sample in samples} <= set(LABELS)
    assert {sample.origin.strategy for sample in samples} == {method}
    with connect(run) as connection:
        calls = connection.execute("select rows_requested, rows_accepted, rows_rejected, rows_failed, rows_surplus from calls").fetchall()
        (asked,) = connection.execute(f"select count(*) from calls where model <> '{LOCAL}'").fetchall()
        (rejected,) = connection.execute("select count(*) from rejections").fetchall()
        prompts = connection.execute("select content from (select unnest(messages, recursive := true) from prompts)").fetchall()
        (tokens,) = connection.execute("select sum(completion_tokens) from calls").fetchall()
    assert all(RowCounts(*call).is_balanced for call in calls)
    assert sum((RowCounts(*call) for call in calls), RowCounts()) == total
    assert rejected == (total.rejected + total.surplus,)
    assert len(calls) == sum(record.calls for record in records)
    assert asked == (len(teacher.requests),)
    assert tokens == (sum(record.completion_tokens for record in records),)
    assert prompts
    assert [text for (text,) in prompts if any(word in text for word in HELD_OUT)] == []


@pytest.mark.parametrize(("method", "settings"), VARIANTS)
async def test_rounds_that_answer_an_old_report_bring_rows_of_their_own(tmp_path: Path, method: str, settings: dict[str, Any]) -> None:
    task = make_task(tmp_path / "task")
    records = await teach(tmp_path / "run", make_config(method, **settings), task, ScriptedTeacher(answer), rounds=5, every=3)
    assert [record.report for record in records] == [0, 0, 0, 3, 3]
    assert all(record.rows.is_balanced for record in records)
    assert all(record.rows.accepted > 0 for record in records)
    samples = read_samples(RunDir(tmp_path / "run"))
    assert {(sample.origin.round, sample.origin.report) for sample in samples} == {(1, 0), (2, 0), (3, 0), (4, 3), (5, 3)}
    assert len({sample.id for sample in samples}) == len(samples)


def test_the_one_option_that_shows_validation_rows_is_said_to_leak(tmp_path: Path) -> None:
    for method in ("pgkd", "evokd", "hybrid"):
        run = RunDir(tmp_path / method)
        run.create()
        begin(run, make_config(method, mining="held_out"))
        assert "mining = held_out" in read_json(run.run_json, dict[str, Any])["leaks"][0]


@pytest.mark.parametrize("method", ["evokd", "hybrid", "attrprompt", "eda"])
async def test_a_resumed_run_asks_what_an_undisturbed_one_would(tmp_path: Path, method: str) -> None:
    task, config = make_task(tmp_path / "task"), make_config(method)
    undisturbed = ScriptedTeacher(write_rows)
    await teach(tmp_path / "whole", config, task, undisturbed)

    class StoppedError(Exception):
        pass

    def script(request: Request) -> str:
        if len(teacher.requests) > 2:
            raise StoppedError
        return write_rows(request)

    teacher = ScriptedTeacher(script)
    if method in ASKING:
        with pytest.raises(ExceptionGroup):
            await teach(tmp_path / "stopped", config, task, teacher, rounds=1)
    asked = {request.id for request in teacher.requests}
    goes_on = ScriptedTeacher(write_rows)
    await teach(tmp_path / "stopped", config, task, goes_on)
    assert asked | {request.id for request in goes_on.requests} == {request.id for request in undisturbed.requests}
    texts = [
        sorted((sample.id, sample.text, sample.label) for sample in read_samples(RunDir(tmp_path / run))) for run in ("whole", "stopped")
    ]
    assert texts[0] == texts[1]


async def run_whole(config: RunConfig, endpoint: str, root: Path) -> Summary:
    """The loop, with a student in a process of its own and a server behind a socket."""
    program = (sys.executable, str(Path(fake_student.__file__)))
    teacher = config.teacher.model_copy(update={"endpoint": endpoint})
    return await run_loop(config.model_copy(update={"teacher": teacher}), builders.make_task(), RunDir(root), Silent(), program)


async def test_three_turns_through_the_whole_loop(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        summary = await run_whole(make_config("evokd", rounds=2), server.base_url, tmp_path)
        assert (summary.strategy, summary.rounds, summary.stopped) == ("evokd", 2, "all 2 rounds done")
        assert summary.rows == RowCounts(16, accepted=16)
        assert summary.teacher.calls == server.num_sequences == 2 * 2 * 3
    with connect(RunDir(tmp_path)) as connection:
        kinds = connection.execute("select weakness, count(*) from samples group by 1 order by 1").fetchall()
        turns = connection.execute(
            "select split_part(template, '@', 1), sum(rows_requested)::int from calls group by 1 order by 1"
        ).fetchall()
    assert kinds == [("easy", 8), ("hard", 8)]
    assert turns == [("evokd/analyse", 0), ("evokd/write", 16), ("labelling/batch", 0)]


async def test_the_seed_alone_needs_no_server(tmp_path: Path) -> None:
    summary = await run_whole(make_config("seed_only"), "http://127.0.0.1:9/v1", tmp_path)
    assert (summary.rounds, summary.stopped, summary.rows) == (0, "the method has no rounds", RowCounts())


@pytest.mark.parametrize("method", ["pgkd", "evokd", "hybrid", "attrprompt", "pool"])
async def test_a_teacher_that_never_answers_fails_every_row(tmp_path: Path, method: str) -> None:
    task = make_task(tmp_path / "task")
    (record,) = await teach(tmp_path / "run", make_config(method), task, ScriptedTeacher(lambda _: refused()), rounds=1)
    assert record.rows == RowCounts(8, failed=8)
