"""Compares a run directory with what its ledger knows.

Each fault is put down once, in words, however often the audit sees it. Tables are read beside a compaction that may be at work.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import structs

from benchmarks.torture.ledger import Ledger
from benchmarks.torture.subject import ROWS_PER_CALL, Work, digest, digest_text
from engine.records import RejectionReason, RowCounts
from engine.rundir import TABLES, RunDir, read_json
from engine.runs.summary import Summary
from engine.store import SCHEMAS, read_rounds
from engine.store.journal import decode_records, encode_record
from engine.store.segments import committed, covered, read_table, retry_moved

_KEYS = {"samples": "id", "rejections": "id", "calls": "request_id", "prompts": "prompt_hash", "rounds": "round"}


@dataclass(slots=True)
class Faults:
    """What is wrong, by what was promised."""

    lost: set[str] = field(default_factory=set[str])
    """Acknowledged answers that are nowhere, or are another one."""
    duplicates: set[str] = field(default_factory=set[str])
    """Rows, calls, prompts or rounds that are there twice."""
    asked_again: set[str] = field(default_factory=set[str])
    """Requests that were not in flight at a death, and yet were asked once more."""
    torn_files: set[str] = field(default_factory=set[str])
    """Files with a final name that are not whole."""
    conservation_errors: set[str] = field(default_factory=set[str])
    """Counts that do not add up."""
    left_over: set[str] = field(default_factory=set[str])
    """Temporary or empty files in the directory of a finished run."""

    @property
    def is_clean(self) -> bool:
        return not any(getattr(self, kind.name) for kind in fields(self))

    def add(self, other: Faults) -> None:
        for kind in fields(self):
            getattr(self, kind.name).update(getattr(other, kind.name))


@dataclass(frozen=True, slots=True)
class Remains:
    """What a death left half-done in a run directory; nothing of it may count."""

    half_segments: int
    half_merged: int
    merged_not_deleted: int
    torn_records: int


def examine_remains(run: RunDir) -> Remains:
    return Remains(
        half_segments=len([*run.tables.glob("*/.*.tmp")]),
        half_merged=len([*run.tables.glob("*/.*.merging")]),
        merged_not_deleted=sum(len(covered(run.table(name))) for name in TABLES),
        torn_records=sum(_is_torn(path) for path in run.journal.glob("*.log")),
    )


def audit(run: RunDir, ledger: Ledger) -> Faults:
    """What has to hold at every moment."""
    faults = Faults()
    _check_files(run, faults)
    if faults.torn_files:
        return faults  # nothing else can be told
    tables = {name: _read(run, name) for name in _KEYS}
    for name, table in tables.items():
        faults.duplicates |= {f"{name}: {key} twice" for key in _twice(table.column(_KEYS[name]).to_pylist())}
    row_ids = [*tables["samples"].column("id").to_pylist(), *tables["rejections"].column("id").to_pylist()]
    faults.duplicates |= {f"row {row_id} ended twice" for row_id in _twice(row_ids)}
    _check_acknowledged(run, ledger, tables["calls"], faults)
    return faults


def audit_finished(run: RunDir, ledger: Ledger, work: Work) -> Faults:
    """And what has to hold at the end."""
    faults = audit(run, ledger)
    if faults.torn_files:
        return faults
    calls, samples, rejections = (_read(run, name) for name in ("calls", "samples", "rejections"))
    _check_answers(ledger, calls, faults)
    for life in ledger.in_flight:
        again = ledger.asked_again_beyond_in_flight(life)
        faults.asked_again |= {f"{request_id} was asked again though its answer was acknowledged" for request_id in again}
    _check_calls(calls, samples, rejections, faults)
    _check_rounds(run, work, calls, faults)
    for path in run.root.rglob("*"):
        if path.name.startswith(".") or path.suffix in (".tmp", ".merging"):
            faults.left_over.add(f"{path.relative_to(run.root)} is left")
    if held := [path.name for path in run.journal.iterdir() if path.stat().st_size]:
        faults.left_over.add(f"the journal still holds {held}")
    return faults


def _check_files(run: RunDir, faults: Faults) -> None:
    def read_all() -> None:
        for name in TABLES:
            for segment in committed(run.table(name)):
                try:
                    pq.ParquetFile(segment.path).read()
                except FileNotFoundError:
                    raise
                except (pa.ArrowException, OSError) as error:
                    faults.torn_files.add(f"{segment.path}: {error}")

    retry_moved(read_all)
    for path in run.root.rglob("[!.]*.json"):
        try:
            json.loads(path.read_bytes())
        except ValueError as error:
            faults.torn_files.add(f"{path}: {error}")


def _check_acknowledged(run: RunDir, ledger: Ledger, calls: pa.Table, faults: Faults) -> None:
    """The first answer on disk is what a resumed run acts on."""
    on_disk: dict[str, str] = {}
    for path in sorted(run.journal.glob("*.log"), key=lambda path: int(path.stem)):
        for outcome in decode_records(path.read_bytes()):
            on_disk.setdefault(outcome.request_id, digest(outcome))
    on_disk |= _digests(calls)
    for request_id, acknowledged in ledger.acknowledged.items():
        if (found := on_disk.get(request_id)) is None:
            faults.lost.add(f"the answer to {request_id} was acknowledged and is gone")
        elif found != acknowledged:
            faults.lost.add(f"the answer to {request_id} is another than was acknowledged")


def _check_answers(ledger: Ledger, calls: pa.Table, faults: Faults) -> None:
    stored = _digests(calls)
    for request_id, text in stored.items():
        if text != "failed" and text not in ledger.answers.get(request_id, ()):
            faults.lost.add(f"the answer to {request_id} is none that the server gave")
    for request_id in ledger.requests - stored.keys():
        faults.lost.add(f"{request_id} was asked and is no call")


def _check_calls(calls: pa.Table, samples: pa.Table, rejections: pa.Table, faults: Faults) -> None:
    accepted = Counter(samples.column("request_id").to_pylist())
    is_surplus = [reason == RejectionReason.SURPLUS for reason in rejections.column("reason").to_pylist()]
    refused = Counter(zip(rejections.column("request_id").to_pylist(), is_surplus, strict=True))
    seen = 0
    for call in calls.to_pylist():
        request_id, counts = call["request_id"], _row_counts(call)
        found = accepted[request_id], refused[request_id, False], refused[request_id, True]
        seen += sum(found)
        if not counts.is_balanced or found != (counts.accepted, counts.rejected, counts.surplus):
            faults.conservation_errors.add(f"call {request_id} says {counts}, its rows are {found}")
    if seen != samples.num_rows + rejections.num_rows:
        faults.conservation_errors.add(f"{samples.num_rows + rejections.num_rows - seen} rows belong to no call")


def _check_rounds(run: RunDir, work: Work, calls: pa.Table, faults: Faults) -> None:
    rounds = read_rounds(run)
    by_round: dict[int, RowCounts] = {}
    num_calls: Counter[int] = Counter()
    for call in calls.to_pylist():
        by_round[call["round"]] = by_round.get(call["round"], RowCounts()) + _row_counts(call)
        num_calls[call["round"]] += 1
    if [record.round for record in rounds] != [*range(1, work.rounds + 1)]:
        faults.conservation_errors.add(f"the rounds are {[record.round for record in rounds]}, not 1 to {work.rounds}")
    for record in rounds:
        if record.rows != by_round.get(record.round) or record.calls != num_calls[record.round]:
            faults.conservation_errors.add(f"round {record.round} says {record.rows}, its calls {by_round.get(record.round)}")
        if record.rows.requested != ROWS_PER_CALL * work.calls_per_round:
            faults.conservation_errors.add(f"round {record.round} asked for {record.rows.requested} rows")
    total = sum((record.rows for record in rounds), RowCounts())
    if not run.summary.exists() or read_json(run.summary, Summary).rows != total:
        faults.conservation_errors.add(f"the summary does not say {total}")


def _read(run: RunDir, name: str) -> pa.Table:
    return read_table(run.table(name), SCHEMAS[name])


def _digests(calls: pa.Table) -> dict[str, str]:
    texts = zip(calls.column("request_id").to_pylist(), calls.column("text").to_pylist(), strict=True)
    return {request_id: "failed" if text is None else digest_text(text) for request_id, text in texts}


def _row_counts(call: dict[str, Any]) -> RowCounts:
    return RowCounts(*(call[f"rows_{kind.name}"] for kind in structs.fields(RowCounts)))


def _twice(keys: Iterable[Any]) -> set[Any]:
    return {key for key, count in Counter(keys).items() if count > 1}


def _is_torn(path: Path) -> bool:
    data = path.read_bytes()
    return sum(len(encode_record(outcome)) for outcome in decode_records(data)) != len(data)
