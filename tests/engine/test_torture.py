"""The short version of `python -m benchmarks.torture`, and proof that its audit sees what it looks for."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.torture.audit import audit_finished
from benchmarks.torture.campaign import open_campaign, torture
from benchmarks.torture.ledger import Ledger
from benchmarks.torture.subject import Work
from benchmarks.torture.troubles import Met, meet_a_read_only_directory, meet_a_size_limit, meet_sigterm
from engine.rundir import RunDir
from engine.store.segments import committed

# A loaded machine takes four times as long.
pytestmark = pytest.mark.timeout(240)

KILLS = 10


async def test_killed_again_and_again_a_run_ends_with_every_row_once(tmp_path: Path) -> None:
    num_killed = seed = 0
    while num_killed < KILLS:
        async with open_campaign(tmp_path / str(seed), seed, calls_per_round=150, rounds=5) as campaign:
            report = await torture(campaign, KILLS - num_killed, seed)
        assert report.faults.is_clean, report.faults
        assert all(kill.asked_again <= kill.in_flight for kill in report.killed)
        num_killed += len(report.killed)
        seed += 1


@pytest.mark.parametrize("meet", [meet_sigterm, meet_a_size_limit, meet_a_read_only_directory])
async def test_what_stops_a_run_is_said_in_one_message_and_the_run_goes_on_afterwards(
    meet: Callable[[Path, int], Awaitable[Met]], tmp_path: Path
) -> None:
    met = await meet(tmp_path, 2)
    assert [end for end in met.ends if end.mistake is not None] == []
    assert len(met.ends) == 2
    assert met.faults.is_clean, met.faults


class Finished(NamedTuple):
    """A run that nobody disturbed, and the truth about it."""

    work: Work
    ledger: Ledger


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    async def teach() -> Finished:
        async with open_campaign(tmp_path_factory.mktemp("finished") / "run", 3, calls_per_round=40, rounds=2) as campaign:
            await campaign.finish()
            assert campaign.faults.is_clean, campaign.faults
            return Finished(campaign.work, campaign.ledger)

    return asyncio.run(teach())


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Generator[RunDir]:
    """A copy, to be damaged. Nothing is left acknowledged that was not before."""
    shutil.copytree(finished.work.root, tmp_path / "run")
    acknowledged = dict(finished.ledger.acknowledged)
    yield RunDir(tmp_path / "run")
    finished.ledger.acknowledged = acknowledged


def last_segment(run: RunDir, table: str) -> Path:
    return committed(run.table(table))[-1].path


def test_an_audit_sees_acknowledged_answers_that_are_gone_or_changed(run: RunDir, finished: Finished) -> None:
    known = next(iter(finished.ledger.acknowledged))
    finished.ledger.acknowledged |= {"ab" * 16: "a digest", known: "another digest"}
    assert len(audit_finished(run, finished.ledger, finished.work).lost) == 2


def test_an_audit_sees_rows_that_are_there_twice(run: RunDir, finished: Finished) -> None:
    last = committed(run.table("samples"))[-1]
    shutil.copy(last.path, last.path.with_name(f"{last.last + 1:06d}.parquet"))
    faults = audit_finished(run, finished.ledger, finished.work)
    assert faults.duplicates
    assert faults.conservation_errors


@pytest.mark.parametrize("table", ["samples", "calls"])
def test_an_audit_sees_rows_that_are_missing(run: RunDir, finished: Finished, table: str) -> None:
    last_segment(run, table).unlink()
    faults = audit_finished(run, finished.ledger, finished.work)
    assert faults.conservation_errors
    assert bool(faults.lost) == (table == "calls")


@pytest.mark.parametrize("name", ["tables/samples/*.parquet", "run.json"])
def test_an_audit_sees_files_that_are_torn(run: RunDir, finished: Finished, name: str) -> None:
    path = max(run.root.glob(name))
    path.write_bytes(path.read_bytes()[:-5])
    assert len(audit_finished(run, finished.ledger, finished.work).torn_files) == 1


def test_an_audit_sees_what_was_asked_again_without_need_and_what_was_left(run: RunDir, finished: Finished) -> None:
    (run.root / ".run.json.1.tmp").touch()
    request_id = next(iter(finished.ledger.requests))
    finished.ledger.asked_again[0] = {request_id}
    faults = audit_finished(run, finished.ledger, finished.work)
    del finished.ledger.asked_again[0]
    assert len(faults.asked_again) == len(faults.left_over) == 1
