"""A disk that crashes the process at a chosen step."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class CrashError(Exception):
    pass


class Disk:
    """Counts the steps that make things durable (sync, rename, delete). From step `crash_at` on it refuses them all.

    Nothing is really synced: no power is cut here, and a disk that others are using would hold the tests up.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.steps = 0
        self.crash_at: int | None = None
        self.threads: set[threading.Thread] = set()
        patch.setattr(os, "fsync", self._counted(os.fstat))
        for name in ("rename", "unlink"):
            patch.setattr(Path, name, self._counted(getattr(Path, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            if self.crash_at is not None and self.steps >= self.crash_at:
                raise CrashError
            self.steps += 1
            self.threads.add(threading.current_thread())
            return function(*args, **kwargs)

        return step
