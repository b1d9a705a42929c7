"""What is tortured: the engine as `reflux run` runs it, and a compaction beside it, each a process of its own.

The student is a stand-in whose reports stand in the run directory from the start, so that a life costs the engine's own time. Segments
and journal files are small, so that a second of work seals, rotates and compacts many times. Each acknowledgement of the store is
written to a pipe, which the kernel keeps whatever becomes of the process.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.engine_client import make_report, make_task
from engine.cli import app, main
from engine.cli.shell import run_async
from engine.config import RunConfig, dump_config, restore_config
from engine.loop import run_loop
from engine.progress import Silent
from engine.records import Completion, Outcome
from engine.reports import FinalReport, StudentScores
from engine.rundir import RunDir, write_json
from engine.store import Store, compact, journal, store
from engine.teacher import batcher

ROWS_PER_CALL = 3
SEAL_ROWS = 60
SEAL_AFTER_S = 0.2
MAX_FILE_BYTES = 20_000
BACKOFF_S = 0.02
COMPACT_EVERY_S = 0.01

_STAND_IN = ("true",)
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION = 0x20080522


@dataclass(frozen=True, slots=True)
class Work:
    """What an engine process is to do."""

    root: Path
    base_url: str
    seed: int
    rounds: int
    calls_per_round: int
    in_flight: int
    """Replies that the server writes at once."""
    near_duplicates: bool
    """Many rows are refused then, and which ones depends on the order in which answers come."""

    @property
    def config(self) -> RunConfig:
        nowhere = "unused"
        content = {
            "name": "torture",
            "seed": self.seed,
            "task": {
                "domain": "messages to the help desk of a shop",
                "labels": [{"name": label.name} for label in make_task().labels],
                "data": {"seed": nowhere, "validation": nowhere, "test": nowhere},
            },
            "teacher": {"model": "scripted", "endpoint": self.base_url},
            "strategy": {
                "rounds": self.rounds,
                "rows_per_round": ROWS_PER_CALL * self.calls_per_round,
                "rows_per_call": ROWS_PER_CALL,
                "examples": 8,
            },
            "engine": {"concurrency": self.in_flight, "attempts": 6},
            "gates": {"near_duplicates": self.near_duplicates, "remembered_rows": 10_000},
        }
        return restore_config(dump_config(RunConfig.model_validate(content)))


@dataclass(frozen=True, slots=True)
class Pipes:
    """Write ends, for the process; what it writes there is safe from its own death."""

    acknowledged: Connection
    words: Connection
    """Standard error."""


def prepare(work: Work) -> None:
    """A run directory in which the student has said all that it will say."""
    run = RunDir(work.root)
    run.create()
    for round in range(work.rounds + 1):
        write_json(run.report(round), replace(make_report(), round=round, loss=1 / (round + 1)))
    report = make_report()
    scores = StudentScores(0, report.scores, report.classes, ())
    write_json(run.final_report, FinalReport(scores, replace(scores, round=work.rounds), "none", 0, "none"))


def teach(work: Work, pipes: Pipes, max_file_bytes: int | None = None, obeys_modes: bool = False) -> None:
    """The engine's process, from start or resume to its end. It can write no file beyond `max_file_bytes` where given; `obeys_modes` has
    the kernel refuse even root what the modes of files refuse.
    """
    os.dup2(pipes.words.fileno(), sys.stderr.fileno())
    if max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    if obeys_modes:
        obey_modes()
    store.SEAL_ROWS, store.SEAL_AFTER_S = SEAL_ROWS, SEAL_AFTER_S
    journal.MAX_FILE_BYTES = MAX_FILE_BYTES
    batcher.BACKOFF_S = BACKOFF_S
    record = Store.record

    async def record_and_say(self: Store, outcome: Outcome) -> None:
        await record(self, outcome)
        os.write(pipes.acknowledged.fileno(), f"{outcome.request_id} {digest(outcome)}\n".encode())

    Store.record = record_and_say

    # By the front door, so that signals and errors end the process as they end `reflux run`.
    @app.command("torture")
    def torture() -> None:
        loop = run_loop(work.config, make_task(), RunDir(work.root), Silent(), _STAND_IN)
        run_async(loop, f"Stopped. The same command goes on with {work.root}.")

    sys.argv[1:] = ["torture"]
    main()


def compact_again_and_again(root: Path) -> None:
    """A process that does what `reflux compact` does, until it is ended."""
    while True:
        compact(RunDir(root))
        time.sleep(COMPACT_EVERY_S)


def digest(outcome: Outcome) -> str:
    return digest_text(outcome.text) if isinstance(outcome, Completion) else "failed"


def digest_text(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def obey_modes() -> None:
    """Gives up root's right to write where the modes do not allow it; nothing changes for others."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()
    _check(libc.capget(header, sets))
    sets[0] &= ~(1 << _CAP_DAC_OVERRIDE)  # the effective ones, lower half
    _check(libc.capset(header, sets))


def _check(status: int) -> None:
    if status != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


PRELOADED: Sequence[str] = (__name__,)
"""Imported once, by the process from which all others are forked: a start takes milliseconds, so that hundreds are made."""
