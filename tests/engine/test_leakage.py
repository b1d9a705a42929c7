"""No prompt of a whole run shows a text of validation or test, unless an option says so, and then the run says so.

What is searched is what came in at the server's socket, and again what the tables say was sent. The student is honest here: it mines what
it is told to mine. What a real one mines is tested beside it; what is searched for here is all that the engine might do with what it holds.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from engine import loop
from engine.config import RunConfig
from engine.gates.gates import comparable
from engine.progress import Silent
from engine.prompting import LOCAL
from engine.records import Example, Finish, TaskSpec
from engine.reports import FinalReport, MinedRow, Scores, StudentScores, WeaknessReport
from engine.rundir import RunDir, read_json
from engine.runs.manifest import Manifest
from engine.runs.summary import Summary
from engine.store import connect, read_rejections, read_rounds, read_samples, unescape
from engine.testing import server as scripted
from engine.testing.server import ScriptedServer
from tests.engine.strategies.schooling import TAUGHT, make_config, make_task, report_on

ROUNDS = 2
METHODS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in TAUGHT if name != "eda"),
    ("evokd", {"init_rounds": 1, "first_batch": "unguided", "rounds": 3}),
    ("hybrid", {"labelling": "none"}),
    ("pool", {"rows_per_call": 4, "pick": "random"}),
]
SCORES = Scores(0.5, 0.5, 0.5, 6)


class Wire:
    """The prompts that reached the server."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def asked(self, body: bytes) -> None:
        self.prompts += [message["content"] for message in json.loads(body)["messages"]]

    def answered(self, body: bytes, texts: Sequence[str]) -> None:
        pass


class Student:
    """Stands in for the worker's process; `shows` are rows that it mines beside those it may."""

    pid = 0

    def __init__(self, run: RunDir, task: TaskSpec, shows: Sequence[Example] = ()) -> None:
        self._run = run
        self._task = task
        self._shows = shows

    async def __aenter__(self) -> Student:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    async def report_after(self, round: int) -> WeaknessReport:
        round += 1
        while round and round not in {record.round for record in read_rounds(self._run)}:  # noqa: ASYNC110 - files tell
            await asyncio.sleep(0.01)
        report = report_on(self._run.root, self._task, round)
        # In turn by round, as a prompt has room for some only.
        shown = [self._shows[(round + place) % len(self._shows)] for place in range(min(2, len(self._shows)))]
        rows = tuple(MinedRow(row.text, row.label, self._task.label_names[0], 0.99) for row in shown)
        return replace(report, loss=1.0 - round / 10, wrong=(*rows, *report.wrong), hard=(*rows, *report.hard))

    async def final_report(self) -> FinalReport:
        best = read_json(self._run.finish, Finish).best_round
        before, after = (StudentScores(round, SCORES, (), ()) for round in (0, best))
        return FinalReport(before, after, "none", 0, "none")


async def run_whole(
    monkeypatch: pytest.MonkeyPatch, root: Path, config: RunConfig, task: TaskSpec, shows: Sequence[Example] = ()
) -> tuple[Summary, list[str]]:
    """The loop from the first report to the summary, and all prompts that came in at the server."""
    run, wire = RunDir(root), Wire()
    monkeypatch.setattr(loop, "StudentProcess", lambda *_, **__: Student(run, task, shows))  # pyright: ignore[reportUnknownLambdaType]
    async with ScriptedServer(ledger=wire) as server:
        teacher = config.teacher.model_copy(update={"endpoint": server.base_url})
        summary = await loop.run_loop(config.model_copy(update={"teacher": teacher}), task, run, Silent())
    with connect(run) as connection:
        sent = connection.execute(
            "select content from (select prompt_hash, unnest(messages, recursive := true) from prompts) "
            f"where prompt_hash in (select prompt_hash from calls where model <> '{LOCAL}')"
        ).fetchall()
    assert {unescape(text) for (text,) in sent} == set(wire.prompts)
    assert summary.rounds == config.strategy.rounds
    return summary, wire.prompts


