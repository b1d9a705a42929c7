"""Rows through the real store, as the engine hands them to it; and the same rows through plain pyarrow, which promises nothing.

    python -m benchmarks.store.writing --side store --rows 100000 --folder DIR

A process of its own, so that processor time and memory are of one side alone. Calls and rows are made between the rounds, while the
clock stands still: a round ends with all that it wrote committed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import resource
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import uvloop

from benchmarks.store.texts import TextSource
from engine.records import (
    Call,
    Completion,
    FinishReason,
    Message,
    Origin,
    Rejection,
    RejectionReason,
    Request,
    RoundRecord,
    RowCounts,
    Sample,
    SamplingParams,
    Timings,
    Usage,
)
from engine.rundir import RunDir
from engine.store import Store
from engine.store.columns import values
from engine.store.schemas import SCHEMAS, Ending, pack_calls, pack_rejections, pack_samples
from engine.store.store import SEAL_ROWS

ROUND_ROWS = 50_000
MIN_ROWS_A_CALL, MAX_ROWS_A_CALL = 8, 16
REJECTED = 0.1
IN_FLIGHT = 512
"""As many assignments as a large GPU keeps open; their answers come in groups."""
PROMPTS_A_ROUND = 64
PROMPT_ROWS = 24
MODEL = "teacher-8b-instruct"


class Filed(NamedTuple):
    """A call and the rows that became of its reply."""

    samples: list[Sample]
    rejections: list[Rejection]
    call: Call


class Source:
    """Makes rounds of calls, as a teacher answers and gates judge them."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._texts = TextSource(seed)

    def round(self, round: int, num_rows: int) -> list[Filed]:
        prompts = [self._prompt() for _ in range(PROMPTS_A_ROUND)]
        calls: list[Filed] = []
        while num_rows:
            count = min(num_rows, self._random.randint(MIN_ROWS_A_CALL, MAX_ROWS_A_CALL))
            calls.append(self._call(round, len(calls), prompts[len(calls) % PROMPTS_A_ROUND], count))
            num_rows -= count
        return calls

    def _prompt(self) -> tuple[Message, ...]:
        """About 2 kB, as PGKD's."""
        rows = [self._texts.row() for _ in range(PROMPT_ROWS)]
        content = "\n".join(["You write messages to a help desk.", *(f"{row.label}: {row.text}" for row in rows)])
        return Message("system", "You write data."), Message("user", content)

    def _call(self, round: int, number: int, prompt: tuple[Message, ...], num_rows: int) -> Filed:
        rows = [self._texts.row() for _ in range(num_rows)]
        schema = '{"type": "array", "items": {"type": "object"}}'
        request = Request(MODEL, prompt, SamplingParams(1.0, 0.95, 1024, self._random.getrandbits(62), schema))
        timings = Timings(1_700_000_000 + round * 1000 + number / 16, 0.5 + self._random.random(), 1)
        reply = json.dumps([row._asdict() for row in rows])
        completion = Completion(request.id, reply, FinishReason.STOP, Usage(900, 28 * num_rows), timings)
        origin = Origin(
            round=round,
            report=round - 1,
            assignment=f"r{round:04d}-a{number:04d}",
            weakness=f"class:{rows[0].label}",
            strategy="pgkd",
            template="pgkd/generate@1f2e3d4c",
            prompt_hash=request.prompt_hash,
            teacher=MODEL,
            request_id=request.id,
        )
        samples: list[Sample] = []
        rejections: list[Rejection] = []
        for place, row in enumerate(rows):
            row_id = f"{request.id}-{place}"
            if self._random.random() < REJECTED:
                rejections.append(Rejection(row_id, RejectionReason.DUPLICATE, "of the seed", row.text, *row, origin))
            else:
                samples.append(Sample(row_id, *row, origin))
        return Filed(samples, rejections, Call(request, origin, completion, RowCounts(num_rows, len(samples), len(rejections))))


