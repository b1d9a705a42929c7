"""The run directory: everything a run is, in one place, and the only thing that engine and student share.

runs/NAME/
run.json                  resolved configuration, versions, seed, teacher, server flags
journal/                  teacher answers of the round in progress, synced before anybody acts on them
tables/samples/           accepted rows                                    written by the engine
tables/rejections/        refused rows, with the reason                    written by the engine
tables/calls/             every teacher call                               written by the engine
tables/prompts/           what was sent, once each                         written by the engine
tables/rounds/            one row a round, when its rows are complete      written by the engine
tables/evaluations/       one row a round and split                        written by the student
reports/0000.json …       weakness reports by round                        written by the student
replays/0005.json …       what a round that is a replay sends again          written by the engine
asking.json               which report the round in progress answers, where the engine asks ahead of the student
finish.json               the engine asks no more; which round's student to keep, and why
reports/audit.json        what is odd about the training rows               written by the student
reports/final.json        scores on test, of the seed student and the kept one: the student's last word
student/round-0000/ …     checkpoints, each with its watermark;  student/final/  the model to take home
logs/                     server.log, student.log
summary.json              the figures of the run, for programs
purpose.json              what it is for, where it teaches no student
cost.json                 what each process's work took: time, GPUs, energy
status.json               how it stands at this moment, for `reflux watch`; no part of the run
pruned.json               what has been freed of it, if anything
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

import msgspec

from engine.errors import StoreError, UserError

T = TypeVar("T")
TABLES = ("samples", "rejections", "calls", "prompts", "rounds", "evaluations")
_LOCK_TRIES = 5
"""Who only looks whether somebody works on a run (`holders`) holds a lock for some microseconds."""
_LOCK_WAIT_S = 0.01


@dataclass(frozen=True, slots=True)
class RunDir:
    """Names of the places in a run directory; creates nothing by itself."""

    root: Path

    @property
    def run_json(self) -> Path:
        return self.root / "run.json"

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def replays(self) -> Path:
        return self.root / "replays"

    @property
    def student(self) -> Path:
        return self.root / "student"

    @property
    def final_student(self) -> Path:
        return self.student / "final"

    @property
    def asking(self) -> Path:
        return self.root / "asking.json"

    @property
    def finish(self) -> Path:
        return self.root / "finish.json"

    @property
    def final_report(self) -> Path:
        return self.reports / "final.json"

    @property
    def audit(self) -> Path:
        return self.reports / "audit.json"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def purpose(self) -> Path:
        return self.root / "purpose.json"

    @property
    def cost(self) -> Path:
        return self.root / "cost.json"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def pruned(self) -> Path:
        return self.root / "pruned.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def table(self, name: str) -> Path:
        return self.tables / name

    def report(self, round: int) -> Path:
        return self.reports / f"{round:04d}.json"

    def reported_rounds(self) -> list[int]:
        """The rounds that have a report, in order; a student that learns several rounds at once reports on the last of them."""
        return sorted(int(path.stem) for path in self.reports.glob("[0-9]*.json"))

    def replay(self, round: int) -> Path:
        return self.replays / f"{round:04d}.json"

    def checkpoint(self, round: int) -> Path:
        return self.student / f"round-{round:04d}"

    def create(self) -> None:
        """Make the folders that are not there yet; once here, they survive a power cut."""
        folders = (self.root, self.journal, self.reports, self.student, self.logs, self.tables, *map(self.table, TABLES))
        try:
            missing = [folder for folder in folders if not folder.exists()]
            for folder in missing:
                folder.mkdir(parents=True, exist_ok=True)
            for parent in {folder.parent for folder in missing}:
                sync_folder(parent)
        except OSError as error:
            raise StoreError(f"cannot create the run directory {self.root}: {error.strerror}") from error

    @contextmanager
    def lock(self, who: str) -> Generator[None]:
        """Hold this run for one engine (or one student); the kernel lets go when the process ends, however it ends."""
        with self._open_lock(who) as file:
            for tries_left in reversed(range(_LOCK_TRIES)):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not tries_left:
                        raise UserError(f"{self.root} is in use: another {who} works on it; wait for it, or choose another --out") from None
                time.sleep(_LOCK_WAIT_S)
            yield

    def _open_lock(self, who: str) -> TextIO:
        path = self.root / f"{who}.lock"
        try:
            return path.open("w")
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from error

    def clear_temporaries(self) -> None:
        """Delete what `write_atomically` began beside run.json in a process that was killed. For who holds the engine's lock."""
        try:
            for path in self.root.glob(".*.tmp"):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write in {self.root}: {error.strerror}") from error

    def holders(self) -> list[str]:
        """Who works on this run at the moment, e.g. `engine` and `student`. May be asked of any folder at any time: who begins just then
        is kept waiting for less than `lock` is patient.
        """
        holders: list[str] = []
        for path in sorted(self.root.glob("*.lock")):
            with suppress(OSError), path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    holders.append(path.stem)
        return holders


def open_run(root: Path | str) -> RunDir:
    """An existing run, or a UserError that says what was expected."""
    run = RunDir(Path(root))
    if not run.run_json.is_file():
        raise UserError(f"{root} is no run directory (it has no run.json); give the folder of a run, e.g. runs/quickstart")
    return run


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that its name always holds a complete version: temporary name, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # where nothing can be written, nothing can be deleted either
            temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def sync_folder(path: Path) -> None:
    """Make a rename in this folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Any record, or plain JSON values, as indented JSON; written atomically."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def read_json(path: Path, kind: type[T]) -> T:
    """Read back what `write_json` wrote; StoreError if it is not that."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise StoreError(f"{path} is not what Reflux wrote there: {error}") from error
