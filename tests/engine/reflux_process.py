"""`reflux` as a process of its own, with another program in the place of the student's worker.

python -m tests.engine.reflux_process PROGRAM… -- ARGUMENTS…
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import engine.cli.teach
from engine.cli import main

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def reflux_process(program: Sequence[str], *arguments: object) -> Generator[subprocess.Popen[str]]:
    """Killed on leaving, if it still runs. What it says for people can be read."""
    command = [sys.executable, "-m", "tests.engine.reflux_process", *program, "--", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        try:
            yield process
        finally:
            process.kill()


if __name__ == "__main__":
    end = sys.argv.index("--")
    program, sys.argv[1:] = tuple(sys.argv[1:end]), sys.argv[end + 1 :]
    engine.cli.teach.run_loop = partial(engine.cli.teach.run_loop, student_program=program)
    engine.cli.teach.check_student = lambda _: None  # pyright: ignore[reportUnknownLambdaType] - loads torch, as the worker does anyhow
    main()
