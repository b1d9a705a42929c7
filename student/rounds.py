"""The rounds of a run, as the engine completes them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from engine.rundir import RunDir
from engine.store import read_rounds

POLL_S = 0.05
"""Between two looks at the rounds table's folder."""


def completed_rounds(run: RunDir, last: int, *, at_once: bool = False) -> Iterator[int]:
    """Each round after `last`, as soon as its rows are complete; ends when the engine has finished and all are given.

    `at_once`: whoever is behind gets the newest that is complete, and learns those before it with it. Where a report tells how far an
    earlier worker went at once, this one goes as far: what the engine has been told stays true.
    """
    seen: frozenset[str] | None = None
    newest = last
    while True:
        # Asked before the listing: what was completed before the engine's last word is then in it.
        is_over = run.finish.exists()
        names = frozenset(path.name for path in run.table("rounds").iterdir())
        if names != seen:
            seen = names
            newest = max((record.round for record in read_rounds(run)), default=0)
        if last < newest:
            last = min((round for round in run.reported_rounds() if last < round <= newest), default=newest) if at_once else last + 1
            yield last
        elif is_over:
            return
        else:
            time.sleep(POLL_S)
