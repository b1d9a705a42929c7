"""How long a GPU would stand idle: the loop with a scripted server that writes at a fixed speed, and a student of a fixed duration."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.loop.spans import read_span
from engine.config import load_config
from engine.loop import run_loop
from engine.progress import Silent
from engine.rundir import RunDir
from engine.task.task import load_task
from engine.testing.server import ScriptedServer

KNEE, TOKENS_PER_S, LENGTHS = 64, 8000, (32, 128)
"""Sequences at which the simulated GPU is full, what it writes then, and how long replies are."""
REQUESTS = 256
"""A round, so that its end, when the last replies are written one by one, is a small part of it."""
ROWS_PER_CALL = 4
STUDENT_SHARE = 0.9
"""Of the time that a round takes to write: the student's duration."""


def measure(config: Path, folder: Path, rounds: int, max_staleness: int) -> dict[str, Any]:
    """One run."""
    round_s = REQUESTS * sum(LENGTHS) / 2 / TOKENS_PER_S
    student_s = STUDENT_SHARE * round_s
    settings: dict[str, Any] = {
        "loop.max_staleness": max_staleness,
        "strategy.rounds": rounds,
        "strategy.patience": rounds,
        "strategy.rows_per_round": REQUESTS * ROWS_PER_CALL,
        "strategy.rows_per_call": ROWS_PER_CALL,
        "gates.near_duplicates": False,  # what the scripted server writes is alike
    }

    async def run() -> None:
        behaviours = (f"vllm:{KNEE}:{TOKENS_PER_S}", f"tokens:{LENGTHS[0]}:{LENGTHS[1]}")
        async with ScriptedServer(behaviours) as server:
            made = load_config(config, {**settings, "teacher.endpoint": server.base_url, "teacher.model": "scripted"})
            task = load_task(made.task, made.seed)
            program = (sys.executable, "-m", "benchmarks.loop.scripted_student", str(student_s))
            await run_loop(made, task, RunDir(folder), Silent(), program)

    uvloop.run(run())
    return {"student_s": student_s, "round_s": round_s, **asdict(read_span(RunDir(folder)))}