def find(texts: Iterable[str], prompts: Iterable[str]) -> set[str]:
    """Those texts that stand in a prompt: as they are, as JSON has them, or in other case, spacing and punctuation."""
    whole = "\n".join(prompts)
    folded = f" {comparable(whole)} "
    forms = {text: (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]) for text in texts}
    return {text for text, written in forms.items() if any(form in whole for form in written) or f" {comparable(text)} " in folded}


def held_out(task: TaskSpec) -> list[str]:
    return [row.text for rows in (task.validation, task.test) for row in rows]


@pytest.mark.parametrize(("method", "settings"), METHODS)
async def test_no_prompt_of_a_run_shows_validation_or_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, settings: dict[str, Any]
) -> None:
    task = make_task(tmp_path / "task")
    known: dict[str, Any] = {"rounds": ROUNDS}
    config = make_config(method, **(known | settings))
    summary, prompts = await run_whole(monkeypatch, tmp_path / "run", config, task)
    assert find(held_out(task), prompts) == set()
    assert summary.leaks == ()
    # That there was something to search, and that the search finds what is there.
    assert summary.rows.accepted > 0
    shown = ["pool row"] if method == "pool" else [] if method in ("zerogen", "attrprompt") else ["seed row"]
    assert all(any(words in prompt for prompt in prompts) for words in [*shown, "messages to a help desk"])


@pytest.mark.parametrize("method", ["pgkd", "evokd", "hybrid"])
async def test_the_option_that_shows_validation_rows_shows_them_and_no_test_row_and_the_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    task = make_task(tmp_path / "task")
    config = make_config(method, rounds=ROUNDS, mining="held_out")
    summary, prompts = await run_whole(monkeypatch, tmp_path / "run", config, task, shows=task.validation)
    found = find(held_out(task), prompts)
    assert found
    assert found <= {row.text for row in task.validation}
    (leak,) = summary.leaks
    assert "mining = held_out" in leak
    assert read_json(RunDir(tmp_path / "run").run_json, Manifest).leaks == summary.leaks


@pytest.mark.parametrize(("method", "split"), [("pgkd", "validation"), ("evokd", "test"), ("hybrid", "validation"), ("hybrid", "test")])
async def test_the_search_finds_a_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, split: str) -> None:
    """A student that mines what it must not: the tests above can fail."""
    task = make_task(tmp_path / "task")
    rows: tuple[Example, ...] = getattr(task, split)
    _, prompts = await run_whole(monkeypatch, tmp_path / "run", make_config(method, rounds=ROUNDS), task, shows=rows)
    found = find(held_out(task), prompts)
    assert found
    assert found <= {row.text for row in rows}


def test_a_text_is_found_however_it_is_written() -> None:
    text = 'He said "no",\nthen:  Größe 42'
    for written in (text, json.dumps(text), json.dumps(text, ensure_ascii=False), "HE SAID NO THEN GRÖSSE 42"):
        assert find([text], ["before", f'{{"text": {written}}}']) == {text}
    assert find([text], ["he said nothing; then: Größe 42"]) == set()


@pytest.mark.parametrize("method", ["pgkd", "auggpt", "attrprompt", "llm2llm"])
async def test_what_a_teacher_knows_by_heart_is_refused_and_never_shown_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """It writes rows of validation and test by itself. (Where it labels in a request of its own it reads there what it wrote, refused or
    not: that tells it nothing that it did not say.)
    """
    task = make_task(tmp_path / "task")
    known = iter(held_out(task) * 100)
    write = scripted.rows_for

    def by_heart(schema: str, *, seed: str) -> str:
        rows = json.loads(write(schema, seed=seed))
        if isinstance(rows, list) and isinstance(rows[0], dict):
            rows[0]["text"] = next(known).upper()
        return json.dumps(rows)

    monkeypatch.setattr(scripted, "rows_for", by_heart)
    _, prompts = await run_whole(monkeypatch, tmp_path / "run", make_config(method, rounds=ROUNDS), task)
    run = RunDir(tmp_path / "run")
    assert find(held_out(task), prompts) == set()
    assert find(held_out(task), [sample.text for sample in read_samples(run)]) == set()
    assert sum(str(rejection.reason) == "leakage" for rejection in read_rejections(run)) >= ROUNDS
