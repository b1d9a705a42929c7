"""The student's worker, which kills somebody in the middle of its first update.

python -m tests.student.dying_worker WHOM GATE RUN

WHOM is `worker` or `engine`. At the third step of the update it opens GATE, a named pipe, for writing, which waits until somebody opens it
for reading. Who then reads to the end knows that this process is dead. A later worker of the same run is an ordinary one.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import student.trainer
from engine.rundir import RunDir
from student.__main__ import main

STEP = 3


def make_deadly(whom: str, gate: Path, run: RunDir) -> None:
    epochs: Any = student.trainer._Epochs  # pyright: ignore[reportPrivateUsage]
    compute, steps = epochs._compute, 0

    def deadly(*arguments: Any) -> Any:
        nonlocal steps
        steps += run.checkpoint(0).exists()  # steps of updates, not of the seed
        if steps == STEP and gate.exists():
            _held = gate.open("w")
            gate.unlink()
            if whom == "engine":
                os.kill(os.getppid(), signal.SIGKILL)
                signal.pause()
            os.kill(os.getpid(), signal.SIGKILL)
        return compute(*arguments)

    epochs._compute = deadly


if __name__ == "__main__":
    whom, gate, root = sys.argv[1:]
    make_deadly(whom, Path(gate), RunDir(Path(root)))
    sys.exit(main([root]))
