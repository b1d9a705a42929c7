"""What runs there are: state, figures and size of each, read without disturbing who works on them.

Never fails on one folder: what cannot be read makes it a broken run, with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from engine.errors import RefluxError, UserError
from engine.records import Finish
from engine.rundir import RunDir, read_json
from engine.runs.manifest import Manifest
from engine.runs.purpose import is_done
from engine.runs.retention import Part, file_bytes, file_statuses, freed_parts, part_bytes
from engine.store import SCHEMAS, read_rounds
from engine.store.segments import committed, open_segment, read_table, retry_moved

T = TypeVar("T")


class State(StrEnum):
    """How it stands with a run."""

    RUNNING = "running"
    """An engine or a student works on it."""
    FINISHED = "finished"
    STOPPED = "stopped"
    """The same `reflux run` goes on with it."""
    BROKEN = "broken"
    """Something in it cannot be read."""


@dataclass(frozen=True, slots=True)
class Score:
    """How good the student is."""

    macro_f1: float
    split: str
    """`test` once the run has finished, `validation` before."""
    round: int


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run, as a row of the list."""

    name: str
    """Of its folder."""
    path: str
    state: State
    problem: str | None
    """Why it is broken."""
    holders: tuple[str, ...]
    """Who works on it: `engine`, `student`, `compaction`."""
    freed: tuple[Part, ...]
    """What `reflux prune` has freed of it."""
    rounds: int
    """Completed ones."""
    rows: int
    """Accepted ones, those of a round in progress included."""
    score: Score | None
    num_bytes: int
    sizes: dict[str, int]
    """Bytes by part; `student` is the one to take home, `other` the run's account of itself."""
    created_at: str | None
    last_activity: str
    """When a file of it last changed, in UTC."""


def list_runs(folder: Path) -> list[RunInfo]:
    """The runs in this folder, or the run that it is, the last one worked on first. UserError if there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the one that holds the runs, by default runs")
    roots = [folder] if _is_run(folder) else _subfolders(folder)
    runs = [_describe(RunDir(root)) for root in roots if _is_run(root)]
    return sorted(sorted(runs, key=lambda run: run.name), key=lambda run: run.last_activity, reverse=True)


def _is_run(folder: Path) -> bool:
    """Also one that died before it was begun, or lost the file that says what it is."""
    run = RunDir(folder)
    return run.run_json.exists() or (run.tables.is_dir() and run.journal.is_dir())


def _subfolders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error


def _describe(run: RunDir) -> RunInfo:
    problems: list[str] = []

    def told(read: Callable[[], T], otherwise: T) -> T:
        # Each figure for itself: of a run that is partly broken the rest is told.
        try:
            return read()
        except (RefluxError, OSError, ValueError, pa.ArrowException) as error:
            problems.append(str(error))
            return otherwise

    created_at = told(lambda: read_json(run.run_json, Manifest).created_at, None)
    freed = told(lambda: freed_parts(run), frozenset[Part]())
    rounds = told(lambda: len(read_rounds(run)), 0)
    rows = told(lambda: _num_rows(run), 0)
    score = told(lambda: _score(run), None)
    holders = run.holders()
    sizes = _sizes(run)
    changed = max((status.st_mtime for status in file_statuses(run.root)), default=0.0)
    return RunInfo(
        name=run.root.resolve().name,
        path=str(run.root),
        state=find_state(run, holders, problems),
        problem=problems[0] if problems else None,
        holders=tuple(holders),
        freed=tuple(part for part in Part if part in freed),
        rounds=rounds,
        rows=rows,
        score=score,
        num_bytes=sum(sizes.values()),
        sizes=sizes,
        created_at=created_at,
        last_activity=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(changed)),
    )


def find_state(run: RunDir, holders: Sequence[str], problems: Sequence[str] = ()) -> State:
    """`holders` as of `RunDir.holders`; `problems` are what of it cannot be read."""
    if {"engine", "student"} & set(holders):
        return State.RUNNING
    if problems:
        return State.BROKEN
    return State.FINISHED if is_done(run) else State.STOPPED


def _num_rows(run: RunDir) -> int:
    """By what the files say of themselves; of none is a row read."""

    def count() -> int:
        num_rows = 0
        for segment in committed(run.table("samples")):
            with open_segment(segment, SCHEMAS["samples"]) as file:
                num_rows += file.metadata.num_rows
        return num_rows

    return retry_moved(count)


def _score(run: RunDir) -> Score | None:
    """On test, of the student that is kept; before that the newest on validation."""
    columns = ["round", "split", "macro_f1"]
    found = read_table(run.table("evaluations"), SCHEMAS["evaluations"], columns).to_pylist()
    scores = {(row["split"], row["round"]): row["macro_f1"] for row in found}
    if run.finish.exists() and (score := scores.get(("test", best := read_json(run.finish, Finish).best_round))) is not None:
        return Score(score, "test", best)
    newest = max((round for split, round in scores if split == "validation"), default=None)
    return None if newest is None else Score(scores["validation", newest], "validation", newest)


def _sizes(run: RunDir) -> dict[str, int]:
    sizes = {part.value: part_bytes(run, part) for part in Part}
    sizes["student"] = file_bytes(run.final_student)
    sizes["other"] = file_bytes(run.root) - sum(sizes.values())
    return {part: size for part, size in sizes.items() if size > 0}
