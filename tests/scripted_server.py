"""`python -m engine.testing.server` in a process of its own, for calls that block the loop in which they are made."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def scripted_endpoint(*arguments: str) -> Generator[str]:
    """Its base URL."""
    command = [sys.executable, "-m", "engine.testing.server", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["base_url"]
        finally:
            process.terminate()
