"""Every method with a task small enough to read, and whole runs of it against a scripted teacher."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine.config import DataConfig, GatesConfig, LabelConfig, RunConfig, TaskConfig, TeacherConfig
from engine.generation import Generation, open_generation
from engine.progress import Silent
from engine.records import Example, Label, Pool, RoundRecord, TaskSpec
from engine.reports import ClassScore, Confusion, MinedRow, PoolRow, Scores, WeaknessReport
from engine.rundir import RunDir
from engine.server.fleet import Fleet
from engine.store import read_samples
from engine.strategies import STRATEGIES
from engine.teacher.teacher import Teacher
from tests.engine.asking import make_lane

LABELS: tuple[str, ...] = ('cancel "now"', "umtauschen: Größe/Farbe", "追跡")
HELD_OUT = ("validationrow", "testrow")
TAUGHT = [name for name in STRATEGIES if name != "seed_only"]
"""Methods that have rounds."""


def make_task(folder: Path, seed_per_class: int = 3) -> TaskSpec:
    """Texts say which split they are of, in words that stand in no prompt; the pool holds rows of validation and test too."""

    def rows(split: str, count: int) -> tuple[Example, ...]:
        return tuple(Example(f"{split} row {number} about {label}", label) for number in range(count) for label in LABELS)

    validation, test = rows(HELD_OUT[0], 2), rows(HELD_OUT[1], 2)
    texts = [f"pool row {number}" for number in range(60)] + [row.text for row in (*validation, *test)]
    pool = folder / "pool.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    pool.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    labels = tuple(Label(label, f"all about {label}") for label in LABELS)
    seed = rows("seed", seed_per_class)
    return TaskSpec("classification", "messages to a help desk", labels, seed, validation, test, Pool(str(pool), "text", len(texts)))


def make_config(method: str, *, prompts: Path | None = None, sections: Mapping[str, Any] | None = None, **settings: Any) -> RunConfig:
    """A round is eight rows, if the method has rounds. `settings` are the method's, `sections` other parts of the configuration."""
    nowhere = Path("unused.jsonl")
    rounds = {} if method == "seed_only" else {"rows_per_round": 8, "rows_per_call": 4}
    content = {
        "name": "test",
        "seed": 3,
        "task": TaskConfig(
            domain="messages to a help desk",
            labels=tuple(LabelConfig(name=label) for label in LABELS),
            data=DataConfig(seed=nowhere, validation=nowhere, test=nowhere, pool=nowhere),
        ),
        "teacher": TeacherConfig(model="scripted"),
        "gates": GatesConfig(near_duplicates=False),  # what the scripted teacher writes is alike
        "strategy": {"type": method, **rounds, **settings},
        "prompts": prompts,
        **(sections or {}),
    }
    return RunConfig.model_validate(content)


@asynccontextmanager
async def generating(root: Path, config: RunConfig, task: TaskSpec, teacher: Teacher) -> AsyncGenerator[Generation]:
    run = RunDir(root)
    run.create()
    fleet = Fleet((make_lane(teacher, 8),), "scripted", None, 300.0, Silent(), lambda _note: None)
    async with open_generation(config, task, run, fleet) as generation:
        yield generation


def report_on(root: Path, task: TaskSpec, round: int) -> WeaknessReport:
    """What a student would report that takes every second row it has seen for something else. It has mined no validation row."""
    seen = [*task.seed, *(Example(sample.text, sample.label) for sample in read_samples(RunDir(root)))]
    taken_for = dict(zip(LABELS, (*LABELS[1:], LABELS[0]), strict=True))
    right = [MinedRow(row.text, row.label, row.label, 0.8) for row in seen[::2]]
    wrong = [MinedRow(row.text, row.label, taken_for[row.label], 0.7) for row in seen[1::2]]
    uncertain = tuple(PoolRow(f"pool row {number}", LABELS[0], 0.4) for number in range(8)) if round == 1 else None
    return make_report(round, right, wrong, uncertain=uncertain)


def make_report(round: int, right: Sequence[MinedRow], wrong: Sequence[MinedRow], **told: Any) -> WeaknessReport:
    """On all rows seen, of which the first two that are wrong are the hard ones; `told` takes the place of what is made up."""
    made_up: dict[str, Any] = {
        "loss": 1.0,
        "scores": Scores(0.5, 0.5, 0.5, 6),
        "classes": tuple(ClassScore(label, 0.5, 0.5, 0.5, 2) for label in LABELS),
        "confusions": tuple(Confusion(label, other, 1) for label, other in zip(LABELS, (*LABELS[1:], LABELS[0]), strict=True)),
        "mining": "out_of_fold",
        "num_train_rows": len(right) + len(wrong),
        "train_s": 0.0,
        "epochs": 1,
    }
    return WeaknessReport(round=round, right=tuple(right), wrong=tuple(wrong[2:]), hard=tuple(wrong[:2]), **made_up | told)


async def teach(
    root: Path,
    config: RunConfig,
    task: TaskSpec,
    teacher: Teacher,
    rounds: int = 2,
    report_on: Callable[[Path, TaskSpec, int], WeaknessReport] = report_on,
    every: int = 1,
) -> list[RoundRecord]:
    """So many rounds from the first on, each answering a report on the rounds before; a report comes after so many rounds."""
    records: list[RoundRecord] = []
    reports: list[WeaknessReport] = []
    async with generating(root, config, task, teacher) as generation:
        for round in range(1, rounds + 1):
            if (round - 1) % every == 0:
                reports.append(report_on(root, task, round - 1))
            records.append(await generation.ask_round(round, reports[-1], Silent(), reports[:-1]))
    return records
