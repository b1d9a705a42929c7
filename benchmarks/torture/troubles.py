"""What the engine meets besides kill -9: a full disk, a directory that has become read-only, and SIGTERM.

Each strikes at a moment of a run, and of the first two the engine is started into them once more. Every time it has to end by itself, with
one message and its exit status, and never with a traceback. Then the trouble goes away, the run is let finish, and is audited.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from benchmarks.torture.audit import Faults
from benchmarks.torture.campaign import Campaign, Life, open_campaign
from benchmarks.torture.moments import Moment
from engine.errors import StoreError

ENDS_WITHIN_S = 30.0
ONE_BYTE = 1
"""As a limit to the size of files: with none at all, no write would be torn."""
DISK_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class End:
    """How an engine process took it."""

    trouble: str
    status: int
    words: tuple[str, ...]
    mistake: str | None
    """What was wrong with that; None if nothing was."""


@dataclass(frozen=True, slots=True)
class Met:
    """What came of one run that met a trouble."""

    ends: tuple[End, ...]
    faults: Faults


async def meet_sigterm(folder: Path, seed: int) -> Met:
    """Twice in one run."""
    async with open_campaign(folder / "run", seed, calls_per_round=120, rounds=3) as campaign:
        ends: list[End] = []
        for number in range(2):
            async with campaign.life() as life:
                if await campaign.live_until(_draw(seed + number), life):
                    life.process.send(signal.SIGTERM)
                    ends.append(await _end("SIGTERM", life, status=143, word="Stopped."))
        return await _finish(campaign, ends)


async def meet_a_size_limit(folder: Path, seed: int) -> Met:
    """The disk is full for the process from one moment to the next: no file can grow. Needs no privilege."""
    async with open_campaign(folder / "run", seed, calls_per_round=120, rounds=3) as campaign:
        ends: list[End] = []
        async with campaign.life() as life:
            if await campaign.live_until(_draw(seed), life):
                resource.prlimit(life.process.pid, resource.RLIMIT_FSIZE, (ONE_BYTE, ONE_BYTE))
                ends.append(await _end("full disk", life, StoreError.exit_status, "File too large"))
        async with campaign.life(max_file_bytes=ONE_BYTE) as life:
            ends.append(await _end("start on a full disk", life, StoreError.exit_status, "File too large"))
        return await _finish(campaign, ends)


async def meet_a_full_disk(folder: Path, seed: int) -> Met:
    """A small file system in memory that somebody else fills. Only where `can_mount`."""
    with _small_disk(folder / "disk") as disk:
        async with open_campaign(disk / "run", seed, calls_per_round=120, rounds=3) as campaign:
            ends: list[End] = []
            filler = disk / "filler"
            async with campaign.life() as life:
                if await campaign.live_until(_draw(seed), life):
                    await asyncio.to_thread(_fill, filler)
                    ends.append(await _end("full disk", life, StoreError.exit_status, "No space left on device"))
            async with campaign.life() as life:
                ends.append(await _end("start on a full disk", life, StoreError.exit_status, "No space left on device"))
            filler.unlink(missing_ok=True)
            return await _finish(campaign, ends)


async def meet_a_read_only_directory(folder: Path, seed: int) -> Met:
    async with open_campaign(folder / "run", seed, calls_per_round=120, rounds=3) as campaign:
        ends: list[End] = []
        try:
            async with campaign.life(obeys_modes=True) as life:
                if await campaign.live_until(_draw(seed), life):
                    # Files that are there may still grow, or not even they.
                    _set_modes(campaign.run.root, folders=0o555, files=0o444 if seed % 2 else 0o644)
                    ends.append(await _end("read-only directory", life, StoreError.exit_status, "Permission denied"))
            async with campaign.life(obeys_modes=True) as life:
                ends.append(await _end("start in a read-only directory", life, StoreError.exit_status, "Permission denied"))
        finally:
            _set_modes(campaign.run.root, folders=0o755, files=0o644)
        return await _finish(campaign, ends)


TROUBLES: Mapping[str, Callable[[Path, int], Awaitable[Met]]] = {
    "SIGTERM": meet_sigterm,
    "full disk (size limit)": meet_a_size_limit,
    "full disk (tmpfs)": meet_a_full_disk,
    "read-only directory": meet_a_read_only_directory,
}


def choose_troubles() -> dict[str, Callable[[Path, int], Awaitable[Met]]]:
    """Those that can be made here: a disk of its own takes the right to mount one."""
    return {name: meet for name, meet in TROUBLES.items() if meet is not meet_a_full_disk or can_mount()}


@cache
def can_mount() -> bool:
    with tempfile.TemporaryDirectory(prefix="reflux-torture-") as folder:
        try:
            with _small_disk(Path(folder) / "disk"):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def _draw(seed: int) -> Moment:
    """After the first answers: a process that has not begun its work dies of SIGTERM as any does."""
    random = Random(f"trouble {seed}")
    return Moment("a segment is begun", random.randint(1, 12), random.choice([0.0, random.uniform(0.0, 0.03)]))


async def _end(trouble: str, life: Life, status: int, word: str) -> End:
    async with asyncio.timeout(ENDS_WITHIN_S):
        found = await life.end()
    said = "\n".join(life.words)
    mistake = None
    if found != status:
        mistake = f"exit status {found}, not {status}"
    elif "Traceback" in said:
        mistake = "a traceback"
    elif word not in said:
        mistake = f"no word of {word!r}"
    return End(trouble, found, tuple(life.words), mistake)


async def _finish(campaign: Campaign, ends: list[End]) -> Met:
    await campaign.finish()
    return Met(tuple(ends), campaign.faults)


def _set_modes(root: Path, *, folders: int, files: int) -> None:
    for path in [root, *root.rglob("*")]:
        path.chmod(folders if path.is_dir() else files)


@contextmanager
def _small_disk(place: Path) -> Generator[Path]:
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return
