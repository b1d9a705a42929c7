"""Which processor cores teacher and student compute on where both do at once. Without this each would take all, and wait for the other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class CoreShares:
    """Numbers of logical processors. No core of one is a hardware thread of the other's, where there are two cores."""

    teacher: tuple[int, ...]
    student: tuple[int, ...]

    @property
    def teacher_threads(self) -> tuple[int, ...]:
        """One logical processor for each of the teacher's cores: its threads multiply, and two on a core would share its units."""
        return tuple(cores[0] for cores in group_threads(self.teacher, siblings(self.teacher)))


def share_cores(teacher_share: float) -> CoreShares | None:
    """Of those that this process may use; None where there is only one."""
    mine = sorted(os.sched_getaffinity(0))
    return divide(mine, siblings(mine), teacher_share)


def divide(processors: Sequence[int], siblings: Mapping[int, Iterable[int]], teacher_share: float) -> CoreShares | None:
    """`siblings`: the logical processors on the core of each. Each side gets one at least."""
    cores = group_threads(processors, siblings)
    if len(cores) == 1:
        cores = [(processor,) for processor in processors]
    if len(cores) < 2:
        return None
    num_teacher = min(max(round(teacher_share * len(cores)), 1), len(cores) - 1)
    parts = cores[:num_teacher], cores[num_teacher:]
    return CoreShares(*(tuple(sorted(processor for core in part for processor in core)) for part in parts))


def group_threads(processors: Sequence[int], siblings: Mapping[int, Iterable[int]]) -> list[tuple[int, ...]]:
    """By core, in the order of their first."""
    groups = {frozenset((processor, *siblings.get(processor, ()))) & frozenset(processors): None for processor in processors}
    return sorted(tuple(sorted(group)) for group in groups)


def siblings(processors: Iterable[int]) -> dict[int, set[int]]:
    """As the kernel tells of them; those of which it tells nothing are left out."""
    found: dict[int, set[int]] = {}
    for processor in processors:
        with suppress(OSError, ValueError):
            text = (_TOPOLOGY / f"cpu{processor}" / "topology" / "thread_siblings_list").read_text()
            found[processor] = set(parse_processors(text))
    return found


def parse_processors(text: str) -> list[int]:
    """Of a list as the kernel writes it: `0-3,8`."""
    ranges = [part.partition("-") for part in text.strip().split(",") if part]
    return [number for first, _, last in ranges for number in range(int(first), int(last or first) + 1)]
