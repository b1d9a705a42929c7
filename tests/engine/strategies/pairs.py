"""A task whose rows are pairs of texts, small enough to read, and what a student would report of it; the rest is as in `schooling`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.config import DataConfig, LabelConfig, RunConfig, TaskConfig
from engine.records import Example, TaskSpec, content_of
from engine.reports import MinedRow, PoolRow, Weakness, WeaknessReport
from engine.rundir import RunDir
from engine.store import read_samples
from engine.task.task import find_pool
from tests.engine.strategies.schooling import LABELS, make_config, make_report, make_task


def make_pair_task(folder: Path) -> TaskSpec:
    """The texts of `schooling`, each beside one that tells its number; the pool holds pairs of validation and test too."""
    task = make_task(folder)

    def paired(rows: tuple[Example, ...], what: str) -> tuple[Example, ...]:
        return tuple(replace(row, text_pair=f"{what} side {number}") for number, row in enumerate(rows))

    validation, test = paired(task.validation, "validation"), paired(task.test, "test")
    pool = folder / "pool_of_pairs.jsonl"
    lines = [{"text": f"pool row {number}", "text_pair": f"pool side {number}"} for number in range(64)]
    lines += [{"text": row.text, "text_pair": str(row.text_pair)} for row in (*validation, *test)]
    pool.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return replace(
        task,
        kind="pair",
        domain="a question to a help desk, and what it answered",
        seed=paired(task.seed, "seed"),
        validation=validation,
        test=test,
        pool=find_pool(pool, "text", "text_pair"),
    )


def make_pair_config(method: str, **settings: Any) -> RunConfig:
    nowhere = Path("unused.jsonl")
    task = TaskConfig(
        kind="pair",
        domain="a question to a help desk, and what it answered",
        labels=tuple(LabelConfig(name=label) for label in LABELS),
        data=DataConfig(seed=nowhere, validation=nowhere, test=nowhere, pool=nowhere),
    )
    return make_config(method, sections={"task": task} | settings.pop("sections", {}), **settings)


def report_on_pairs(root: Path, task: TaskSpec, round: int) -> WeaknessReport:
    """Of a student that takes every second row it has seen for something else."""
    samples = [(content_of(row), row.label) for row in read_samples(RunDir(root))]
    seen = [(row.content, row.label) for row in task.seed] + samples
    taken_for = dict(zip(LABELS, (*LABELS[1:], LABELS[0]), strict=True))

    def mined(content: Any, label: str, said: str, confidence: float) -> MinedRow:
        return MinedRow(content[0], label, said, confidence, text_pair=content[1])

    right = [mined(content, label, label, 0.8) for content, label in seen[::2]]
    wrong = [mined(content, label, taken_for[label], 0.7) for content, label in seen[1::2]]
    return make_report(
        round,
        right,
        wrong,
        uncertain=tuple(_uncertain(number) for number in range(8)) if round == 1 else None,
        weaknesses=(Weakness(f"pair:{LABELS[0]}>{LABELS[1]}", LABELS[:2], 1, 2, 0.1, tuple(wrong[:1])),),
    )


def _uncertain(number: int) -> PoolRow:
    return PoolRow(f"pool row {number}", LABELS[0], 0.4, f"pool side {number}")
