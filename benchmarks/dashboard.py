"""What watching costs a run: the same round with the dashboard on a terminal, with plain lines, and with nobody told of anything.

    make bench-dashboard     python -m benchmarks.dashboard --minutes 5 --out benchmarks/results/dashboard.json

The engine asks the scripted server, whose replies come at once, so that a redraw has the least to hide behind: it renders, parses, judges,
journals and writes Parquet on one core, the server answers on another. The terminal is a real pseudo-terminal of 80x24 that somebody
reads. `dashboard` and `plain` write status.json too; `bare` has neither. Each run is a process of its own. They are short, take turns in
another order each time, and are compared within a turn, so that a machine that grows slower is everybody's. The promise is that the
ratio of dashboard to plain is within 2 %, in processor time and in wall time: the median of the turns' ratios, with the interval in
which it lies in 95 of 100 draws of as many turns. Where that interval is wider than the promise, the share of processor time that the
watching threads themselves take (`watching_share`) is the firmer figure.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import resource
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from rich.console import Console

from benchmarks.engine import CLIENT_CORE, IN_FLIGHT, ROOT, scripted_server, spread
from benchmarks.engine_client import make_config, make_report, make_task
from benchmarks.machine import describe_machine
from engine.config import RunConfig
from engine.generation import open_generation
from engine.progress import Silent
from engine.records import Finish
from engine.rundir import RunDir, write_json
from engine.server.fleet import open_fleet
from engine.views.console import run_progress
from engine.views.display import plain_table
from engine.watching.heartbeat import keep_status

WAYS = ("dashboard", "plain", "bare")
FIGURES = ("cpu_s_per_1k", "completions_per_s", "watching_share")
RATIOS = ("cpu_s_per_1k", "wall_s")
PROMISE = 0.02
FEWEST_TURNS = 5
DRAWS = 10_000


def paired_ratio(ratios: Sequence[float]) -> dict[str, float]:
    """The median, and where it lies in 95 of 100 draws of as many turns."""
    found = np.asarray(ratios)
    draws = np.median(np.random.default_rng(0).choice(found, (DRAWS, len(found))), axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return {"median": float(np.median(found)), "low": float(low), "high": float(high)}


async def measure(config: RunConfig, folder: Path, way: str) -> dict[str, Any]:
    """One round, from the first request to the last commit."""
    run = RunDir(folder)
    run.create()
    console = Console(stderr=True)
    assert console.is_terminal == (way == "dashboard")
    notes: list[dict[str, Any]] = []
    with run_progress(console) if way != "bare" else nullcontext(Silent()) as progress:
        async with AsyncExitStack() as stack:
            board = None if way == "bare" else await stack.enter_async_context(keep_status(run, config, progress))
            fleet = await stack.enter_async_context(open_fleet(config.teacher, config.engine, run, board or progress, notes.append))
            for lane in fleet.lanes:
                lane.takes_draws = False  # each prompt by itself
            started, cpu = time.perf_counter(), _cpu_s()
            async with open_generation(config, make_task(), run, fleet) as generation:
                if board is not None:
                    board.reported(make_report())
                    board.watch(fleet.lanes, generation.batcher.statistics, generation.watcher)
                record = await generation.ask_round(1, make_report(), board or progress)
            wall_s, cpu_s = time.perf_counter() - started, _cpu_s() - cpu
            watching_s = sum(_cpu_s_of(thread) for thread in threading.enumerate() if thread.name in ("dashboard", "status", "cost"))
            write_json(run.finish, Finish(best_round=1, rounds=1, reason="all 1 rounds done"))
    assert record.rows.requested == record.rows.accepted == config.strategy.rows_per_round, record.rows
    assert run.status.exists() == (way != "bare")
    return {
        "completions": record.calls,
        "wall_s": wall_s,
        "completions_per_s": record.calls / wall_s,
        "cpu_s_per_1k": cpu_s / record.calls * 1000,
        "watching_share": watching_s / cpu_s,
    }


def _cpu_s() -> float:
    """Of all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _cpu_s_of(thread: threading.Thread) -> float:
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def run_client(base_url: str, rows: int, way: str) -> dict[str, Any]:
    """In a process of its own; `drawn_bytes` is what came to the terminal."""
    command = ["taskset", "--cpu-list", str(CLIENT_CORE), sys.executable, "-m", "benchmarks.dashboard"]
    command += ["--client", way, "--base-url", base_url, "--rows", str(rows)]
    if way != "dashboard":
        done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        return json.loads(done.stdout)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, cwd=ROOT, env=os.environ | {"TERM": "xterm-256color"}) as process:
        os.close(slave)
        drawn: list[int] = []
        reader = threading.Thread(target=_drain, args=(master, drawn))
        reader.start()
        assert process.stdout is not None
        result = process.stdout.read()
    reader.join()
    os.close(master)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return json.loads(result) | {"drawn_bytes": sum(drawn)}


