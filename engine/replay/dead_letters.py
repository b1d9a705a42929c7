"""What has ended badly in a run's complete rounds, and could end otherwise: rejected rows, and assignments whose rows were not all written.

A row that a strategy refused after another question to the teacher (unlabelled, disagreement) is no matter of the gates, and stays.
What a complete replay has already answered is no dead letter any more.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import duckdb
import pyarrow as pa

from engine.errors import UserError
from engine.records import Rejection
from engine.rundir import RunDir
from engine.store import connect, explain_error, unpack_rejections

_BATCH_ROWS = 10_000

_REJECTIONS = """
select * from rejections as r
where round <= $last and reason not in ('unlabelled', 'disagreement', 'uncertain') and (reason <> 'surplus' or $with_surplus)
    and not exists (select 1 from samples as s where s.replays = r.id and s.round <= $last)
"""
_CALLS = """
select *, coalesce(failure_reason, if(finish_reason = 'length' and regex is null, 'cut_off', 'too_few_rows')) as ended from calls
where rows_failed > 0 and round <= $last and assignment not in (
    select asked.assignment from calls as again join calls as asked on again.replays = asked.request_id where again.round <= $last
)
"""
_FIRST_ASKED = """
with recursive asked as (
    select request_id as last, replays, round, assignment from calls where request_id in $ids
    union all
    select asked.last, before.replays, before.round, before.assignment from asked join calls as before on before.request_id = asked.replays
)
select last, round, assignment from asked where replays is null
"""


class Unwritten(NamedTuple):
    """An assignment with rows that were asked for and never written."""

    request_id: str
    """Of the call in which they were to be written."""
    assignment: str
    """Its id where it was asked for last, which may have been a replay."""
    report: int
    ended: str
    """Why: the reason of the failure, `cut_off`, or `too_few_rows`."""
    first_round: int
    """Of the strategy's own plan, like the next."""
    first_assignment: str


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Those that a condition chooses, inside the block that found them."""

    unwritten: tuple[Unwritten, ...]
    """In the order in which they were planned."""
    num_rejections: int
    _rejections: duckdb.DuckDBPyRelation | None

    def rejections(self) -> Iterator[list[Rejection]]:
        """In the order written, some thousands at a time."""
        if self._rejections is not None:
            for batch in self._rejections.to_arrow_reader(_BATCH_ROWS):
                yield unpack_rejections(pa.Table.from_batches([batch]))


@contextmanager
def find_dead_letters(run: RunDir, last_round: int, where: str | None) -> Generator[DeadLetters]:
    """Of rounds up to `last_round`.

    `where` is SQL over the columns of rejections or of calls; if it fits only one of the two, it chooses from that alone, and UserError if
    it fits neither. Without it all are found but the surplus, which nobody asked for.

    The caller holds the compaction lock, so that the files stay.
    """
    with connect(run) as connection:
        parameters = {"last": last_round, "with_surplus": where is not None}
        sources = [
            connection.sql(_REJECTIONS, params=parameters),
            connection.sql(_CALLS, params={"last": last_round}),
        ]
        rejections, calls = sources if where is None else _chosen(connection, sources, where)
        try:
            unwritten = () if calls is None else tuple(_unwritten(connection, calls))
            num_rejections = 0 if rejections is None else _count(rejections)
        except duckdb.Error as error:
            raise _wrong(connection, error) from error
        yield DeadLetters(unwritten, num_rejections, rejections)


def _chosen(
    connection: duckdb.DuckDBPyConnection, sources: Sequence[duckdb.DuckDBPyRelation], where: str
) -> list[duckdb.DuckDBPyRelation | None]:
    chosen: list[duckdb.DuckDBPyRelation | None] = []
    misfits: list[Exception] = []
    for source in sources:
        try:
            where.encode()
            chosen.append(source.filter(where))
        except UnicodeEncodeError as error:
            raise UserError("--where: no valid Unicode") from error
        except duckdb.BinderException as error:
            chosen.append(None)
            misfits.append(error)
        except duckdb.Error as error:
            raise _wrong(connection, error) from error
    if len(misfits) == len(sources):
        raise _wrong(connection, misfits[0]) from misfits[0]
    return chosen


def _wrong(connection: duckdb.DuckDBPyConnection, error: Exception) -> UserError:
    about = "rejections, calls" if isinstance(error, duckdb.BinderException) else ""
    message = explain_error(connection, about, error)
    return UserError(f"--where: {message}\nExpected a condition over rejections or calls, e.g. \"reason = 'near_duplicate'\"")


def _count(rejections: duckdb.DuckDBPyRelation) -> int:
    return rejections.aggregate("count(*)").fetchall()[0][0]


def _unwritten(connection: duckdb.DuckDBPyConnection, calls: duckdb.DuckDBPyRelation) -> list[Unwritten]:
    # Several calls of one assignment may miss rows; it is carried out once more as a whole.
    rows = calls.aggregate("assignment, min(report), min(request_id) as request_id, min_by(ended, request_id)").fetchall()
    ids = [request_id for _, _, request_id, _ in rows]
    first = {last: (round, id) for last, round, id in connection.execute(_FIRST_ASKED, {"ids": ids}).fetchall()}
    found = [Unwritten(request_id, assignment, report, ended, *first[request_id]) for assignment, report, request_id, ended in rows]
    return sorted(found, key=lambda letter: (letter.first_round, letter.first_assignment, letter.request_id))
