"""What each method makes of the same teacher tokens. `make methods`

    python -m benchmarks.methods --seeds 1 2 3 4 5 --teacher-tokens 100000 --out benchmarks/results/methods.json

Every method on the quickstart's task, teacher and student, with the real vLLM. A seed is a draw of seed rows, a student and the teacher's
random numbers, the same for all methods, so that differences to the control (`unguided`) are paired; their interval is Student's t of
95 %. A run asks for rounds until its tokens (of prompts and replies) are used up, and keeps the student with the lowest validation loss.
`eda` and `seed_only` use none; `eda` is given as many rows as the quickstart asks for. Runs stay in `runs/methods/METHOD-SEED`: one that
was stopped is gone on with, one that is finished is only read. Without `--endpoint` each starts a server of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from scipy import stats

from benchmarks.machine import describe_machine
from engine.api import distil
from engine.config import load_config
from engine.display import plain_table
from engine.strategy_config import METHODS

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "examples" / "quickstart" / "quickstart.toml"
CONTROL = "unguided"
EDA_ROWS = 1024
ROWS_PER_ROUND = 128
_MEANS = ("prompt_tokens", "completion_tokens", "requested", "accepted", "rounds", "generation_s", "train_s", "wall_s")
_COLUMNS = ("method", "macro F1", "sd", f"less {CONTROL} [95 %]", "rows", "yield", "tokens in", "out", "rounds", "teacher s", "student s")
SHOWN: Mapping[str, Mapping[str, int]] = {
    # So small a teacher loses the thread in long prompts: as in the quickstart, and no more for one method than for another.
    "pgkd": {"rows_per_call": 8, "examples": 8, "right": 4, "wrong": 4, "hard": 4},
    "hybrid": {"rows_per_call": 8, "examples": 8, "right": 4, "wrong": 4, "hard": 4},
    "unguided": {"rows_per_call": 8, "examples": 8},
    "evokd": {"rows_per_call": 8, "shown": 4},
    "llm2llm": {},
    "zerogen": {},
    "auggpt": {},
    "attrprompt": {},
    "eda": {},
    "seed_only": {},
}


def settings(method: str, seed: int, teacher_tokens: int) -> dict[str, object]:
    """What differs from the quickstart's file, by dotted key."""
    strategy: dict[str, object] = {"type": method, **SHOWN[method]}
    if method == "eda":
        strategy |= {"rounds": EDA_ROWS // ROWS_PER_ROUND, "rows_per_round": ROWS_PER_ROUND}
    elif method != "seed_only":
        strategy |= {"rounds": 1000, "patience": None, "rows_per_round": ROWS_PER_ROUND}
    near = {"gates.near_duplicates": False} if method in ("auggpt", "eda") else {}  # near to the seed is what they are meant to be
    return {"seed": seed, "strategy": strategy, "budget.teacher_tokens": teacher_tokens, **near}


def run(method: str, seed: int, teacher_tokens: int, endpoint: str | None, folder: Path) -> dict[str, Any]:
    """Its summary."""
    place = folder / f"{method}-{seed}"
    if not (place / "summary.json").exists():
        overrides = settings(method, seed, teacher_tokens) | ({} if endpoint is None else {"teacher.endpoint": endpoint})
        distil(load_config(CONFIG, overrides), place)
    return json.loads((place / "summary.json").read_text())


def figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the table shows of one run."""
    student, teacher, rows = summary["student"], summary["teacher"], summary["rows"]
    return {
        "macro_f1": student["after"]["test"]["macro_f1"],
        "accuracy": student["after"]["test"]["accuracy"],
        "before": student["before"]["test"]["macro_f1"],
        "prompt_tokens": teacher["prompt_tokens"],
        "completion_tokens": teacher["completion_tokens"],
        "requested": rows["requested"],
        "accepted": rows["accepted"],
        "rounds": summary["rounds"],
        "stopped": summary["stopped"],
        "generation_s": teacher["generation_s"],
        "train_s": student["train_s"],
        "wall_s": summary["wall_s"],
    }


def paired(differences: Sequence[float]) -> dict[str, float] | None:
    """Mean and its interval of 95 %; None for fewer than two."""
    if len(differences) < 2:
        return None
    mean = statistics.mean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    reach = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def summarise(runs: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """A line for each method, over its seeds: by method and seed, what `figures` gives."""
    control = runs.get(CONTROL, {})
    lines: list[dict[str, Any]] = []
    for method, by_seed in runs.items():
        scores = [by_seed[seed]["macro_f1"] for seed in sorted(by_seed)]
        shared = sorted(set(by_seed) & set(control))
        differences = [by_seed[seed]["macro_f1"] - control[seed]["macro_f1"] for seed in shared]
        lines.append(
            {
                "method": method,
                "seeds": sorted(by_seed),
                "mean": statistics.mean(scores),
                "sd": statistics.stdev(scores) if len(scores) > 1 else None,
                "difference": None if method == CONTROL else paired(differences),
                **{name: statistics.mean(run[name] for run in by_seed.values()) for name in _MEANS},
            }
        )
    return sorted(lines, key=lambda line: -line["mean"])


def show(lines: Sequence[Mapping[str, Any]], console: Console) -> None:
    def difference(line: Mapping[str, Any]) -> str:
        found = line["difference"]
        return "" if found is None else f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"

    rows = [
        (
            line["method"],
            line["mean"],
            "" if line["sd"] is None else line["sd"],
            difference(line),
            round(line["accepted"]),
            f"{line['accepted'] / line['requested']:.0%}" if line["requested"] else "",
            round(line["prompt_tokens"]),
            round(line["completion_tokens"]),
            round(line["rounds"], 1),
            round(line["generation_s"], 1),
            round(line["train_s"], 1),
        )
        for line in lines
    ]  # fmt: skip
    console.print(plain_table(_COLUMNS, rows, title="Methods at the same teacher tokens, on test"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(SHOWN), choices=[name for name in METHODS if name in SHOWN])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--teacher-tokens", type=int, default=100_000, help="of prompts and replies together")
    parser.add_argument("--endpoint", help="a server that already runs (`reflux teacher serve`); none starts one a run")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "methods", help="where the runs are kept")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "methods.json")
    options = parser.parse_args()
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    # Seed by seed, so that whatever is there when it is stopped has all methods.
    for seed in options.seeds:
        for method in options.methods:
            summary = run(method, seed, options.teacher_tokens, options.endpoint, options.folder)
            runs.setdefault(method, {})[seed] = figures(summary)
    lines = summarise(runs)
    show(lines, Console(width=160))
    result = {"machine": describe_machine(), "teacher_tokens": options.teacher_tokens, "methods": lines, "runs": runs}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
