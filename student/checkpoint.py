"""Checkpoints: the weights of a round's student, together with how far in the tables it has read.

Invariants: weights, optimizer and progress move together, in one folder that is renamed into place when it is complete and on disk; so
what has its final name can be trusted after a kill at any moment, and what has changed since is told by its checksums. Random numbers need
no place in it: each round's follow from the run's seed and the round. Folders with other names are nobody's and are removed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file, save_file

from engine.errors import StoreError, UserError
from engine.rundir import RunDir, read_json, sync_folder, write_json
from student.model import Student, load_student, save_student
from student.optimizer import Moments

_NAME = re.compile(r"round-(\d{4,})")
STATE, OPTIMIZER = "state.json", "optimizer.safetensors"


class DamagedCheckpointError(StoreError):
    """A checkpoint is not as it was written; the message names it. An earlier one can take its place, for all after it is made again."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a student stands."""

    round: int
    watermark: int
    """In the samples table: segments up to this one have been learned."""
    num_train_rows: int
    epochs: int
    train_s: float


@dataclass(frozen=True, slots=True)
class State:
    """The content of state.json."""

    progress: Progress
    checksums: Mapping[str, str]
    """SHA-256 of each other file in the folder, by name."""


class Checkpoint(NamedTuple):
    student: Student
    progress: Progress
    moments: Moments | None
    """The optimizer's; None where it starts anew each round."""


def save_checkpoint(run: RunDir, student: Student, progress: Progress, moments: Moments | None = None) -> None:
    final = run.checkpoint(progress.round)
    temporary = _temporary(final)
    try:
        save_student(student, temporary)
        if moments is not None:
            save_file(moments, temporary / OPTIMIZER)
        write_json(temporary / STATE, State(progress, _checksums(temporary)))
        _commit(temporary, final)
    except OSError as error:
        raise StoreError(f"cannot write the checkpoint {final}: {error.strerror or error}") from error


def load_checkpoint(run: RunDir, round: int) -> Checkpoint:
    """StoreError if it is gone; DamagedCheckpointError if it is not as it was written."""
    progress = check_checkpoint(run, round)
    folder = run.checkpoint(round)
    try:
        student = load_student(folder)
    except UserError as error:
        raise DamagedCheckpointError(f"the checkpoint {folder} cannot be loaded: {error}") from error
    return Checkpoint(student, progress, load_file(folder / OPTIMIZER) if (folder / OPTIMIZER).exists() else None)


def check_checkpoint(run: RunDir, round: int) -> Progress:
    """What it says of itself. Errors as of `load_checkpoint`."""
    folder = run.checkpoint(round)
    if not folder.is_dir():
        raise StoreError(f"the checkpoint {folder} is gone; the run cannot go on without it")
    try:
        state = read_json(folder / STATE, State)
    except StoreError as error:
        raise DamagedCheckpointError(f"the checkpoint {folder} is damaged: {error}") from error
    found = _checksums(folder)
    if found != state.checksums:
        names = sorted(name for name in {*found, *state.checksums} if found.get(name) != state.checksums.get(name))
        raise DamagedCheckpointError(f"the checkpoint {folder} is damaged: {', '.join(names)} is not as it was written")
    return state.progress


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


def publish(run: RunDir, round: int, card: str) -> None:
    """Copy the student of this round, without what only the loop needs, to `student/final`, with its model card; replaces what is there."""
    final, source = run.final_student, run.checkpoint(round)
    temporary = _temporary(final)
    try:
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(STATE, OPTIMIZER))
        (temporary / "README.md").write_text(card, encoding="utf-8")
        with suppress(FileNotFoundError):
            shutil.rmtree(final)
        _commit(temporary, final)
    except OSError as error:
        raise StoreError(f"cannot write {final}: {error.strerror or error}") from error


def _temporary(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.tmp")


def _checksums(folder: Path) -> dict[str, str]:
    checksums: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.name != STATE:
            with path.open("rb") as file:
                checksums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return checksums


def _commit(temporary: Path, final: Path) -> None:
    for path in temporary.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(temporary)
    temporary.rename(final)
    sync_folder(final.parent)
