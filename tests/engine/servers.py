"""What tests of the server's life are built from: model folders, and processes that carry a mark."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from engine.orphans import MARK, Owner

READY_THEN_SLEEP = "import time; print(flush=True); time.sleep(600)"
LEAVES_A_CHILD = """
import signal, subprocess, sys, time
def end(*_):
    subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    sys.exit()
signal.signal(signal.SIGTERM, end)
print(flush=True)
time.sleep(600)
"""
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"


@contextmanager
def sleeper(run: Path, code: str = READY_THEN_SLEEP, *, mark: object = None) -> Generator[subprocess.Popen[bytes]]:
    """A process that carries `mark`; without one, that of an owner who is gone: our own pid, but an earlier start."""
    here = Owner.here(run)
    mark = mark or Owner(here.pid, here.started - 1, here.namespace, here.run)
    with subprocess.Popen(
        [sys.executable, "-S", "-c", code], env={MARK: str(mark)}, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def make_model(folder: Path) -> Path:
    """A folder with everything that is looked for, and nothing in it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    make_weights(folder / "model.safetensors")
    return folder


def make_weights(path: Path) -> None:
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
