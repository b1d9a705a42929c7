"""The student worker: `python -m student RUN_DIR`. Writes its log to standard error.

Exit status: 0 when the run is finished, 2 for wrong input, 1 for anything else that stops it; then the last line says why.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from pathlib import Path

from engine.errors import RefluxError
from engine.rundir import open_run

PARENT_POLL_S = 0.5


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m student", description="Learn the rows of a run, round by round, until it is finished.")
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="a folder that holds a run.json")
    parser.add_argument("--detached", action="store_true", help="go on when the process that started this one has gone")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("student").setLevel(logging.INFO)
    if not options.detached:
        threading.Thread(target=_end_with, args=(os.getppid(),), name="parent-watch", daemon=True).start()
    # Read by libraries that are loaded below: the tokenizer's threads would contend with PyTorch's for the same cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        run = open_run(options.run)
        from student.worker import work  # seconds of imports, during which the watch above is on already

        work(run)
    except RefluxError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def _end_with(parent: int) -> None:
    """Ends this process at once when its parent has gone. That is safe at any moment, as being killed is."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    print("the process that started this worker has gone; ending", file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
