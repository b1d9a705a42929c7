"""Starts a program that gets SIGTERM when the process that started it ends, however that ends.

    python -I -S tether.py PID CORES COMMAND…

PID is the starter's own. CORES are the logical processors that the program may use (`0,1`), or `all`. The kernel keeps both wishes across
exec, so the program runs in this very process. Its end is bound to that of the thread that forked: start it from a thread that lives as
long as the program should. A file of its own, run by its path with nothing but the standard library, because the alternative (`preexec_fn`)
runs Python between fork and exec of a process with threads, which can hang.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
ALL = "all"


def tethered(command: Sequence[str], cores: Sequence[int] = ()) -> tuple[str, ...]:
    """What to start instead of the command, from this process. `cores`: none restrict it to none."""
    only = ",".join(map(str, cores)) or ALL
    return (sys.executable, "-I", "-S", __file__, str(os.getpid()), only, *command)


def main(arguments: list[str]) -> None:
    """Never returns."""
    starter, cores, command = int(arguments[0]), arguments[1], arguments[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != starter:  # it ended before the wish was made
        sys.exit("the process that started this one has ended")
    if cores != ALL:
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    os.execvp(command[0], command)  # noqa: S606 - a list, and no shell


if __name__ == "__main__":
    main(sys.argv[1:])
