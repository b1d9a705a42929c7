"""The quickstart over several seeds: what a student gains, and how long it takes. `make bench-quickstart`

    python -m benchmarks.quickstart --seeds 1 2 3 --seed-rows 2 --out benchmarks/results/quickstart.json

Each seed is another draw of seed rows, another student and other requests. Runs are the quickstart's own, on the real vLLM; they stay in
`runs/bench-quickstart-*`, and one that was stopped is gone on with.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import describe_machine
from engine.views.display import plain_table

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "examples" / "quickstart" / "quickstart.toml"


def run_quickstart(seed: int, seed_rows: int) -> dict[str, Any]:
    """The summary of one run."""
    out = ROOT / "runs" / f"bench-quickstart-{seed_rows}-{seed}"
    command = [sys.executable, "-m", "engine.cli", "run", str(CONFIG), "--out", str(out), "--seed", str(seed), "--json"]
    command += ["--set", f"task.data.seed_rows_per_class={seed_rows}"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--seed-rows", type=int, nargs="+", default=[2], help="real rows of each intent; several are measured one after another"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "quickstart.json")
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    for seed_rows in options.seed_rows:
        for seed in options.seeds:
            summary = run_quickstart(seed, seed_rows)
            before, after = (summary["student"][side]["test"]["macro_f1"] for side in ("before", "after"))
            figures = {name: summary[name] for name in ("wall_s", "rounds", "rows", "curve")}
            figures |= {"completion_tokens": summary["teacher"]["completion_tokens"], "train_s": summary["student"]["train_s"]}
            runs.append({"seed": seed, "seed_rows": seed_rows, "before": before, "after": after, "gain": after - before} | figures)
    lines = [
        (run["seed_rows"], run["seed"], run["before"], run["after"], run["gain"], run["rows"]["accepted"],
         run["completion_tokens"], run["wall_s"])
        for run in runs
    ]  # fmt: skip
    columns = ("seed rows", "seed", "macro F1 before", "after", "gain", "rows accepted", "teacher tokens", "wall s")
    gains = [run["gain"] for run in runs]
    Console().print(plain_table(columns, lines, title="Quickstart, on test"))
    Console().print(f"mean gain {statistics.mean(gains):.3f} (least {min(gains):.3f}, most {max(gains):.3f})")
    result = {"machine": describe_machine(), "mean_gain": statistics.mean(gains), "runs": runs}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
