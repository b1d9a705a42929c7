"""Checkpoints: the weights of a round's student, together with how far in the tables it has read.

Invariants: weights, progress and mined predictions move together, in one folder that is renamed into place when it is complete and on
disk; so what has its final name can be trusted after a kill at any moment. Folders with other names are nobody's and are removed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.errors import StoreError
from engine.rundir import RunDir, read_json, sync_folder, write_json
from student.diagnosis import Mined
from student.model import Student, load_student, save_student

_NAME = re.compile(r"round-(\d{4,})")
STATE, MINED = "state.json", "mined.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a student stands."""

    round: int
    watermark: int
    """In the samples table: segments up to this one have been learned."""
    num_train_rows: int
    epochs: int
    train_s: float


class Checkpoint(NamedTuple):
    student: Student
    progress: Progress
    predictions: list[Mined]
    """Out of fold, of every row it has learned that can be predicted so."""


def save_checkpoint(run: RunDir, student: Student, progress: Progress, predictions: Sequence[Mined]) -> None:
    final = run.checkpoint(progress.round)
    temporary = _temporary(final)
    try:
        save_student(student, temporary)
        write_json(temporary / MINED, predictions)
        write_json(temporary / STATE, progress)
        _commit(temporary, final)
    except OSError as error:
        raise StoreError(f"cannot write the checkpoint {final}: {error.strerror or error}") from error


def load_checkpoint(run: RunDir, round: int) -> Checkpoint:
    folder = run.checkpoint(round)
    if not folder.is_dir():
        raise StoreError(f"the checkpoint {folder} is gone; the run cannot go on without it")
    return Checkpoint(load_student(folder), read_json(folder / STATE, Progress), read_json(folder / MINED, list[Mined]))


def checkpoint_rounds(run: RunDir) -> list[int]:
    """The rounds that have one, in order."""
    found = (_NAME.fullmatch(path.name) for path in run.student.iterdir())
    return sorted(int(match[1]) for match in found if match)


def keep_checkpoints(run: RunDir, rounds: Iterable[int]) -> None:
    """Delete all others."""
    for round in set(checkpoint_rounds(run)).difference(rounds):
        folder = run.checkpoint(round)
        # Under another name first: half a folder must not look like a checkpoint.
        folder.rename(_temporary(folder))
        shutil.rmtree(_temporary(folder))


def remove_leftovers(run: RunDir) -> None:
    """What a worker left that died while it wrote or deleted. Only the run's one worker may call it."""
    for path in run.student.glob(".*.tmp"):
        shutil.rmtree(path)


def publish(run: RunDir, round: int) -> None:
    """Copy the student of this round, without what only the loop needs, to `student/final`; replaces what is there."""
    final, source = run.final_student, run.checkpoint(round)
    temporary = _temporary(final)
    try:
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(STATE, MINED))
        with suppress(FileNotFoundError):
            shutil.rmtree(final)
        _commit(temporary, final)
    except OSError as error:
        raise StoreError(f"cannot write {final}: {error.strerror or error}") from error


def _temporary(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.tmp")


def _commit(temporary: Path, final: Path) -> None:
    for path in temporary.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(temporary)
    temporary.rename(final)
    sync_folder(final.parent)
