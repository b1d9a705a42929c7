"""What it is worth that the teacher writes while the student learns (`loop.max_staleness`). `make bench-loop`

    python -m benchmarks.loop --seeds 1 2 3 --out benchmarks/results/loop.json

The quickstart's task and teacher on the real vLLM, with as many rounds and rows in each mode:

    own cores   in lock-step, teacher and student each bound to half of the cores, as the overlapped mode has them
    all cores   in lock-step, each with all cores in turn, as a run is by default
    overlapped  at once, each on its half

`wall_ratio` is overlapped to own cores, by the median over the seeds of the loop's time (`benchmarks.loop.spans`);
`wall_ratio_all_cores` is overlapped to all cores, which is what a user of this machine gets. First short runs choose the student's epochs
so that learning a round takes about as long as writing it on half of the cores. The shipped teacher is smaller than its student: where it
writes a round faster than one epoch of it is learned, its server gets a smaller batch (`teacher.max_num_seqs`), in which it computes as
long as a larger teacher would. The shares stand beside the figures.
`update = "incremental"`, so that learning several rounds at once saves nothing by itself: what is saved is saved by working at
the same time.

`teacher_idle_share` is measured with a scripted server that writes at a fixed speed and a student of a fixed duration
(`benchmarks.loop.idle`). Alone on two cores without a GPU all of it takes about half an hour. Runs stay in `runs/bench-loop-*`, and
one that was stopped is gone on with.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.loop.idle import measure
from benchmarks.loop.spans import read_span
from benchmarks.machine import describe_machine
from benchmarks.paired import paired
from engine.rundir import RunDir
from engine.views.display import plain_table

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "examples" / "quickstart" / "quickstart.toml"
MODES: dict[str, dict[str, Any]] = {
    "own cores": {"loop.max_staleness": 0, "loop.teacher_cores": 0.5},
    "all cores": {"loop.max_staleness": 0},
    "overlapped": {"loop.max_staleness": 1},
}
BATCHES = (None, 16, 8, 4)
"""Most replies that the teacher writes at once, from the fastest teacher to the slowest; None is as the quickstart has it."""
SIMILAR = 0.8
"""Writing takes at least this part of the time of learning."""
WALL_RATIO, IDLE_SHARE = 0.67, 0.05
"""At most."""


def run_once(name: str, seed: int, mode: str, rounds: int, rows: int, epochs: int, batch: int | None) -> dict[str, Any]:
    """The figures of one run."""
    out = ROOT / "runs" / f"bench-loop-{name}"
    settings = {
        **MODES[mode],
        "strategy.rounds": rounds,
        "strategy.patience": rounds,
        "strategy.rows_per_round": rows,
        "student.weights": "continue",
        "student.update": "incremental",
        "student.epochs": epochs,
        "student.patience": epochs,
        "student.min_steps": 0,
    }
    if batch is not None:
        settings["teacher.max_num_seqs"] = batch
    command = [sys.executable, "-m", "engine.cli", "run", str(CONFIG), "--out", str(out), "--seed", str(seed), "--json"]
    command += [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    summary = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)
    span = read_span(RunDir(out))
    return {
        "seed": seed,
        "mode": mode,
        **asdict(span),
        "waiting_s": span.waiting_s,
        "wall_s": summary["wall_s"],
        "train_s": summary["student"]["train_s"],
        "reports": len(summary["curve"]["rounds"]),
        "rows": summary["rows"],
        "macro_f1": summary["student"]["after"]["test"]["macro_f1"],
        "kept_round": summary["student"]["after"]["round"],
    }


def balance(rows: int, batches: Sequence[int | None] = BATCHES) -> tuple[int, int | None, list[dict[str, Any]]]:
    """Epochs of the student and batch of the teacher with which a round is learned in about the time in which it is written, and what was
    found on the way.
    """
    tried: list[dict[str, Any]] = []
    for batch in batches:
        found = run_once(f"calibration-{rows}-{batch}", 1, "own cores", 3, rows, 1, batch)
        tried.append({"batch": batch, **found})
        written_for_learned = found["generation_s"] / found["waiting_s"]
        if written_for_learned >= SIMILAR:
            return max(1, round(written_for_learned)), batch, tried
    return 1, batches[-1], tried


def median_ratio(runs: list[dict[str, Any]], one: str, other: str) -> float:
    """Of the loop's time, seed by seed."""
    by = {(run["mode"], run["seed"]): run["loop_s"] for run in runs}
    seeds = sorted({run["seed"] for run in runs})
    return statistics.median(by[one, seed] / by[other, seed] for seed in seeds)


