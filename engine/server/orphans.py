"""Servers that outlived the run that started them, and how the processes of a server are ended.

Every server carries a mark in its environment, which its children inherit: who started it, and for which run. vLLM's engine processes stay
behind, with all their memory, when its API server is killed hard; so processes are judged by the mark, one by one, not by their parents.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

MARK = "REFLUX_SERVER_OWNER"


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that started a server, and the run it did so for."""

    pid: int
    started: int
    """Clock ticks after boot: with the pid, unique on this machine until it restarts."""
    namespace: int
    """Process ids of another container mean nothing here, though we may see its processes."""
    run: str

    @classmethod
    def here(cls, run: Path) -> Owner:
        started = _start_ticks(os.getpid())
        assert started is not None
        return cls(os.getpid(), started, _pid_namespace(), str(run.resolve()))

    @classmethod
    def parse(cls, mark: str) -> Owner:
        """ValueError if it is no mark of ours."""
        pid, started, namespace, run = mark.split(":", 3)
        return cls(int(pid), int(started), int(namespace), run)

    def __str__(self) -> str:
        return f"{self.pid}:{self.started}:{self.namespace}:{self.run}"

    @property
    def is_gone(self) -> bool:
        return self.namespace == _pid_namespace() and _start_ticks(self.pid) != self.started


@dataclass(frozen=True, slots=True)
class Orphan:
    """The processes that are left of one server whose owner is gone."""

    owner: Owner
    pids: tuple[int, ...]
    since: float
    """Seconds since the epoch when the first of them started."""

    @property
    def command(self) -> str:
        """Ends it, for people."""
        return shlex.join(["kill", "-9", *map(str, self.pids)])

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        pids = ", ".join(map(str, self.pids))
        return f"a teacher's server of an earlier run still runs: process {pids}, since {since}, for {self.owner.run}"


def find_orphans() -> list[Orphan]:
    """Reads the environment of every process of this user, some milliseconds for hundreds: call it in a thread."""
    found: dict[Owner, dict[int, float]] = defaultdict(dict)
    for process, owner in _marked():
        with contextlib.suppress(psutil.Error):
            found[owner][process.pid] = process.create_time()
    return [Orphan(owner, tuple(since), min(since.values())) for owner, since in found.items() if owner.is_gone]


def end_orphan(orphan: Orphan, timeout_s: float) -> None:
    """Asks its processes to end, and kills what has not within `timeout_s`; blocking. Returns when they are gone."""
    end_processes([process for process, owner in _marked() if owner == orphan.owner], timeout_s)


def end_session(owner: Owner, leader: int, timeout_s: float) -> None:
    """Ends what `owner` started in the session of `leader`, like `end_orphan`. The leader may be gone; its pid then proves nothing."""
    for patience_s in (timeout_s, 0.0):  # the second time for what was started during the first
        found = [process for process, by in _marked() if by == owner and _session(process.pid) == leader]
        end_processes(found, patience_s)


def end_processes(processes: Iterable[psutil.Process], timeout_s: float) -> None:
    """SIGTERM, then SIGKILL for what is still there after `timeout_s`; blocking. psutil never signals a process that took over a pid."""
    left = list(processes)
    for number, patience_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 5.0)):
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        left = _wait(left, patience_s)


def _wait(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those that still run after `timeout_s`. A zombie does not run, though nobody may ever reap it (in a container without an init)."""
    deadline = time.monotonic() + timeout_s
    while (left := [process for process in processes if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _marked() -> Iterator[tuple[psutil.Process, Owner]]:
    for process in psutil.process_iter():
        # Processes end while we look, belong to others, or carry a mark that is not ours.
        with contextlib.suppress(psutil.Error, ValueError):
            if (mark := process.environ().get(MARK)) and process.status() != psutil.STATUS_ZOMBIE:
                yield process, Owner.parse(mark)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _start_ticks(pid: int) -> int | None:
    """From the kernel's own record: unlike a start time in seconds it does not move when the clock is set."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino
