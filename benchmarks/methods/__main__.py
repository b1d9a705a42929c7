"""What each method makes of the same teacher tokens, and why. `make methods`

    python -m benchmarks.methods --tasks classification ner --seeds 1 2 3 4 5 --teacher-tokens 40000 --jobs 2

Every method on the quickstart's two tasks, with its teacher and student and the real vLLM. A seed is a draw of seed rows, a student and
the teacher's random numbers, the same for all methods, so that differences to the control (`unguided`) are paired; their interval is
Student's t of 95 %. A run ends when its tokens (of prompts and replies) are used up, and keeps the student with the lowest validation
loss; what differs between the methods stands in `entries.py`.

`eda` and `seed_only` use no tokens. `pool` has the seed split's other rows as its unlabelled pool (160 of 192; they are known neither to
the student nor to the teacher's training). One server writes for all runs; `--endpoint` uses one that runs already. Runs stay in
`--folder`: one that was stopped is gone on with, one that is finished is only read (`--read` reads and starts nothing). With `--jobs 1` the
server's count of cached prompt tokens is a run's own, and is put down with it. Last, the rows are judged by a student of all real rows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import describe_machine
from benchmarks.methods.campaign import DEFAULT_FOLDER, Campaign, Piece, finished, in_order, serve
from benchmarks.methods.comparison import show, summarise
from benchmarks.methods.entries import CONFIGS, ENTRIES, FILES, IN_FLIGHT, RESULTS, STUDENT, TASKS, TaskName, names_for, settings
from benchmarks.methods.figures import figures
from engine.config import load_config
from engine.errors import RefluxError
from examples.quickstart.judge import Judge, make_judge


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be compared, and where it lies."""

    pieces: Sequence[Piece]
    teacher_tokens: int
    folder: Path
    out: Path

    def write(self, judges: Mapping[TaskName, Judge] | None = None) -> dict[TaskName, list[dict[str, Any]]]:
        """A file for each task, of the runs that are finished; returns the lines of the tables."""
        lines: dict[TaskName, list[dict[str, Any]]] = {}
        for task in TASKS:
            if not any(piece.task == task for piece in self.pieces):
                continue
            judge = None if judges is None else judges[task]
            runs: dict[str, dict[int, dict[str, Any]]] = {}
            for piece in self.pieces:
                if piece.task == task and (run := finished(self.folder, piece, self.teacher_tokens)) is not None:
                    runs.setdefault(piece.method, {})[piece.seed] = figures(run, judge)
            lines[task] = summarise(runs)
            content = {
                "machine": describe_machine(),
                "teacher_tokens": self.teacher_tokens,
                "in_flight": IN_FLIGHT,
                "student": STUDENT,
                "settings": {name: settings(name, task, 1, self.teacher_tokens)["strategy"] for name in runs},
                "judge": None if judge is None else {"accuracy": judge.own.accuracy, "micro_f1": judge.own.micro_f1},
                "methods": lines[task],
                "runs": runs,
            }
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / FILES[task]).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return lines


async def carry_out(plan: Plan, endpoint: str | None, jobs: int, console: Console) -> list[str]:
    """Runs what is not finished; what went wrong."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    if all(finished(plan.folder, piece, plan.teacher_tokens) for piece in plan.pieces):
        return []
    async with serve(plan.folder, endpoint, lambda phase: console.print(f"vLLM: {phase}", highlight=False)) as server:
        return await Campaign(plan.folder, plan.teacher_tokens, server, console).carry_out(plan.pieces, jobs)


def main() -> None:
    try:
        _compare()
    except RefluxError as error:
        sys.exit(f"error: {error}")


def _compare() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--methods", nargs="+", default=list(ENTRIES), choices=list(ENTRIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--teacher-tokens", type=int, default=40_000, help="of prompts and replies together")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--endpoint", help="a server that already runs (`reflux teacher serve`); its key is in REFLUX_API_KEY")
    parser.add_argument("--read", action="store_true", help="start nothing, and read what is finished")
    parser.add_argument("--no-judge", action="store_true", help="leave out whether a student of all real rows agrees with the labels")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where the runs are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of methods.json and methods_ner.json")
    options = parser.parse_args()
    console = Console(width=240)
    pieces = in_order(options.tasks, lambda task: [name for name in names_for(task) if name in options.methods], options.seeds)
    plan = Plan(pieces, options.teacher_tokens, options.folder.absolute(), options.out)
    failures = [] if options.read else asyncio.run(carry_out(plan, options.endpoint, options.jobs, console))
    judges = None
    if not options.no_judge:
        judges = {task: make_judge(load_config(CONFIGS[task]), plan.folder / f"{task}-judge") for task in options.tasks}
    for task, lines in plan.write(judges).items():
        show(lines, task, console)
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