class Meter:
    """Seconds while it runs, and memory from its first start to the highest moment."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self._rss_at_start = 0

    def __enter__(self) -> None:
        if not self._rss_at_start:
            self._rss_at_start = psutil.Process().memory_info().rss
        self._started = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall_s += time.perf_counter() - self._started[0]
        self.cpu_s += time.process_time() - self._started[1]

    def figures(self, num_rows: int) -> dict[str, float]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {
            "rows": num_rows,
            "wall_s": self.wall_s,
            "rows_per_s": num_rows / self.wall_s,
            "cpu_s_per_million": self.cpu_s / num_rows * 1_000_000,
            "rows_per_cpu_s": num_rows / self.cpu_s,
            "rss_growth_mb": (peak - self._rss_at_start) / 1e6,
        }


async def write_through_store(run: RunDir, num_rows: int) -> dict[str, float]:
    source, meter = Source(seed=1), Meter()
    run.create()
    async with Store(run) as store:
        for round, count in enumerate(_rounds(num_rows), start=1):
            calls = source.round(round, count)
            # They stand for what an engine makes and forgets on the way; the collector is not to look through a round of them.
            gc.collect()
            gc.freeze()
            with meter:
                work = iter(calls)
                counts = await asyncio.gather(*(_work_off(store, work) for _ in range(IN_FLIGHT)))
                rows = sum(counts, RowCounts())
                await store.complete_round(RoundRecord(round, round - 1, len(calls), len(calls), rows, 0, 0, 1.0))
    return meter.figures(num_rows)


async def _work_off(store: Store, work: Iterator[Filed]) -> RowCounts:
    """One assignment after another, each as `engine.desk` does it."""
    total = RowCounts()
    for samples, rejections, call in work:
        await store.record(call.outcome)
        request_id = call.outcome.request_id
        assert not store.endings(request_id)
        store.add_rows(request_id, [*samples, *rejections])
        await store.add_call(call)
        total += call.rows
    return total


def write_plainly(folder: Path, num_rows: int) -> dict[str, float]:
    """The same tables, one growing file each, from lists of plain values, with pyarrow's own settings: no journal, no sync, no check, no
    event loop.
    """
    source, meter = Source(seed=1), Meter()
    folder.mkdir(parents=True)
    writers = {name: pq.ParquetWriter(folder / f"{name}.parquet", SCHEMAS[name]) for name in ("samples", "rejections", "calls")}
    for round, count in enumerate(_rounds(num_rows), start=1):
        calls = source.round(round, count)
        size = SEAL_ROWS * 2 // (MIN_ROWS_A_CALL + MAX_ROWS_A_CALL)
        for start in range(0, len(calls), size):
            tables = _columns(calls[start : start + size])
            with meter:
                for name, columns in tables.items():
                    writers[name].write_table(pa.table(columns, SCHEMAS[name]))
    with meter:
        for writer in writers.values():
            writer.close()
    return meter.figures(num_rows)


def _columns(filed: list[Filed]) -> dict[str, dict[str, list[Any]]]:
    """What the store writes of these, by table and column."""
    endings: list[list[Ending | None]] = [
        [*repeat("accepted", call.rows.accepted), *repeat(RejectionReason.DUPLICATE, call.rows.rejected)] for _, _, call in filed
    ]
    tables = {
        "samples": pack_samples(sample for samples, _, _ in filed for sample in samples),
        "rejections": pack_rejections(rejection for _, rejections, _ in filed for rejection in rejections),
        "calls": pack_calls([call for _, _, call in filed], endings),
    }
    return {name: {column: values(table, column) for column in table.column_names} for name, table in tables.items()}


def _rounds(num_rows: int) -> list[int]:
    """Rows of each."""
    return [min(ROUND_ROWS, num_rows - start) for start in range(0, num_rows, ROUND_ROWS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=["store", "pyarrow"], required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where it is written; does not exist yet")
    options = parser.parse_args()
    if options.side == "store":
        figures = uvloop.run(write_through_store(RunDir(options.folder), options.rows))
    else:
        figures = write_plainly(options.folder, options.rows)
    size = sum(path.stat().st_size for path in options.folder.rglob("*.parquet"))
    print(json.dumps(figures | {"bytes_per_row": size / options.rows}))


if __name__ == "__main__":
    main()