def f1_difference(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Overlapped less own cores, paired by seed, with the interval of 95 % of a t-distribution: with three seeds a wide one."""
    by = {(run["mode"], run["seed"]): run["macro_f1"] for run in runs}
    seeds = sorted({run["seed"] for run in runs})
    differences = [by["overlapped", seed] - by["own cores", seed] for seed in seeds]
    found = paired(differences)
    if found is None:
        return {"by_seed": differences}
    return {**found, "by_seed": differences, "is_within_noise": found["low"] <= 0 <= found["high"]}


def measure_idle(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="reflux-bench-") as folder:
        return {mode: measure(CONFIG, Path(folder) / mode, rounds, staleness) for mode, staleness in (("lock-step", 0), ("overlapped", 1))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3], help="none measures the idle share alone")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--rows", type=int, default=256, help="of a round")
    parser.add_argument("--epochs", type=int, help="of the student; with the teacher's batch chosen by first runs if not given")
    parser.add_argument("--batch", type=int, help="of the teacher, beside --epochs")
    parser.add_argument("--idle-rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "loop.json")
    options = parser.parse_args()
    console = Console()
    idle = measure_idle(options.idle_rounds)
    idle_share = idle["overlapped"]["idle_share"]
    console.print(f"teacher idle: {idle['lock-step']['idle_share']:.1%} in lock-step, {idle_share:.1%} overlapped")
    result: dict[str, Any] = {"machine": describe_machine(), "teacher_idle_share": idle_share, "idle": idle}
    result["is_within"] = {"teacher_idle_share": idle_share <= IDLE_SHARE}
    if options.seeds:
        epochs, batch, calibration = (options.epochs, options.batch, []) if options.epochs else balance(options.rows)
        console.print(f"epochs: {epochs}; replies at once: {batch or 'as many as come'}")
        runs: list[dict[str, Any]] = []
        for seed in options.seeds:
            for mode in MODES:
                name = f"{mode.replace(' ', '-')}-{options.rounds}-{options.rows}-{epochs}-{batch}-{seed}"
                runs.append(run_once(name, seed, mode, options.rounds, options.rows, epochs, batch))
                console.print(f"seed {seed}, {mode}: {runs[-1]['loop_s']:.1f} s, macro F1 {runs[-1]['macro_f1']:.3f}")
        shares = {mode: statistics.median(run["generation_s"] / run["loop_s"] for run in runs if run["mode"] == mode) for mode in MODES}
        wall_ratio = median_ratio(runs, "overlapped", "own cores")
        shown = ("seed", "mode", "loop_s", "generation_s", "waiting_s", "idle_share", "reports", "macro_f1")
        lines = [[run[name] for name in shown] for run in runs]
        columns = ("seed", "mode", "loop s", "writing s", "waiting s", "teacher idle", "reports", "macro F1")
        console.print(plain_table(columns, lines, title="Quickstart's task on the real vLLM"))
        result |= {
            "rounds": options.rounds,
            "rows_per_round": options.rows,
            "epochs": epochs,
            "batch": batch,
            "calibration": calibration,
            "wall_ratio": wall_ratio,
            "wall_ratio_all_cores": median_ratio(runs, "overlapped", "all cores"),
            "generation_share": shares,
            "macro_f1_difference": f1_difference(runs),
            "runs": runs,
        }
        result["is_within"]["wall_ratio"] = wall_ratio <= WALL_RATIO
        console.print(f"wall ratio {wall_ratio:.3f}; to lock-step with all cores {result['wall_ratio_all_cores']:.3f}")
        console.print(f"macro F1 {json.dumps(result['macro_f1_difference'])}", highlight=False)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
