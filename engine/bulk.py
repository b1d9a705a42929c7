"""Rows in bulk: the teacher writes for each label until there are as many as are wanted, and no student looks on.

Invariants:
- A round asks for what each label lacks after the rounds before it, and at most for ROUND_ROWS rows. So there are no more rows of a label
  than wanted, but for those that were asked for as another's (a row with several labels counts for the one it was asked for, if it has
  it); and memory does not follow the number that is wanted.
- What a round asks for follows from the rows of complete rounds alone: a process that goes on asks the same, and is answered from disk. A
  round that was begun ends as it was begun, also when more rows are wanted by now.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from engine.config import RunConfig
from engine.errors import UserError
from engine.progress import Progress
from engine.prompting import Prompter
from engine.records import Assignment, Finish, RoundRecord, RowCounts, TaskKind, TaskSpec, Totals
from engine.replay_plan import refuse_open_replay
from engine.reports import WeaknessReport
from engine.rundir import RunDir, read_json, write_json
from engine.runs.manifest import Manifest, begin
from engine.runs.purpose import Purpose, claim, purpose_of
from engine.solo import teacher_alone
from engine.store import SCHEMAS, read_rounds, unescape
from engine.store.segments import open_table
from engine.strategies import Ask, Strategy, Written, make_strategy
from engine.strategies.focus import CLASS, Focus

METHODS = ("attrprompt", "zerogen", "unguided")
"""Those that write rows of a given label without looking at a student. The first asks for a length, a style and a sub-topic in each row."""
ROUND_ROWS = 20_000
"""Asked for in one round at most: some minutes of a fast server. At its end the servers run empty for a moment."""
TRIES = 5.0
"""Rows asked for, for each that is wanted, before it is given up."""
BARREN_SHARE = 0.02
BARREN_ROWS = 2000
"""Of the last so many rows, fewer than that share were accepted: what the teacher still writes is there already."""
BARREN_ROUNDS = 20
"""Rounds in a row without a single accepted row, however small they were."""


@dataclass(frozen=True, slots=True)
class BulkSummary:
    """What has come of it."""

    run: str
    is_reached: bool
    """Whether every label has the rows that were wanted."""
    reason: str
    """Why it stopped."""
    wanted: int
    rows: RowCounts
    classes: Mapping[str, int]
    """Accepted rows by label, of which a row may have several."""
    rounds: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    generation_s: float


class Quotas:
    """A Strategy that asks another, which writes for one label at a time, for what each label lacks."""

    def __init__(self, method: Strategy, rows_per_call: int, kind: TaskKind) -> None:
        self.name = method.name
        # A row with several labels is counted for the one it was asked for, which its weakness says.
        self._is_noted = kind == "multi_label"
        self._method = method
        self._rows_per_call = rows_per_call
        self._lacking: Mapping[str, int] = {}
        self.rows_per_round = 0

    def want(self, lacking: Mapping[str, int]) -> None:
        """What is lacking before the next round, by label."""
        self._lacking = lacking
        self.rows_per_round = min(ROUND_ROWS, sum(lacking.values()))

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Iterator[Assignment]:
        number = 0
        for label, left in allot(self._lacking, ROUND_ROWS).items():
            while left > 0:
                num_rows = min(left, self._rows_per_call)
                weakness = Focus((label,)).name if self._is_noted else "none"
                yield Assignment(f"r{round:04d}-a{number:04d}", number, round, report.round, weakness, (label,), num_rows)
                number += 1
                left -= num_rows

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> Sequence[Written]:
        return await self._method.carry_out(assignment, report, ask)

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        return self._method.blocks(round, report)


def allot(lacking: Mapping[str, int], at_most: int) -> dict[str, int]:
    """So much of what is lacking as fits, all labels served in the same proportion; the same for the same."""
    total = sum(lacking.values())
    if total <= at_most:
        return dict(lacking)
    given = {label: count * at_most // total for label, count in lacking.items()}
    rest = at_most - sum(given.values())
    for label in sorted(lacking, key=lambda label: -(lacking[label] * at_most % total))[:rest]:
        given[label] += 1
    return given


def shares(labels: Sequence[str], rows: int) -> dict[str, int]:
    """All labels alike, give or take one."""
    return {label: rows // len(labels) + (place < rows % len(labels)) for place, label in enumerate(labels)}


def reason_to_stop(wanted: int, lacking: int, rounds: Sequence[RoundRecord]) -> str | None:
    """None while there is something to be done, and hope. `rounds`: those that are complete."""
    if not lacking:
        return f"all {wanted:,} rows are there"
    rows = sum((record.rows for record in rounds), RowCounts())
    if rows.requested >= TRIES * wanted:
        return f"{rows.requested:,} rows were asked for, {TRIES:g} for each that is wanted, and {lacking:,} are still lacking"
    late = RowCounts()
    for number, record in enumerate(reversed(rounds), start=1):
        late += record.rows
        if late.requested >= BARREN_ROWS and late.accepted < BARREN_SHARE * late.requested:
            return f"of the last {late.requested:,} rows that were asked for {late.accepted:,} were new; {lacking:,} are still lacking"
        if number == BARREN_ROUNDS and not late.accepted:
            return f"the last {number} rounds brought no new row; {lacking:,} are still lacking"
        if late.requested >= BARREN_ROWS:
            return None
    return None


async def generate_rows(config: RunConfig, task: TaskSpec, run: RunDir, rows: int, progress: Progress) -> BulkSummary:
    """Start a run, or go on with it, until it has `rows` accepted rows or there is no hope. The caller has checked machine and teacher.

    A finished run goes on where more rows are wanted than before. A RefluxError, or being cancelled, stops it in a state that the same
    call resumes from.
    """
    check_method(config)
    run.create()
    with run.lock("engine"):
        run.clear_temporaries()
        refuse_open_replay(run)
        before = claim(run, Purpose("generate", rows))
        manifest = begin(run, config, task, progress.notice)
        if run.finish.exists() and before.rows == rows:
            return summarize_bulk(task, run)
        run.finish.unlink(missing_ok=True)
        await _write_rows(config, task, run, rows, manifest, progress)
        return summarize_bulk(task, run)


def check_method(config: RunConfig) -> None:
    """UserError if this method does not write rows of a given label, or the task has no such rows."""
    if config.task.kind == "ner":
        raise UserError(f"rows in bulk are balanced by label, which rows of a task of kind {config.task.kind!r} do not have")
    if config.strategy.type not in METHODS:
        raise UserError(f"the method {config.strategy.type} needs a student, or rewrites rows; in bulk there are {', '.join(METHODS)}")


async def _write_rows(config: RunConfig, task: TaskSpec, run: RunDir, rows: int, manifest: Manifest, progress: Progress) -> None:
    quotas: list[Quotas] = []

    def make(config: RunConfig, task: TaskSpec, prompter: Prompter) -> Quotas:
        assert config.strategy.type != "seed_only"
        quotas.append(Quotas(make_strategy(config, task, prompter), config.strategy.rows_per_call, task.kind))
        return quotas[0]

    async with teacher_alone(config, task, run, manifest, progress, make) as solo:
        # Read once, and kept: read again after each round, they would take longer the more rounds there are.
        rounds = await asyncio.to_thread(read_rounds, run)
        there = await asyncio.to_thread(_count_wanted, task, run, 0, solo.last_round)
        while True:
            wanted = await asyncio.to_thread(_settle, run, rows, solo.last_round, num_open=solo.generation.num_open)
            lacking = _lacking(task, there, wanted)
            quotas[0].want(lacking)
            reason = reason_to_stop(wanted, sum(lacking.values()), rounds) or solo.generation.budget.reason_to_stop()
            if reason is not None:
                break
            rounds.append(await solo.ask_next_round())
            there += await asyncio.to_thread(_count_wanted, task, run, solo.last_round - 1, solo.last_round)
        write_json(run.finish, Finish(best_round=0, rounds=solo.last_round, reason=reason))


def _settle(run: RunDir, rows: int, last_round: int, *, num_open: int) -> int:
    """How many rows are wanted from now on: of a round that was begun before, as many as then."""
    before = purpose_of(run)
    assert before is not None
    if before.rows != rows and (num_open or _has_calls_past(run, last_round)):
        return before.rows
    if before.rows != rows:
        write_json(run.purpose, Purpose("generate", rows))
    return rows


def _lacking(task: TaskSpec, there: Mapping[str, int], rows: int) -> dict[str, int]:
    """`there`: rows of complete rounds, by label."""
    return {label: max(0, count - there.get(label, 0)) for label, count in shares(task.label_names, rows).items()}


def count_labels(run: RunDir, after: int, last: int) -> Counter[str]:
    """Of the rows of the rounds past `after`, up to `last`; reads a run that is larger than memory."""
    counts = Counter[str]()
    is_counted = (pc.field("round") > after) & (pc.field("round") <= last)
    samples = open_table(run.table("samples"), SCHEMAS["samples"])
    for batch in samples.to_batches(columns=["label"], filter=is_counted, batch_readahead=1, fragment_readahead=1):
        for found in pc.call_function("value_counts", [batch.column(0)]).to_pylist():
            counts[unescape(found["values"])] += found["counts"]
    return counts


def _count_wanted(task: TaskSpec, run: RunDir, after: int, last: int) -> Counter[str]:
    """Rows that count for what is wanted of their label: where a row may have several, if it has the one it was asked for."""
    return count_several_labels(run, after, last, asked=True) if task.kind == "multi_label" else count_labels(run, after, last)


def count_several_labels(run: RunDir, after: int, last: int, *, asked: bool) -> Counter[str]:
    """The same of rows that may have several labels, each of which counts; `asked`: only the one that the row was asked for."""
    counts = Counter[str]()
    is_counted = (pc.field("round") > after) & (pc.field("round") <= last)
    samples = open_table(run.table("samples"), SCHEMAS["samples"])
    for batch in samples.to_batches(columns=["labels", "weakness"], filter=is_counted, batch_readahead=1, fragment_readahead=1):
        for labels, weakness in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            wanted = unescape(weakness).removeprefix(f"{CLASS}:")
            counts.update(label for label in map(unescape, labels or ()) if not asked or label == wanted)
    return counts


def _has_calls_past(run: RunDir, round: int) -> bool:
    return open_table(run.table("calls"), SCHEMAS["calls"]).count_rows(filter=pc.field("round") > round) > 0


def summarize_bulk(task: TaskSpec, run: RunDir) -> BulkSummary:
    """Of a run that has finished."""
    purpose, totals = purpose_of(run), Totals.of(read_rounds(run))
    assert purpose is not None
    wanted = _count_wanted(task, run, 0, totals.rounds)
    classes = count_several_labels(run, 0, totals.rounds, asked=False) if task.kind == "multi_label" else wanted
    return BulkSummary(
        run=str(run.root),
        is_reached=not any(_lacking(task, wanted, purpose.rows).values()),
        reason=read_json(run.finish, Finish).reason,
        wanted=purpose.rows,
        rows=totals.rows,
        classes={label: classes.get(label, 0) for label in task.label_names},
        rounds=totals.rounds,
        calls=totals.calls,
        prompt_tokens=totals.prompt_tokens,
        completion_tokens=totals.completion_tokens,
        generation_s=totals.generation_s,
    )
