"""A process to kill: works on the run given, and says on its output what it asked for and what it may rely on."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from unittest.mock import patch

from engine.records import Outcome, Request
from engine.rundir import RunDir
from engine.store import Store, store
from tests.engine.store.builders import make_completion, make_failure, work

NUM_ROUNDS, NUM_CALLS = 3, 24


def say(word: str, request_id: str) -> None:
    os.write(1, f"{word} {request_id}\n".encode())


async def answer(request: Request) -> Outcome:
    """Never twice the same, so that an answer asked for again shows."""
    say("asked", request.id)
    return make_failure(request.id) if request.sampling.seed % 4 == 3 else make_completion(request.id, os.urandom(8).hex())


async def record_and_say(self: Store, outcome: Outcome) -> None:
    await record(self, outcome)
    say("acknowledged", outcome.request_id)


record = Store.record

if __name__ == "__main__":
    with patch.object(store, "SEAL_ROWS", 10), patch.object(Store, "record", record_and_say):
        asyncio.run(work(RunDir(Path(sys.argv[1])), answer, NUM_ROUNDS, NUM_CALLS))