def _drain(master: int, drawn: list[int]) -> None:
    """Until the other end is closed."""
    try:
        while content := os.read(master, 1 << 16):
            drawn.append(len(content))
    except OSError:
        return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="turns are begun for so long")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "dashboard.json")
    parser.add_argument("--client", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--base-url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        with tempfile.TemporaryDirectory(prefix="reflux-bench-") as folder:
            config = make_config(options.base_url, options.rows, IN_FLIGHT)
            print(json.dumps(uvloop.run(measure(config, Path(folder) / "run", options.client))))
        return
    if (os.cpu_count() or 1) < 2:
        parser.error("client and server need a core each")
    console = Console()
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with scripted_server() as base_url:
        run_client(base_url, options.rows // 10, "plain")  # to warm the server and the disk's cache up
        ends = time.monotonic() + 60 * options.minutes
        turn = 0
        while turn < FEWEST_TURNS or time.monotonic() < ends:
            for place in range(len(WAYS)):
                way = WAYS[(turn + (place if turn % 2 else -place)) % len(WAYS)]
                runs[way].append(run_client(base_url, options.rows, way))
            turn += 1
            console.print(f"turn {turn}: " + ", ".join(f"{way} {found[-1]['cpu_s_per_1k']:.4f}" for way, found in runs.items()))
    figures = {way: {name: spread(found, name) for name in FIGURES} for way, found in runs.items()}
    lines = [(way, *(found[name]["median"] for name in FIGURES)) for way, found in figures.items()]
    console.print(
        plain_table(
            ("", "CPU s per 1,000", "completions/s", "share of watching threads"),
            lines,
            title=f"One core, {IN_FLIGHT} in flight, instant replies",
        )
    )
    # Within a repeat, so that a machine that grows slower meanwhile slows both.
    ratios = {
        f"{name}_{one}_to_{other}": paired_ratio([a[name] / b[name] for a, b in zip(runs[one], runs[other], strict=True)])
        for one, other in (("dashboard", "plain"), ("dashboard", "bare"))
        for name in RATIOS
    }
    for name, ratio in ratios.items():
        console.print(f"{name}: {ratio['median']:.4f} ({ratio['low']:.4f} to {ratio['high']:.4f})", highlight=False)
    cpu, wall = (ratios[f"{name}_dashboard_to_plain"] for name in RATIOS)
    content = {
        "machine": describe_machine(),
        "rows": options.rows,
        "in_flight": IN_FLIGHT,
        "turns": turn,
        "cpu_ratio": cpu["median"],
        "wall_ratio": wall["median"],
        "is_within": max(cpu["median"], wall["median"]) <= 1 + PROMISE,
        "is_surely_within": max(cpu["high"], wall["high"]) <= 1 + PROMISE,
        "watching_share": figures["dashboard"]["watching_share"]["median"],
        "ratios": ratios,
        "ways": figures,
        "runs": runs,
    }
    options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
