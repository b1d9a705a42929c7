"""Whole runs without a model: a server that is scripted, and a student that only keeps the protocol."""

from __future__ import annotations

import sys
from pathlib import Path

from engine.config import EngineConfig, GatesConfig, PgkdConfig, RunConfig, TeacherConfig
from engine.loop import run_loop
from engine.progress import Silent
from engine.rundir import RunDir
from engine.runs.summary import Summary
from tests.engine.builders import make_task, make_task_config

FAKE_STUDENT = (sys.executable, str(Path(__file__).with_name("fake_student.py")))


def make_config(endpoint: str, *, rounds: int = 2, rows_per_round: int = 12, attempts: int = 3, concurrency: int | None = 4) -> RunConfig:
    return RunConfig(
        name="test",
        seed=3,
        task=make_task_config(),
        teacher=TeacherConfig(model="scripted", endpoint=endpoint),
        gates=GatesConfig(near_duplicates=False),  # what the scripted server writes is alike
        strategy=PgkdConfig(rounds=rounds, rows_per_round=rows_per_round, rows_per_call=4),
        engine=EngineConfig(attempts=attempts, concurrency=concurrency, server_patience_s=0.2),
    )


async def run_once(config: RunConfig, root: Path, *student_options: str, progress: Silent | None = None) -> Summary:
    return await run_loop(config, make_task(), RunDir(root), progress or Silent(), (*FAKE_STUDENT, *student_options))
