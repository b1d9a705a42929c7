"""What the tables show of one run, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.methods.campaign import CACHED, Cached
from benchmarks.methods.findings import find
from engine.rundir import RunDir, read_json
from engine.runs.summary import Summary
from examples.quickstart.judge import Judge

SCORES = ("accuracy", "macro_f1", "micro_f1")


def figures(run: RunDir, judge: Judge | None = None) -> dict[str, Any]:
    """Plain JSON values. `judge` of the run's task, if its rows are to be judged."""
    summary = read_json(run.summary, Summary)
    student, teacher, rows = summary.student, summary.teacher, summary.rows
    cached = read_json(run.root / CACHED, Cached) if (run.root / CACHED).exists() else None
    scores: Mapping[str, float | None] = {name: getattr(student.after.test, name) for name in SCORES}
    return {
        **{name: score for name, score in scores.items() if score is not None},
        "before": student.before.test.macro_f1,
        "kept_round": student.after.round,
        "rounds": summary.rounds,
        "stopped": summary.stopped,
        "calls": teacher.calls,
        "prompt_tokens": teacher.prompt_tokens,
        "completion_tokens": teacher.completion_tokens,
        "cached_prompt_tokens": None if cached is None else cached.hit,
        "requested": rows.requested,
        "accepted": rows.accepted,
        "rejected": rows.rejected,
        "failed": rows.failed,
        "generation_s": teacher.generation_s,
        "train_s": student.train_s,
        "wall_s": summary.wall_s,
        "curve": list(summary.curve.macro_f1),
        **find(run, judge),
    }
