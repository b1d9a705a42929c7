"""A million rows in bulk, killed on the way: whether memory stays flat, whether all is counted, and whether the dataset loads.

    make bench-bulk     python -m benchmarks.bulk --rows 1000000 --out benchmarks/results/bulk.json

`reflux generate` asks the scripted server, whose replies come at once and whose rows are all different, with the duplicate gates on.
First a tenth of the rows, undisturbed; then all of them, with a SIGKILL at three moments drawn by chance, and the same command again each
time. The scripted server writes rows of any label, whichever it is asked for, so the last rows of each label take many small rounds: more
of them than with a teacher that does as it is told.

What must hold: requested = accepted + rejected + failed in calls, rounds and summary; no row, call or text twice; nothing asked again but
what was in flight at a kill; the memory of a million rows within MEMORY_MB of that of a tenth; and `datasets` loads what is exported.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.engine import ROOT, scripted_server
from benchmarks.machine import describe_machine
from engine.rundir import RunDir
from engine.status import read_status
from engine.store import SCHEMAS, run_query
from engine.store.journal import decode_records
from engine.store.segments import read_table
from engine.views.display import plain_table

TASK = ROOT / "examples" / "quickstart" / "quickstart.toml"
ROWS_PER_CALL = 16
"""One of each label: two rows of one reply that have a label in common are near duplicates here."""
POLL_S = 0.1
MOST_IN_FLIGHT = 1024
"""Requests of a life that is killed: sent, or waiting for the journal's sync. Answers on disk are many times as many."""
MEMORY_MB = 250
"""Exact copies are remembered by 70 bytes a row, requests by 25, and Arrow keeps what a larger segment has freed."""
COUNTS = """
select
    (select count(*) from samples) as samples,
    (select count(distinct id) from samples) as sample_ids,
    (select count(distinct text) from samples) as texts,
    (select count(*) from rejections) as rejections,
    (select count(*) from calls) as calls,
    (select count(distinct request_id) from calls) as call_ids,
    (select sum(rows_requested) from calls) as requested,
    (select sum(rows_accepted) from calls) as accepted,
    (select sum(rows_rejected) from calls) as rejected,
    (select sum(rows_failed) from calls) as failed,
    (select sum(rows_surplus) from calls) as surplus,
    (select sum(rows_requested) from rounds) as rounds_requested,
    (select sum(rows_accepted) from rounds) as rounds_accepted,
    (select count(*) from rounds) as rounds
"""
LOADS = """
import json, sys, datasets
rows = datasets.load_dataset(sys.argv[1], split="train")
print(json.dumps({"rows": rows.num_rows, "features": {name: str(kind) for name, kind in rows.features.items()}, "first": rows[0]["text"]}))
"""


@dataclass(frozen=True, slots=True)
class Life:
    """One process of `reflux generate`."""

    killed_at: int | None
    """Rows that had been asked for by then; None if it came to its end."""
    in_flight: int
    """Requests that it had sent, and whose answers were not on disk when it ended."""
    wall_s: float
    begun_s: float
    """Until its first request came to the server: start, and what is read back of the run."""
    cpu_s: float
    peak_mb: float
    """Resident memory at most."""


def live(base_url: str, rows: int, out: Path, method: str, kill_at: int | None) -> Life:
    """Start the command or go on with it; kill it when so many rows have been asked for."""
    command = [sys.executable, "-m", "engine.cli", "generate", str(TASK), "--rows", str(rows), "--out", str(out), "--method", method]
    command += ["--endpoint", base_url, "--set", "teacher.model=scripted", "--set", f"strategy.rows_per_call={ROWS_PER_CALL}", "--json"]
    asked, known = statistics(base_url)["num_sequences"], num_answers(RunDir(out))
    started, begun_s, peak, cpu_s = time.perf_counter(), None, 0, 0.0
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, cwd=ROOT) as process:
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        watched, said, status = psutil.Process(process.pid), b"", None
        while process.poll() is None:
            said = (said + (process.stderr.read() or b""))[-2000:]
            try:
                peak = max(peak, watched.memory_info().rss)
                cpu_s = sum(watched.cpu_times()[:2])
            except psutil.Error:
                break
            if begun_s is None and statistics(base_url)["num_sequences"] > asked:
                begun_s = time.perf_counter() - started
            status = read_status(RunDir(out).status) or status
            if kill_at is not None and begun_s is not None and status is not None and status.rows.requested >= kill_at:
                process.send_signal(signal.SIGKILL)
            time.sleep(POLL_S)
        status_code = process.wait()
    if status_code not in (0, -signal.SIGKILL):
        raise SystemExit(f"reflux generate ended with {status_code}: {said.decode(errors='replace')}")
    is_killed = status_code != 0
    return Life(
        killed_at=status.rows.requested if is_killed and status is not None else None,
        in_flight=statistics(base_url)["num_sequences"] - asked - (num_answers(RunDir(out)) - known),
        wall_s=round(time.perf_counter() - started, 1),
        begun_s=round(begun_s or 0.0, 1),
        cpu_s=round(cpu_s, 1),
        peak_mb=round(peak / 1e6, 1),
    )


