"""A scripted server that looks on while processes of a run are killed, and what is to hold of the run afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from benchmarks.torture.ledger import Ledger
from engine.rundir import RunDir
from engine.store import connect
from engine.store.journal import decode_records
from tests.engine.reflux_process import reflux_process


class Onlooker(Ledger):
    """Calls one function at each new request, before it is answered, with its number among all that differ; the server waits for it."""

    def __init__(self, run: RunDir, see: Callable[[int], None]) -> None:
        super().__init__()
        self.num_asked = 0
        """Each time that a request was asked counts."""
        self._run = run
        self._see = see

    def asked(self, body: bytes) -> None:
        before = len(self.requests)
        super().asked(body)
        self.num_asked += 1
        if len(self.requests) > before:
            self._see(len(self.requests))

    def died(self) -> None:
        """A life is over. What it has on disk counts as acknowledged."""
        for request_id in answers_on_disk(self._run):
            self.acknowledge(f"{request_id} -")
        super().died()

    def assert_no_answer_was_asked_for_again(self) -> None:
        assert self.in_flight
        for life in self.in_flight:
            assert self.asked_again_beyond_in_flight(life) == set()


def answers_on_disk(run: RunDir) -> set[str]:
    found = {outcome.request_id for path in run.journal.glob("*.log") for outcome in decode_records(path.read_bytes())}
    with connect(run) as connection:
        return found | {request_id for (request_id,) in connection.execute("select request_id from calls").fetchall()}


async def see_through(process_of: Sequence[str], *arguments: object) -> tuple[int, str]:
    """The status of `reflux ARGUMENTS` with that program as the student, and what it said, when it has ended by itself or was killed."""
    with reflux_process(process_of, *arguments) as process:
        said = await asyncio.to_thread(lambda: process.communicate()[1])
        return process.returncode, said


def assert_rows_carry_the_reports_of_their_rounds(run: RunDir) -> None:
    """And each row is there once."""
    with connect(run) as connection:
        assert connection.execute("select count(*) - count(distinct id) from samples").fetchall() == [(0,)]
        of_rows = connection.execute("select distinct round, report from samples order by 1, 2").fetchall()
        assert of_rows == connection.execute("select round, report from rounds order by 1").fetchall()
