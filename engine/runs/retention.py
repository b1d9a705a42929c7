"""What of a run can be freed, what cannot be done with it afterwards, and the record of it in the run.

Invariants: a run's own account of itself is never freed (configuration, rounds, scores, reports, summary, and the student to take home).
What is freed is written to `pruned.json` before the first file goes, and each part leaves its place by one rename: so a run that was
killed in the middle says that it was pruned, no part of it is half there, and the same command frees the rest. Nothing is freed while
anybody works on the run.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from engine.errors import StoreError, UserError
from engine.rundir import RunDir, read_json, write_json

LOCKS = ("engine", "student", "compaction")
_FREED = ".freed"
"""Ends the name of what waits to be deleted."""


class Part(StrEnum):
    """A part of a run that can be freed."""

    SAMPLES = "samples"
    """The accepted rows."""
    REJECTIONS = "rejections"
    """The refused rows, with reason and raw text."""
    CALLS = "calls"
    """Every question to the teacher and its reply."""
    PROMPTS = "prompts"
    """The texts that were sent."""
    JOURNAL = "journal"
    """Answers of the round in progress."""
    CHECKPOINTS = "checkpoints"
    """The students of single rounds; not the one to take home."""
    LOGS = "logs"
    """What server and student printed."""


class Use(StrEnum):
    """What is done with a run, in words that end the sentence "it can no longer …"."""

    RESUME = "be resumed"
    SHOW = "show a row's whole story (`reflux show`)"
    REPLAY = "replay refused rows (`reflux replay`)"
    EXPORT = "be exported (`reflux export`)"
    EXPORT_REJECTIONS = "be exported with its refused rows"


_NEEDS: Mapping[Use, frozenset[Part]] = {
    Use.RESUME: frozenset(Part) - {Part.LOGS},
    Use.SHOW: frozenset({Part.SAMPLES, Part.REJECTIONS, Part.CALLS, Part.PROMPTS}),
    Use.REPLAY: frozenset({Part.SAMPLES, Part.REJECTIONS, Part.CALLS, Part.PROMPTS, Part.JOURNAL}),
    Use.EXPORT: frozenset({Part.SAMPLES}),
    Use.EXPORT_REJECTIONS: frozenset({Part.REJECTIONS}),
}


@dataclass(frozen=True, slots=True)
class Pruning:
    """One pruning of a run; `pruned.json` holds a list of them."""

    parts: tuple[Part, ...]
    num_bytes: int
    """Their size."""
    at: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pruning would do."""

    parts: dict[Part, int]
    """What it frees, in bytes. Parts that are freed already, or empty, are not among them."""
    lost: tuple[Use, ...]
    """What can be done now, and not afterwards."""

    @property
    def num_bytes(self) -> int:
        return sum(self.parts.values())


def require(run: RunDir, use: Use) -> None:
    """UserError if something that this needs has been freed. Cheap: commands call it first."""
    if missing := sorted(_NEEDS[use] & freed_parts(run)):
        when = _prunings(run)[-1].at
        advice = "; start anew in another folder with --out" if use is Use.RESUME else ""
        raise UserError(f"{run.root} was pruned ({when}) and has no {_words(missing)} any more, so it can no longer {use}{advice}")


def allows(run: RunDir, use: Use) -> bool:
    """Whether everything that this needs is still there."""
    return not _NEEDS[use] & freed_parts(run)


def freed_parts(run: RunDir) -> frozenset[Part]:
    """What has been freed of this run."""
    return frozenset(part for pruning in _prunings(run) for part in pruning.parts)


def plan(run: RunDir, keep: Collection[Part]) -> Plan:
    """Free all parts but these. Changes nothing."""
    freed = freed_parts(run)
    sizes = {part: part_bytes(run, part) for part in Part if part not in keep}
    parts = {part: size for part, size in sizes.items() if size}
    uses = [use for use in Use if use is not Use.RESUME or not run.summary.exists()]
    return Plan(parts, tuple(use for use in uses if _NEEDS[use] & parts.keys() and not _NEEDS[use] & freed))


def prune(run: RunDir, keep: Collection[Part]) -> Plan:
    """Free all parts but these; returns what was freed. UserError, and nothing freed, while anybody works on the run."""
    with _stopped(run):
        freeing = plan(run, keep)
        try:
            if freeing.parts:
                pruning = Pruning(tuple(freeing.parts), freeing.num_bytes, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
                write_json(run.pruned, (*_prunings(run), pruning))
            # All of them, for what an earlier pruning left may have no bytes any more.
            for path in (path for part in Part if part not in keep for path in _places(run, part)):
                if not path.name.endswith(_FREED):
                    path = path.rename(path.with_name(f".{path.name}{_FREED}"))
                _delete(path)
        except OSError as error:
            raise StoreError(f"cannot free all of {run.root}: {error.strerror}; the same command goes on with it") from error
        return freeing


def part_bytes(run: RunDir, part: Part) -> int:
    return sum(file_bytes(path) for path in _places(run, part))


def file_bytes(path: Path) -> int:
    """Of a file, or of all files in a folder; what cannot be read counts nothing."""
    return sum(status.st_size for status in file_statuses(path))


def file_statuses(path: Path) -> Iterator[os.stat_result]:
    """Of a file, or of all files in a folder, as far as they can be read. Links are not followed."""
    try:
        if not path.is_dir() or path.is_symlink():
            yield path.lstat()
            return
        inside = list(path.iterdir())
    except OSError:
        return
    for entry in inside:
        yield from file_statuses(entry)


def _places(run: RunDir, part: Part) -> list[Path]:
    """What there is of a part, with what a pruning left that was killed."""
    match part:
        case Part.CHECKPOINTS:
            found = [path for path in _entries(run.student) if path.name.startswith(("round-", ".round-"))]
        case Part.JOURNAL | Part.LOGS:
            found = _with_freed(run.root / part)
        case _:
            found = _with_freed(run.table(part))
    return sorted(found)


def _with_freed(path: Path) -> list[Path]:
    return [place for place in (path, path.with_name(f".{path.name}{_FREED}")) if place.exists()]


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _prunings(run: RunDir) -> tuple[Pruning, ...]:
    return read_json(run.pruned, tuple[Pruning, ...]) if run.pruned.exists() else ()


def _words(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


@contextmanager
def _stopped(run: RunDir) -> Generator[None]:
    """Nobody works on the run, and nobody begins."""
    if holders := run.holders():
        raise UserError(f"{run.root} is being worked on ({_words(holders)}); stop that first, or wait for it")
    with ExitStack() as stack:
        for who in LOCKS:
            stack.enter_context(run.lock(who))
        yield