def statistics(base_url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{base_url.removesuffix('/v1')}/scripted/statistics") as answer:
        return json.loads(answer.read())


def num_answers(run: RunDir) -> int:
    """Requests whose answer is on disk, in the calls table or in the journal."""
    if not run.run_json.exists():
        return 0
    committed = read_table(run.table("calls"), SCHEMAS["calls"], ["request_id"]).column(0).to_pylist()
    journalled = [outcome.request_id for path in run.journal.glob("*.log") for outcome in decode_records(path.read_bytes())]
    return len({*committed, *journalled})


def count(run: RunDir) -> dict[str, int]:
    (counts,) = run_query(run, COUNTS).to_pylist()
    return {name: int(value) for name, value in counts.items()}


def check(counts: dict[str, int], rows: int, asked: int, lives: Sequence[Life]) -> dict[str, bool]:
    """What must hold of a finished run."""
    return {
        "is_balanced": counts["requested"] == counts["accepted"] + counts["rejected"] + counts["failed"],
        "rounds_agree": (counts["rounds_requested"], counts["rounds_accepted"]) == (counts["requested"], counts["accepted"]),
        "all_are_there": counts["samples"] == counts["accepted"] >= rows and counts["rejections"] == counts["rejected"] + counts["surplus"],
        "none_is_doubled": counts["samples"] == counts["sample_ids"] == counts["texts"] and counts["calls"] == counts["call_ids"],
        "nothing_answered_is_asked_again": (
            asked - counts["calls"] == sum(life.in_flight for life in lives)
            and all(life.in_flight <= (0 if life.killed_at is None else MOST_IN_FLIGHT) for life in lives)
        ),
    }


def torture(base_url: str, rows: int, out: Path, method: str, kills: int, seed: int) -> dict[str, Any]:
    """One run to its end, with so many kills on the way."""
    draw = random.Random(seed)
    moments = sorted(int(draw.uniform(0.05, 0.95) * rows) for _ in range(kills))
    asked = statistics(base_url)["num_sequences"]
    lives = [live(base_url, rows, out, method, moment) for moment in [*moments, None]]
    asked = statistics(base_url)["num_sequences"] - asked
    counts = count(RunDir(out))
    killed = [life for life in lives if life.killed_at is not None]
    holds = check(counts, rows, asked, lives) | {"killed_as_often": len(killed) == kills}
    return {
        "rows": rows,
        "wall_s": round(sum(life.wall_s for life in lives), 1),
        "cpu_s": round(sum(life.cpu_s for life in lives), 1),
        "rows_per_s": round(counts["accepted"] / sum(life.wall_s - life.begun_s for life in lives)),
        "peak_mb": max(life.peak_mb for life in lives),
        "requests_asked_again": asked - counts["calls"],
        "requests_in_flight_at_kills": sum(life.in_flight for life in killed),
        "holds": holds,
        "counts": counts,
        "lives": [asdict(life) for life in lives],
    }


def load(run: Path, folder: Path) -> dict[str, Any]:
    """Export as a user would, and load with `datasets` in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    started = time.perf_counter()
    command = [sys.executable, "-m", "engine.cli", "export", str(run), str(folder / "rows"), "--json"]
    exported = json.loads(subprocess.run(command, check=True, capture_output=True, env=environment, cwd=ROOT).stdout)
    export_s, started = time.perf_counter() - started, time.perf_counter()
    command = [sys.executable, "-c", LOADS, str(folder / "rows")]
    loaded = json.loads(subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder).stdout)
    return {
        "export_s": round(export_s, 1),
        "load_s": round(time.perf_counter() - started, 1),
        "mb": round(exported["num_bytes"] / 1e6, 1),
        "rows": loaded["rows"],
        "features": loaded["features"],
        "has_card": (folder / "rows" / "README.md").is_file(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--method", default="zerogen")
    parser.add_argument("--loaded", action="store_true", help="say in the results that the machine was not alone")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "bulk.json")
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="reflux-bulk-") as name, scripted_server() as base_url:
        folder = Path(name)
        tenth = torture(base_url, options.rows // 10, folder / "tenth", options.method, 0, options.seed)
        console.print(f"{tenth['rows']:,} rows: {tenth['wall_s']} s, at most {tenth['peak_mb']} MB", highlight=False)
        whole = torture(base_url, options.rows, folder / "whole", options.method, options.kills, options.seed)
        dataset = load(folder / "whole", folder)
    growth_mb = round(whole["peak_mb"] - tenth["peak_mb"], 1)
    holds = whole["holds"] | {
        "memory_is_flat": growth_mb <= MEMORY_MB,
        "dataset_loads": dataset["rows"] == whole["counts"]["samples"] and dataset["has_card"],
    }
    lives = [(*life.values(),) for life in whole["lives"]]
    console.print(plain_table((*whole["lives"][0],), lives, title=f"{options.rows:,} rows, {options.kills} kills"))
    console.print(f"{whole['rows_per_s']:,} rows/s, {growth_mb} MB above a tenth of the rows; {holds}", highlight=False)
    content = {
        "machine": describe_machine(),
        "machine_was_alone": not options.loaded,
        "rows_per_call": ROWS_PER_CALL,
        "method": options.method,
        "growth_mb": growth_mb,
        "holds": holds,
        "tenth": tenth,
        "whole": whole,
        "dataset": dataset,
    }
    options.out.write_text(json.dumps(content, indent=2) + "\n")
    if not all(holds.values()):
        sys.exit("something does not hold")


if __name__ == "__main__":
    main()
