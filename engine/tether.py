"""Starts a program that gets SIGTERM when the process that started it ends, however that ends.

    python -I -S tether.py PID COMMAND…

PID is the starter's own. The kernel keeps the wish across exec, so the program runs in this very process. It is bound to the thread that
forked: start it from a thread that lives as long as the program should. A file of its own, run by its path with nothing but the standard
library, because the alternative (`preexec_fn`) runs Python between fork and exec of a process with threads, which can hang.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Never returns."""
    starter, command = int(arguments[0]), arguments[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != starter:  # it ended before the wish was made
        sys.exit("the process that started this one has ended")
    os.execvp(command[0], command)  # noqa: S606 - a list, and no shell


if __name__ == "__main__":
    main(sys.argv[1:])
