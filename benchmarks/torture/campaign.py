"""One run that is killed again and again, and then let finish.

Invariants: the server stays the same through all lives of a run, so that its ledger knows everything. A life is over only when its process
is dead and all that it sent has reached the server; only then is the directory looked at, and the next life begins.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from random import Random

from benchmarks.torture.audit import Faults, Remains, audit, audit_finished, examine_remains
from benchmarks.torture.ledger import Ledger
from benchmarks.torture.moments import Moment, draw_moment, wait_for
from benchmarks.torture.process import Drain, Subject
from benchmarks.torture.subject import Pipes, Work, compact_again_and_again, prepare, teach
from engine.rundir import RunDir
from engine.store import compact
from engine.testing.server import ScriptedServer

MISBEHAVIOURS = (("latency:0.02",), ("latency:0.02", "badjson:7", "reset:31"), ("drip:0.04:2", "truncated:9", "status:500:23"))
IN_FLIGHT = (8, 32)
LONGEST_S = 120.0
"""For a run that nobody disturbs any more; one that takes longer hangs."""


@dataclass(frozen=True, slots=True)
class Killed:
    """One kill, and what it cost."""

    moment: str
    in_flight: int
    """Requests that the life had asked and not acknowledged."""
    asked_again: int
    """Of what this life had asked, what a later one asked again."""
    limit: int
    """Replies that the server wrote at once."""


@dataclass(slots=True)
class Report:
    """What came of killing one run, or many."""

    killed: list[Killed] = field(default_factory=list[Killed])
    compactions_killed: int = 0
    remains: Counter[str] = field(default_factory=Counter[str])
    """How many kills left what half-done (the names of `Remains`)."""
    faults: Faults = field(default_factory=Faults)
    calls: int = 0
    runs: int = 1

    def add(self, other: Report) -> None:
        self.killed += other.killed
        self.compactions_killed += other.compactions_killed
        self.remains += other.remains
        self.faults.add(other.faults)
        self.calls += other.calls
        self.runs += other.runs

    def note_remains(self, remains: Remains) -> None:
        self.remains.update(kind.name for kind in fields(remains) if getattr(remains, kind.name))


class Life:
    """An engine process at work on the run, and what it says."""

    def __init__(self, work: Work, ledger: Ledger, *, max_file_bytes: int | None = None, obeys_modes: bool = False) -> None:
        self.words: list[str] = []
        """The lines that it said."""
        self._acknowledged, self._said = Drain(ledger.acknowledge), Drain(self.words.append)
        pipes = Pipes(self._acknowledged.writer, self._said.writer)
        self.process = Subject(teach, work, pipes, max_file_bytes, obeys_modes, writers=(self._acknowledged.writer, self._said.writer))

    async def end(self) -> int:
        """Its exit status, when all that it said has been heard."""
        status = await self.process.wait()
        await self._acknowledged.closed()
        await self._said.closed()
        return status


class Campaign:
    """One run, its server and its ledger."""

    def __init__(self, work: Work, server: ScriptedServer, ledger: Ledger) -> None:
        self.work = work
        self.run = RunDir(work.root)
        self.ledger = ledger
        self.faults = Faults()
        self._server = server

    @asynccontextmanager
    async def life(self, *, max_file_bytes: int | None = None, obeys_modes: bool = False) -> AsyncGenerator[Life]:
        """Inside the block it lives, if it does not end by itself; behind it the ledger knows what it was."""
        life = Life(self.work, self.ledger, max_file_bytes=max_file_bytes, obeys_modes=obeys_modes)
        try:
            yield life
        finally:
            life.process.send(signal.SIGKILL)
            await life.end()
            while self._server.num_connections:  # noqa: ASYNC110 - what was sent before the death is still being read
                await asyncio.sleep(0.001)
            self.ledger.died()

    async def live_until(self, moment: Moment, life: Life) -> str | None:
        """The name of the moment that came; None if the life came to its own end before."""
        waiting = asyncio.create_task(wait_for(moment, self.run))
        ending = asyncio.create_task(life.process.wait())
        try:
            await asyncio.wait((waiting, ending), return_when=asyncio.FIRST_COMPLETED)
            return None if ending.done() else waiting.result()
        finally:
            waiting.cancel()
            ending.cancel()
            await asyncio.wait((waiting, ending))

    async def finish(self) -> None:
        """Let the run come to its end, compact it once more, and audit it."""
        async with asyncio.timeout(LONGEST_S), self.life() as life:
            status = await life.end()
        assert status == 0, f"a run that nobody disturbed ended with {status}: {life.words[-3:]}"
        compact(self.run)
        self.faults.add(audit_finished(self.run, self.ledger, self.work))

    def audit(self) -> None:
        self.faults.add(audit(self.run, self.ledger))


@asynccontextmanager
async def open_campaign(root: Path, seed: int, *, calls_per_round: int = 250, rounds: int = 6) -> AsyncGenerator[Campaign]:
    """A run of its own kind for each seed, not yet begun."""
    random = Random(f"campaign {seed}")
    ledger = Ledger()
    async with ScriptedServer(random.choice(MISBEHAVIOURS), ledger=ledger) as server:
        work = Work(
            root,
            server.base_url,
            seed,
            rounds,
            calls_per_round,
            in_flight=random.choice(IN_FLIGHT),
            near_duplicates=random.random() < 0.3,
        )
        prepare(work)
        yield Campaign(work, server, ledger)


async def torture(campaign: Campaign, kills: int, seed: int) -> Report:
    """Kill its lives until they were so many, or the run has come to its end; then finish and audit it."""
    random = Random(f"kills {seed}")
    report = Report(faults=campaign.faults)
    moments: dict[int, str] = {}
    compaction: Subject | None = None
    try:
        is_finished = False
        while not is_finished and len(moments) < kills:
            moment = draw_moment(random)
            if compaction is None and ("merged" in moment.name or random.random() < 0.4):
                compaction = Subject(compact_again_and_again, campaign.work.root)
            number = campaign.ledger.life
            async with campaign.life() as life:
                struck = await campaign.live_until(moment, life)
                if struck is not None:
                    if compaction is not None and random.random() < 0.7:
                        # At the same time: whichever of the two dies first.
                        compaction.send(signal.SIGKILL)
                    await life.process.kill()
                status = await life.end()
            if compaction is not None and not compaction.is_running:
                assert await compaction.wait() == -signal.SIGKILL, "a compaction failed"
                report.compactions_killed += 1
                compaction = None
            if struck is not None and status == -signal.SIGKILL:
                moments[number] = struck
                report.note_remains(examine_remains(campaign.run))
                campaign.audit()
            else:
                assert status == 0, f"life {number} ended with {status}: {life.words[-3:]}"
                is_finished = True
    finally:
        if compaction is not None:
            await compaction.kill()
    await campaign.finish()
    report.calls = len(campaign.ledger.requests)
    report.killed = [
        Killed(
            name,
            in_flight=len(campaign.ledger.in_flight[number]),
            asked_again=len(campaign.ledger.asked_again.get(number, ())),
            limit=campaign.work.in_flight,
        )
        for number, name in moments.items()
    ]
    return report
