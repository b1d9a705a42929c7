"""Every prompt of the project, asked of the quickstart's teacher by the methods themselves: what they plan, they ask, and what they read.

Nothing is constrained, so that it shows what the teacher has learned. Reports are made up, and all rows that a prompt shows are seed rows,
which the teacher never saw; the texts to be labelled are test rows. Rows pass the gates of a run.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal, TypeAlias

from engine.config import RunConfig, TeacherConfig, load_config
from engine.gates.gates import Gatekeeper, Refusal
from engine.generation import make_gatekeeper
from engine.prompting import Prompt, Prompter, open_prompter
from engine.records import Assignment, Candidate, Outcome, TaskSpec
from engine.rehearsal import make_up_report
from engine.reports import WeaknessReport
from engine.rundir import RunDir
from engine.server.server import VllmServer
from engine.strategies import Answer, Strategy, Written, make_strategy
from engine.strategies.forms import form_of
from engine.strategies.labelling import Labelled
from engine.strategies.marker import MarkedText
from engine.task.task import load_task
from engine.teacher.batcher import Batcher
from engine.teacher.concurrency import ConcurrencyController
from engine.teacher.lane import Lane
from engine.teacher.teacher import HttpTeacher

HERE = Path(__file__).parent
TaskName: TypeAlias = Literal["classification", "ner"]
CONFIGS: Mapping[TaskName, Path] = {"classification": HERE / "quickstart.toml", "ner": HERE / "ner.toml"}
SHOWN = {"rows_per_call": 8, "examples": 8, "right": 4, "wrong": 4, "hard": 4}
METHODS: Mapping[str, Mapping[str, object]] = {
    "pgkd": {**SHOWN, "focus": True},
    "unguided": {"rows_per_call": 8, "examples": 8, "focus": True},
    "zerogen": {"rows_per_call": 8},
    "auggpt": {"rows_per_call": 4},
    "llm2llm": {"rows_per_call": 4},
    "attrprompt": {"rows_per_call": 8},
    "evokd": {"rows_per_call": 8, "shown": 4},
    "hybrid": SHOWN,
}
"""Those that write, with what the task files of this folder tell them."""
DRAWS = 6
"""Of seed rows."""
TOGETHER = 8
"""Texts in a request for several labels."""
CODES = "codes"


@dataclass(frozen=True, slots=True)
class Row:
    """One that came back, or was to."""

    candidate: Candidate
    refusal: Refusal | None
    asked: str
    """The label, or the type, that it was to have; empty where the teacher chose."""


@dataclass(frozen=True, slots=True)
class Writing:
    """What one method got."""

    num_asked: int
    rows: tuple[Row, ...]
    replies: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Labelling:
    """What the teacher says of all test rows, in their order."""

    said: tuple[Labelled | MarkedText, ...]
    replies: tuple[Answer, ...]


@dataclass(slots=True)
class Examination:
    """Of one task."""

    config: RunConfig
    task: TaskSpec
    writing: dict[str, Writing]
    labelling: dict[str, Labelling]
    """One text a request (`label`), several (`batch`), and for labels by log-probabilities (`codes`)."""


@asynccontextmanager
async def serving(model: Path) -> AsyncGenerator[tuple[str, Batcher]]:
    """The name of the model in requests, and who sends them."""

    async def record(_outcome: Outcome) -> None: ...

    with tempfile.TemporaryDirectory(prefix="reflux-examination-") as folder:
        config = TeacherConfig(model=str(model), kv_cache_gib=0.25)
        async with (
            VllmServer(config, run=Path(folder), log=Path(folder) / "server.log", on_phase=print) as server,
            HttpTeacher(server.endpoint, timeout_s=300, stall_s=120) as teacher,
            Batcher([Lane(teacher, ConcurrencyController())], attempts=2, random=random.Random(0), record=record) as batcher,
        ):
            yield server.endpoint.model, batcher


async def examine(name: TaskName, model: str, batcher: Batcher, requests: int) -> Examination:
    """`requests`: assignments of each method; a method may ask several times for one."""
    config = load_config(CONFIGS[name], {"sampling.constrained": False})
    task = load_task(config.task, seed=1)
    writing: dict[str, Writing] = {}
    for method, settings in METHODS.items():
        writing[method] = await _write(name, method, settings, model, batcher, requests)
        print(f"{name}: {method}, {len(writing[method].replies)} replies", flush=True)
    labelling = {
        "label": await _label(config, task, model, batcher, together=1),
        "batch": await _label(config, task, model, batcher, together=TOGETHER),
    }
    if name == "classification":
        # A method that labels in a request of its own; the task is the same.
        soft = load_config(HERE / "hybrid.toml", {"sampling.constrained": False, "labelling.soft": True})
        labelling[CODES] = await _label(soft, task, model, batcher, together=1)
    return Examination(config, task, writing, labelling)


async def _write(name: TaskName, method: str, settings: Mapping[str, object], model: str, batcher: Batcher, requests: int) -> Writing:
    """A part of the first round of several runs, each of which has drawn other seed rows."""
    replies: list[Answer] = []
    rows: list[Row] = []
    num_asked = 0
    gates = _gates(name)
    strategy_settings = {"type": method, **settings, "rows_per_round": requests * int(str(settings["rows_per_call"]))}
    for seed in range(DRAWS):
        config = load_config(CONFIGS[name], {"seed": seed, "sampling.constrained": False, "strategy": strategy_settings})
        task = load_task(config.task, seed)
        prompter = open_prompter(config, model)
        strategy, report = make_strategy(config, task, prompter), make_up_report(config, task)
        # Plans are sorted by label: every part has some of each.
        plan = list(strategy.plan(1, report))[seed::DRAWS]

        async def carry_out(
            assignment: Assignment, strategy: Strategy = strategy, report: WeaknessReport = report, prompter: Prompter = prompter
        ) -> Sequence[Written]:
            turns = count()

            async def ask(prompt: Prompt) -> Answer:
                answer = await _send(batcher, prompter, prompt, assignment, next(turns))
                replies.append(answer)
                return answer

            return await strategy.carry_out(assignment, report, ask)

        for assignment, written in zip(plan, await asyncio.gather(*map(carry_out, plan)), strict=True):
            num_asked += assignment.num_rows
            asked = assignment.focus[0] if assignment.focus else ""
            candidates = [candidate for part in written for candidate in part.candidates[: part.num_rows]]
            rows += [Row(candidate, refusal, asked) for candidate, refusal in zip(candidates, gates.judge(candidates), strict=True)]
    return Writing(num_asked, tuple(rows), tuple(replies))


def _gates(name: TaskName) -> Gatekeeper:
    """As those of a run that has just begun, but with all seed rows known, whichever are drawn."""
    config = load_config(CONFIGS[name], {"task.data.seed_rows_per_class": None})
    with tempfile.TemporaryDirectory() as folder:
        return make_gatekeeper(config, load_task(config.task, seed=0), RunDir(Path(folder)))


async def _label(config: RunConfig, task: TaskSpec, model: str, batcher: Batcher, *, together: int) -> Labelling:
    prompter = open_prompter(config, model)
    labeller = form_of(task).labeller(prompter)
    replies: list[Answer] = []
    texts = [row.text for row in task.test]
    groups = [texts[start : start + together] for start in range(0, len(texts), together)]

    async def label(number: int, texts: Sequence[str]) -> Sequence[Labelled | MarkedText]:
        assignment = Assignment(f"texts-{number}", number, 0, 0, "none", (), len(texts))

        async def ask(prompt: Prompt) -> Answer:
            answer = await _send(batcher, prompter, prompt, assignment, 0)
            replies.append(answer)
            return answer

        return await labeller.label(texts, ask)

    said = await asyncio.gather(*(label(number, texts) for number, texts in enumerate(groups)))
    print(f"{config.task.kind}: {len(task.test)} texts labelled, {together} a request", flush=True)
    return Labelling(tuple(each for group in said for each in group), tuple(replies))


async def _send(batcher: Batcher, prompter: Prompter, prompt: Prompt, assignment: Assignment, turn: int) -> Answer:
    request = prompter.assigned(prompt, assignment, turn)
    return Answer(prompt, request, await batcher.ask(request))
