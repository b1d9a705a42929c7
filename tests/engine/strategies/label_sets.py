"""A task whose texts have any number of labels, small enough to read, and what a student would report of it; the rest is as in
`schooling`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.config import DataConfig, LabelConfig, RunConfig, TaskConfig
from engine.records import Example, TaskSpec
from engine.reports import MinedRow, PoolRow, Scores, Weakness, WeaknessReport
from engine.rundir import RunDir
from engine.store import read_samples
from tests.engine.strategies.schooling import LABELS, make_config, make_report, make_task


def make_set_task(folder: Path, *, allow_none: bool = True) -> TaskSpec:
    """The texts of `schooling`; of three rows the first has one label, the second two, and the third none where that may be."""
    task = make_task(folder)

    def several(rows: tuple[Example, ...]) -> tuple[Example, ...]:
        fewest = 0 if allow_none else 1
        labels = [LABELS[place % 3 : place % 3 + 1 + place % 2] if place % 3 < 2 else LABELS[2 : 2 + fewest] for place in range(len(rows))]
        return tuple(replace(row, label="", labels=own) for row, own in zip(rows, labels, strict=True))

    seed = (*several(task.seed), *(Example(f"seed row about {label}", "", labels=(label,)) for label in LABELS))
    held_out = {name: several(getattr(task, name)) for name in ("validation", "test")}
    return replace(task, kind="multi_label", seed=seed, allow_none=allow_none, **held_out)


def make_set_config(method: str, *, allow_none: bool = True, **settings: Any) -> RunConfig:
    nowhere = Path("unused.jsonl")
    task = TaskConfig(
        kind="multi_label",
        domain="messages to a help desk",
        labels=tuple(LabelConfig(name=label) for label in LABELS),
        data=DataConfig(seed=nowhere, validation=nowhere, test=nowhere, pool=nowhere),
        allow_none=allow_none,
    )
    return make_config(method, sections={"task": task} | settings.pop("sections", {}), **settings)


def report_on_sets(root: Path, task: TaskSpec, round: int) -> WeaknessReport:
    """Of a student that takes each label for the next in every second row, and finds one in a row without any."""
    samples = [(row.text, row.annotation) for row in read_samples(RunDir(root))]
    seen = [*task.seed, *(Example(text, "", labels=(annotation and annotation.labels) or ()) for text, annotation in samples)]
    taken_for = dict(zip(LABELS, (*LABELS[1:], LABELS[0]), strict=True))

    def guess(row: Example) -> tuple[str, ...]:
        said = {taken_for[label] for label in row.labels} if row.labels else {LABELS[0]}
        return tuple(label for label in LABELS if label in said)

    right = [MinedRow(row.text, "", "", 0.8, labels=row.labels, predicted_labels=row.labels) for row in seen[::2]]
    wrong = [MinedRow(row.text, "", "", 0.7, labels=row.labels, predicted_labels=guess(row)) for row in seen[1::2]]
    return make_report(
        round,
        right,
        wrong,
        scores=Scores(0.5, 0.5, 0.5, 6, micro_f1=0.5, has_sets=True),
        uncertain=tuple(PoolRow(f"pool row {number}", "", 0.4) for number in range(8)) if round == 1 else None,
        weaknesses=(
            Weakness(f"pair:{LABELS[0]}>{LABELS[1]}", LABELS[:2], 1, 2, 0.1, ()),
            Weakness(f"class:{LABELS[2]}", LABELS[2:], 1, 2, 0.1, ()),
        ),
    )
