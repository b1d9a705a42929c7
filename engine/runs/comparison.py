"""Several runs side by side. Figures of runs on other tasks or other rows stand there too, and are called what they are: not comparable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.errors import UserError
from engine.rundir import RunDir, read_json
from engine.runs.figures import RunFigures, Scored, read_figures
from engine.runs.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ClassShift:
    """F1 of one label in two runs, by the student that each keeps."""

    label: str
    support: int
    first: float
    second: float


@dataclass(frozen=True, slots=True)
class ClassShifts:
    split: Literal["test", "validation"]
    """`test` where both runs have finished."""
    shifts: tuple[ClassShift, ...]
    """Labels with rows, the largest difference first."""


@dataclass(frozen=True, slots=True)
class RunComparison:
    runs: tuple[RunFigures, ...]
    """As they were named."""
    not_comparable: tuple[str, ...]
    """Sentences that say which scores do not mean the same, and why; none where all runs answer the same question."""
    classes: ClassShifts | None
    """Of two runs that have the same labels and rows."""


def compare_runs(runs: Sequence[RunDir]) -> RunComparison:
    """UserError for fewer than two, and for a folder named twice."""
    places = [run.root.resolve() for run in runs]
    if len(places) < 2 or len({*places}) < len(places):
        raise UserError("give two or more different runs to compare, e.g. reflux compare runs/pgkd runs/unguided")
    figures = tuple(read_figures(run) for run in runs)
    manifests = [read_json(run.run_json, Manifest) for run in runs]
    first, *others = manifests
    found = [
        f"{run.root} has {what} than {runs[0].root}: {effect}"
        for run, manifest in zip(runs[1:], others, strict=True)
        for what, effect in _differences(first, manifest)
    ]
    return RunComparison(figures, tuple(found), _shifts(*figures) if len(figures) == 2 and not found else None)


def _differences(first: Manifest, second: Manifest) -> list[tuple[str, str]]:
    """What keeps the scores of the second from meaning what the first's mean."""
    tasks = first.config["task"], second.config["task"]
    if tasks[0]["kind"] != tasks[1]["kind"] or _labels(tasks[0]) != _labels(tasks[1]):
        return [("another task (other labels)", "none of their scores can be compared")]
    return [
        (f"other {split} rows", f"their scores on {split} cannot be compared")
        for split in ("validation", "test")
        if _are_other_rows(first, second, split)
    ]


def _labels(task: Mapping[str, Any]) -> set[str]:
    return {label["name"] for label in task["labels"]}


def _are_other_rows(first: Manifest, second: Manifest, split: str) -> bool:
    if split in first.data and split in second.data:
        return first.data[split] != second.data[split]
    # A run of an earlier version knows only where they lay.
    return first.config["task"]["data"][split] != second.config["task"]["data"][split]


def _shifts(first: RunFigures, second: RunFigures) -> ClassShifts | None:
    if first.test and second.test:
        return ClassShifts("test", _by_label(first.test.after, second.test.after))
    if first.validation and second.validation:
        return ClassShifts("validation", _by_label(first.validation.after, second.validation.after))
    return None


def _by_label(first: Scored, second: Scored) -> tuple[ClassShift, ...]:
    f1 = {score.label: score.f1 for score in second.classes}
    shifts = [
        ClassShift(score.label, score.support, score.f1, f1[score.label]) for score in first.classes if score.support and score.label in f1
    ]
    return tuple(sorted(shifts, key=lambda shift: -abs(shift.second - shift.first)))
