"""When to strike: after some time, or while something is being done to the files, as the kernel reports it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from random import Random

from asyncinotify import Inotify, Mask

from engine.rundir import TABLES, RunDir

WORK_S = 0.6
"""A random moment lies within so long from the first answer."""
START_S = 0.4
"""Or within so long from the start of the process."""
PATIENCE_S = 2.0
"""For an event to happen."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to a file below the run directory."""

    folder: str
    """A pattern of its place, as the run directory has it."""
    name: str
    mask: Mask


AT_START = "while it starts"
AT_WORK = "at any moment of its work"
EVENTS: Mapping[str, Event] = {
    AT_WORK: Event("journal", "*.log", Mask.MODIFY),
    "an answer is journalled": Event("journal", "*.log", Mask.MODIFY),
    "a segment is begun": Event("tables/*", ".*.tmp", Mask.CREATE),
    "a segment is committed": Event("tables/*", "[0-9]*[0-9].parquet", Mask.MOVED_TO),
    "a round is committed": Event("tables/rounds", "[0-9]*.parquet", Mask.MOVED_TO),
    "a journal file is begun": Event("journal", "*.log", Mask.CREATE),
    "a journal file is dropped": Event("journal", "*.log", Mask.DELETE),
    "a merged segment is begun": Event("tables/*", ".*.merging", Mask.CREATE),
    "a merged segment is committed": Event("tables/*", "*-*.parquet", Mask.MOVED_TO),
    "a merged one is deleted": Event("tables/*", "*.parquet", Mask.DELETE),
    "run.json is written": Event("", ".run.json.*", Mask.CREATE),
}


@dataclass(frozen=True, slots=True)
class Moment:
    """Drawn before the life that it ends."""

    name: str
    """Of an event, or `AT_START`."""
    number: int
    """The event's how manieth time."""
    delay_s: float
    """After that."""


def draw_moment(random: Random) -> Moment:
    """Half of them at random; the others right at an event, or within what a write or a group of commits takes after it."""
    draw = random.random()
    if draw < 0.1:
        return Moment(AT_START, 0, random.uniform(0.0, START_S))
    if draw < 0.5:
        return Moment(AT_WORK, 1, random.uniform(0.0, WORK_S))
    delay_s = random.choice([0.0, random.uniform(0.0, 0.002), random.uniform(0.0, 0.02)])
    return Moment(random.choice([*EVENTS]), random.randint(1, 8), delay_s)


async def wait_for(moment: Moment, run: RunDir) -> str:
    """Returns at the moment, with its name, or when its event does not come."""
    if moment.name != AT_START:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await _happened(EVENTS[moment.name], moment.number, run)
        except TimeoutError:
            return "when no event came"
    if moment.delay_s:
        await asyncio.sleep(moment.delay_s)
    return moment.name


async def _happened(event: Event, times: int, run: RunDir) -> None:
    folders = {run.root: "", run.journal: "journal", **{run.table(name): f"tables/{name}" for name in TABLES}}
    with Inotify() as inotify:
        watches = {inotify.add_watch(path, event.mask): path for path, name in folders.items() if fnmatch(name, event.folder)}
        assert watches
        async for seen in inotify:
            if seen.name is not None and fnmatch(seen.name.name, event.name):
                times -= 1
                if times == 0:
                    return
