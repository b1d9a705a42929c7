"""Measures what a process's work on a run takes, and notes it in cost.json every few seconds.

Invariants: one process at a time has the run's engine lock, and adds one Shift; those of earlier processes stay as they are. Counters are
read and files written in a thread of the meter's own, so that nobody waits; a disk that takes nothing only ends the noting until it does.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from engine.config import RunConfig
from engine.cost.cost import FORMAT, AtEnd, Cost, Shift, Shifts, at_end, reckon
from engine.cost.prices import own_gpus, reserved_gpus
from engine.errors import StoreError
from engine.machine.energy import Counter, open_counters
from engine.machine.gpu import read_gpus, visible_gpus
from engine.rundir import RunDir, read_json, write_json
from engine.teacher.lane import Lane

NOTE_S = 10.0
"""Between two notes. RAPL's counters go round after some minutes at the least."""
LAST_NOTE_S = 5.0


class GpuCount(NamedTuple):
    """How many GPUs the teacher's servers have, and how that is known (as of Shift)."""

    number: float
    how: str
    local: int
    """Of servers of ours: GPUs of this machine."""


class CostMeter:
    """Of one process. What it says may be asked in any thread."""

    def __init__(self, run: RunDir, config: RunConfig, *, open_counters: Callable[[int], Sequence[Counter]] | None = None) -> None:
        """`open_counters`: of so many of this machine's GPUs; None looks for those there are."""
        self._path = run.cost
        self._config = config
        self._open_counters = open_counters or _open_counters
        self._earlier = read_shifts(run)
        self._gpus = count_gpus(config)
        self._began_at, self._began_s = time.time(), time.monotonic()
        self._ended_s: float | None = None
        self._reserved_s, self._reserved_since_s = 0.0, math.inf
        self._lanes: Sequence[Lane] = ()
        self._counters: Sequence[Counter] = ()
        self._joules: float | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._note_on, name="cost", daemon=True)

    def watch(self, lanes: Sequence[Lane]) -> None:
        """From now on these are the servers; once."""
        self._lanes = lanes

    @contextmanager
    def reserved(self) -> Generator[None]:
        """Around everything that the servers are there for, their start included."""
        self._reserved_since_s = time.monotonic()
        try:
            yield
        finally:
            self._reserved_s += time.monotonic() - self._reserved_since_s
            self._reserved_since_s = math.inf

    def shift(self) -> Shift:
        """So far."""
        now_s = self._ended_s or time.monotonic()
        lanes = self._lanes
        return Shift(
            began_at=self._began_at,
            wall_s=now_s - self._began_s,
            reserved_s=self._reserved_s + max(now_s - self._reserved_since_s, 0.0),
            busy_s=sum(lane.busy_s for lane in lanes) / len(lanes) if lanes else 0.0,
            gpus=self._gpus.number,
            gpus_from=self._gpus.how,
            joules=self._joules,
            joules_from=tuple(counter.source for counter in self._counters),
        )

    def cost(self, rows: int, tokens: int, gain: float | None = None) -> Cost:
        """Of the run so far; the arguments as of `reckon`."""
        cost = reckon((*self._earlier, self.shift()), self._config.cost, rows=rows, tokens=tokens, gain=gain)
        assert cost is not None
        return cost

    def at_end(self, cost: Cost, left_s: tuple[float, float]) -> AtEnd | None:
        return at_end(cost, self.shift(), self._config.cost, left_s)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Notes the last; blocking, for a few seconds at most."""
        self._ended_s = time.monotonic()
        self._is_over.set()
        self._thread.join(LAST_NOTE_S)

    def _note_on(self) -> None:
        self._counters = self._open_counters(self._gpus.local)
        while True:
            is_over = self._is_over.is_set()
            if self._counters:
                self._joules = sum(counter.joules() for counter in self._counters)
            # A run that cannot be written to says so elsewhere.
            with suppress(StoreError):
                write_json(self._path, Shifts((*self._earlier, self.shift())))
            if is_over:
                return
            self._is_over.wait(NOTE_S)


@contextmanager
def metered(run: RunDir, config: RunConfig) -> Generator[CostMeter]:
    """Inside the block the time counts as work on the run, whose engine lock the caller holds. Leaving it waits for a last note."""
    meter = CostMeter(run, config)
    meter.start()
    try:
        yield meter
    finally:
        meter.stop()


def read_shifts(run: RunDir, present: Shift | None = None) -> tuple[Shift, ...]:
    """Of all processes that worked on the run; none in runs of earlier versions, or where the file is of another.

    `present` takes the place of what is noted of it so far.
    """
    shifts: tuple[Shift, ...] = ()
    if run.cost.exists():
        with suppress(StoreError):
            found = read_json(run.cost, Shifts)
            shifts = found.shifts if found.format == FORMAT else ()
    if present is None:
        return shifts
    return (*(shift for shift in shifts if shift.began_at != present.began_at), present)


def count_gpus(config: RunConfig) -> GpuCount:
    """As `reserved_gpus`, with how it is known."""
    are_ours = not any(teacher.endpoints for teacher in (config.teacher, *config.teachers))
    how = "given" if config.cost.gpus is not None else "launch" if are_ours else "assumed"
    return GpuCount(reserved_gpus(config), how, own_gpus(config))


def _open_counters(num_gpus: int) -> Sequence[Counter]:
    uuids = [gpu.uuid for gpu in visible_gpus(read_gpus(), os.environ)[:num_gpus]] if num_gpus else []
    return open_counters(uuids)
