"""Kills the engine again and again, lets it run out of disk, and counts what that cost.

    make torture        python -m benchmarks.torture --kills 200 --out benchmarks/results/torture.json

Runs of a few thousand requests against the scripted server are killed with SIGKILL up to fifteen times each, at random moments and in the
middle of sealing, rotation and compaction (which goes on beside them, and is killed too), and then let finish. What the server answered and
what the engine acknowledged is compared with the tables. Then come full disks, read-only directories and SIGTERM. The exit status is 0 only
if nothing was lost, doubled, torn or miscounted, nothing acknowledged was asked again, and every process that ended by itself said why.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console

from benchmarks.machine import describe_machine
from benchmarks.torture.audit import Faults
from benchmarks.torture.campaign import Killed, Report, open_campaign, torture
from benchmarks.torture.troubles import Met, can_mount, choose_troubles
from engine.views.display import plain_table

ROOT = Path(__file__).parents[2]
KILLS_PER_RUN = 15
MAX_SHOWN = 20
console = Console(width=None if sys.stdout.isatty() else 160)


async def kill_runs(kills: int, seed: int) -> Report:
    """One run after another, until there were so many kills."""
    total, started = Report(runs=0), time.perf_counter()
    while len(total.killed) < kills:
        with tempfile.TemporaryDirectory(prefix="reflux-torture-") as folder:
            async with open_campaign(Path(folder) / "run", seed) as campaign:
                total.add(await torture(campaign, min(KILLS_PER_RUN, kills - len(total.killed)), seed))
        seed += 1
        faults = sum(map(len, words_of(total.faults).values()))
        console.print(f"{len(total.killed)} kills in {total.runs} runs, {faults} faults, {time.perf_counter() - started:.0f} s")
    return total


async def meet_troubles(times: int, seed: int) -> list[Met]:
    met: list[Met] = []
    for name, meet in choose_troubles().items():
        for number in range(times):
            with tempfile.TemporaryDirectory(prefix="reflux-torture-") as folder:
                met.append(await meet(Path(folder), seed + number))
        console.print(f"{name}: {times} runs")
    return met


def words_of(faults: Faults) -> dict[str, list[str]]:
    return {kind.name: sorted(getattr(faults, kind.name)) for kind in fields(faults)}


def summarise_kills(report: Report) -> dict[str, Any]:
    asked_again, in_flight = [kill.asked_again for kill in report.killed], [kill.in_flight for kill in report.killed]
    by_moment: defaultdict[str, list[Killed]] = defaultdict(list)
    for kill in report.killed:
        by_moment[kill.moment].append(kill)
    return {
        "kills": len(report.killed),
        "runs": report.runs,
        "requests": report.calls,
        "compactions_killed": report.compactions_killed,
        "kills_that_left": dict(report.remains),
        "asked_again_per_kill": round(mean(asked_again), 2) if asked_again else 0.0,
        "asked_again_at_most": max(asked_again, default=0),
        "asked_again_by_limit": {
            limit: round(mean([kill.asked_again for kill in report.killed if kill.limit == limit]), 2)
            for limit in sorted({kill.limit for kill in report.killed})
        },
        "in_flight_per_kill": round(mean(in_flight), 2) if in_flight else 0.0,
        "in_flight_at_most": max(in_flight, default=0),
        "moments": {
            moment: {
                "kills": len(kills),
                "in_flight": round(mean([kill.in_flight for kill in kills]), 1),
                "asked_again": round(mean([kill.asked_again for kill in kills]), 1),
            }
            for moment, kills in sorted(by_moment.items())
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--troubles", type=int, default=5, metavar="RUNS", help="that meet each of the other troubles")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "torture.json")
    options = parser.parse_args()
    started = time.perf_counter()
    report = asyncio.run(kill_runs(options.kills, options.seed))
    met = asyncio.run(meet_troubles(options.troubles, options.seed))
    faults = Faults()
    for found in (report.faults, *(run.faults for run in met)):
        faults.add(found)
    words = words_of(faults)
    ends = [end for run in met for end in run.ends]
    unclean = [f"{end.trouble}: {end.mistake}" for end in ends if end.mistake is not None]
    kills = summarise_kills(report)
    counts = {
        "lost_beyond_in_flight": len(faults.lost),
        "duplicates": len(faults.duplicates),
        "torn_files": len(faults.torn_files),
        "conservation_errors": len(faults.conservation_errors),
        "asked_again_beyond_in_flight": len(faults.asked_again),
        "files_left_over": len(faults.left_over),
        "unclean_ends": len(unclean),
    }
    console.print(
        plain_table(
            ("struck when", "kills", "in flight", "asked again"),
            [(moment, *figures.values()) for moment, figures in kills["moments"].items()],
            title=f"{kills['kills']} kills of the engine and {kills['compactions_killed']} of compactions, in {kills['runs']} runs",
        )
    )
    tally: defaultdict[tuple[str, int], int] = defaultdict(int)
    for end in ends:
        tally[end.trouble, end.status] += 1
    console.print(plain_table(("trouble", "exit status", "times"), [(*key, times) for key, times in tally.items()]))
    console.print(plain_table(("must be 0", "found"), list(counts.items())))
    for line in [*(line for lines in words.values() for line in lines), *unclean][:MAX_SHOWN]:
        console.print(line, markup=False, highlight=False)
    content = {
        "machine": describe_machine(),
        "seed": options.seed,
        "seconds": round(time.perf_counter() - started, 1),
        **counts,
        **kills,
        "troubles": [{"trouble": trouble, "exit_status": status, "times": times} for (trouble, status), times in tally.items()],
        "full_disk": "tmpfs and a limit to the size of files" if can_mount() else "a limit to the size of files",
        "faults": {kind: lines[:MAX_SHOWN] for kind, lines in words.items() if lines} | ({"unclean_ends": unclean} if unclean else {}),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content, indent=2) + "\n")
    sys.exit(any(counts.values()))


if __name__ == "__main__":
    main()
