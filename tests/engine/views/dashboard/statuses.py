"""Statuses as a run in the midst of its work, with hostile names in it, gives them."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from typing import Any

from engine.records import RowCounts
from engine.status import BudgetUse, Notice, Point, Range, ServerStatus, Stage, Status, WeakClass

NOW = 1_800_000_000.0


def make_status(**changes: Any) -> Status:
    """Asking round 3 of 10, with its last sign of life at NOW."""
    return replace(
        Status(
            name="tickets",
            strategy="pgkd",
            state=Stage.ASKING,
            phase="teacher writes round 3",
            updated_at=NOW,
            started_at=NOW - 761,
            wall_s=761.0,
            round=3,
            rounds=10,
            rows=RowCounts(1692, 1402, 250, 40, 12),
            round_rows=RowCounts(412, 350, 52, 10, 3),
            round_planned=640,
            lost={"near_duplicate": 180, "duplicate": 70, "timeout": 40, "surplus": 12},
            prompt_tokens=812_331,
            completion_tokens=201_442,
            generation_s=500.0,
            train_s=83.0,
            tokens_per_s=1204.0,
            peak_tokens_per_s=1480.0,
            limit="memory",
            waiting=64,
            servers=(ServerStatus("http://127.0.0.1:8000/v1", "open", 64, 64, 60, 4, 0.93),),
            curve=tuple(Point(n, f1, f1 - 0.04, f1 + 0.03, 1 - f1) for n, f1 in enumerate((0.412, 0.731, 0.842))),
            best_round=2,
            weakest=tuple(WeakClass(f"intent_{n:02d}", 0.3 + n / 50, 0.28 + n / 45, 12) for n in range(20)),
            round_left=Range(70.0, 95.0),
            run_left=Range(480.0, 1900.0),
            budget=(BudgetUse("teacher tokens", 1_013_773, 5_000_000),),
            notices=(
                Notice(NOW - 700, "changed since this run was started: seed"),
                Notice(NOW - 9, "the server is back"),
            ),
            pids={"engine": os.getpid()},
            host=socket.gethostname(),
        ),
        **changes,
    )


def beating(**changes: Any) -> Status:
    """Alive now, as this very process."""
    return make_status(updated_at=time.time(), **changes)
