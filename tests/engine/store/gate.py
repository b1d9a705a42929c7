"""A disk that a test can hold up."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest


class Gate:
    """Syncs wait until `release` is set, and then fail with the error if there is one; all are counted."""

    def __init__(self, patch: pytest.MonkeyPatch, sync_error: OSError | None = None) -> None:
        self.entered, self.release = threading.Event(), threading.Event()
        self.syncs = 0
        self._fsync = os.fsync
        self._error = sync_error
        patch.setattr(os, "fsync", self._sync)

    async def is_reached(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 10), "nothing is synced"

    def _sync(self, descriptor: int) -> None:
        self.syncs += 1
        self.entered.set()
        assert self.release.wait(10), "the test holds the disk up"
        if self._error is not None:
            raise self._error
        self._fsync(descriptor)
