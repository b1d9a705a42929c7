"""The student of the seed rows, learned once for all methods of a seed: `python -m benchmarks.methods.seed_student RUN_DIR`.

It is the same for all of them: it follows from seed rows, settings and seed. So do the predictions of seed rows by cross-fitting, which
three students cost. A run that is given both begins behind its round 0, as one that was stopped there would go on.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

from engine.config import RunConfig
from engine.errors import StudentError
from engine.rundir import RunDir
from engine.runs.manifest import begin


async def make(config: RunConfig, run: RunDir) -> None:
    """In `run`, unless it is there. `config` has a method that mines out of fold."""
    if run.report(0).exists():
        return
    run.create()
    begin(run, config)
    with (run.logs / "student.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", __spec__.name, str(run.root), stdout=log, stderr=log)
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
    if status != 0:
        raise StudentError(f"the student of the seed rows ended (exit status {status}); see {run.logs / 'student.log'}")


def give(seed_student: RunDir, run: RunDir) -> None:
    """To a run that has not begun. Files of a student are replaced and never changed, so they need not be copied."""
    if run.run_json.exists():
        return
    run.create()
    for name in (seed_student.checkpoint(0).name, "rows", "mined"):
        target = run.student / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(seed_student.student / name, target, copy_function=os.link)


def main(run: RunDir) -> None:
    from student.worker import restore

    with run.lock("student"):
        restore(run)


if __name__ == "__main__":
    main(RunDir(Path(sys.argv[1])))
