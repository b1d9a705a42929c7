"""A worker that dies at a chosen call of a chosen function."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

import student.worker


class KilledError(Exception):
    """Stands in for a kill, at a point where a process can be stopped."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, function: str, call: int, *, after: bool = False) -> Generator[None]:
    """The block is to end so: before, or `after`, this call of a function of `student.worker`."""
    original, count = getattr(student.worker, function), 0

    def killing(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == call and not after:
            raise KilledError
        result = original(*arguments)
        if count == call:
            raise KilledError
        return result

    with monkeypatch.context() as patch:
        patch.setattr(student.worker, function, killing)
        with pytest.raises(KilledError):
            yield
