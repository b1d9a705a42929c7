"""What a segment's layout costs: each candidate differs from the store's own in one thing, and writes and answers the same.

    python -m benchmarks.store.layout --run DIR --rows 200000

Samples lie in segments as large as the store seals, as they do while a run goes on; calls in one, as after `reflux compact`. Queries go
the ways that users and the loop go: `engine.store.run_query`, rows past a watermark, the texts that the gates read when a run resumes, and
one row group of calls, where the answer to a replayed request stands.
"""

# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from engine.rundir import RunDir
from engine.store import read_rounds, read_texts, run_query, samples_since
from engine.store.schemas import ANSWER_COLUMNS, SCHEMAS
from engine.store.segments import read_table, row_group_rows, writer_options
from engine.store.store import SEAL_ROWS

REPEATS = 3


class Candidate(NamedTuple):
    name: str
    options: dict[str, Any]
    """In the place of the store's own, as is the next; None leaves one to pyarrow."""
    row_group_rows: int | None = None
    first: tuple[str, ...] = ()
    """Columns that stand before the others."""


CANDIDATES = (
    Candidate("as the store", {}),
    Candidate("zstd 2", {"compression_level": 2}),
    Candidate("zstd 3", {"compression_level": 3}),
    Candidate("zstd 6", {"compression_level": 6}),
    Candidate("lz4", {"compression": "lz4", "compression_level": None}),
    Candidate("snappy", {"compression": "snappy", "compression_level": None}),
    Candidate("row groups of 4,096", {}, row_group_rows=4_096),
    Candidate("row groups of 16,384", {}, row_group_rows=16_384),
    Candidate("row groups of 65,536", {}, row_group_rows=65_536),
    Candidate("all dictionaries", {"use_dictionary": True}),
    Candidate("no dictionaries", {"use_dictionary": False}),
    Candidate("all statistics", {"write_statistics": True}),
    Candidate("no statistics", {"write_statistics": False}),
    Candidate("queried columns first", {}, first=("round", "label", "weakness", "model")),
)

SQL = {
    "label_counts": "SELECT label, count(*) FROM samples GROUP BY label",
    "by_weakness": "SELECT weakness, label, count(*) FROM samples GROUP BY ALL",
    "text_search": "SELECT id, text FROM samples WHERE text ILIKE '%parcel%refund%'",
    "last_round": "SELECT count(*) FROM samples WHERE round = (SELECT max(round) FROM samples)",
}


def measure_layouts(run: RunDir, num_rows: int, folder: Path, repeats: int = REPEATS) -> list[dict[str, Any]]:
    """One line a candidate; of the repeats, which take turns, the quickest."""
    samples = read_table(run.table("samples"), SCHEMAS["samples"]).slice(0, num_rows).combine_chunks()
    calls = read_table(run.table("calls"), SCHEMAS["calls"]).combine_chunks()
    lines: dict[str, dict[str, float]] = {}
    for _ in range(repeats):
        for candidate in CANDIDATES:
            found = _measure(candidate, samples, calls, run, folder / "candidate")
            shutil.rmtree(folder / "candidate")
            known = lines.setdefault(candidate.name, found)
            lines[candidate.name] = {name: min(value, known[name]) for name, value in found.items()}
    return [{"layout": name, **figures} for name, figures in lines.items()]


def _measure(candidate: Candidate, samples: pa.Table, calls: pa.Table, run: RunDir, folder: Path) -> dict[str, float]:
    copy = RunDir(folder)
    copy.create()
    shutil.copytree(run.table("rounds"), copy.table("rounds"), dirs_exist_ok=True)
    segments = [samples.slice(start, SEAL_ROWS) for start in range(0, len(samples), SEAL_ROWS)]
    figures = {
        "samples_write_s": _seconds(
            lambda: [
                _write(candidate, rows, copy.table("samples") / f"{number:06d}.parquet") for number, rows in enumerate(segments, start=1)
            ]
        ),
        "calls_write_s": _seconds(lambda: _write(candidate, calls, copy.table("calls") / "000001.parquet")),
    }
    for table, rows in (("samples", samples), ("calls", calls)):
        figures[f"{table}_bytes_per_row"] = sum(path.stat().st_size for path in copy.table(table).iterdir()) / len(rows)
    last = read_rounds(copy)[-1].round
    one = samples["id"][random.Random(1).randrange(len(samples))].as_py()
    questions: dict[str, Callable[[], object]] = {name: lambda sql=sql: run_query(copy, sql) for name, sql in SQL.items()}
    questions["row_by_id"] = lambda: run_query(copy, f"SELECT * FROM samples WHERE id = '{one}'")
    questions["past_watermark"] = lambda: samples_since(copy, len(segments) - 1, last)
    questions["all_texts"] = lambda: sum(map(len, read_texts(copy)))
    questions["answer_of_a_call"] = lambda: _read_last_row_group(copy.table("calls") / "000001.parquet")
    return figures | {f"{name}_ms": _seconds(question) * 1000 for name, question in questions.items()}


def _write(candidate: Candidate, rows: pa.Table, path: Path) -> None:
    first = [name for name in candidate.first if name in rows.column_names]
    rows = rows.select([*first, *(name for name in rows.column_names if name not in first)])
    options = writer_options(rows.schema) | candidate.options
    with pq.ParquetWriter(path, rows.schema, **{name: value for name, value in options.items() if value is not None}) as writer:
        writer.write_table(rows, candidate.row_group_rows or row_group_rows(rows.schema))


def _read_last_row_group(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read_row_group(max(0, file.num_row_groups - 2), columns=[*ANSWER_COLUMNS])


def _seconds(work: Callable[[], object]) -> float:
    """Of the processor, all threads together: on one core it is what one waits, without what others on the machine add."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run directory with samples and calls")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reflux-layout-", dir=options.run.parent) as folder:
        lines = measure_layouts(RunDir(options.run), options.rows, Path(folder), options.repeats)
    print(json.dumps(lines))


if __name__ == "__main__":
    main()
