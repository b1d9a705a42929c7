"""What tests of the server's life are built from: model folders, and processes that carry a mark."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from engine.config import TeacherConfig
from engine.server.launch import Device
from engine.server.orphans import MARK, Owner
from engine.server.server import VllmServer, ignore
from tests.engine import fake_vllm

PROGRAM = (sys.executable, "-I", fake_vllm.__file__)
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


SMI = """\
#!/bin/sh
case "$1" in
*query-compute-apps*) cat "$0.holders" ;;
*) cat "$0.gpus" && mv "$0.later" "$0.gpus" 2>/dev/null ;;
esac
true
"""


def make_server(
    folder: Path,
    mode: str = "serve",
    *,
    on_phase: Callable[[str], None] = ignore,
    on_notice: Callable[[str], None] = ignore,
    device: Device = "cpu",
    **config: object,
) -> VllmServer:
    """A server played by `fake_vllm` in one of its modes, for the run `folder / "run"`."""
    teacher = TeacherConfig.model_validate({"model": str(make_model(folder / "tiny")), "extra_args": ("--fake", mode), **config})
    run = folder / "run"
    log = run / "logs" / "server.log"
    return VllmServer(teacher, run=run, log=log, on_phase=on_phase, on_notice=on_notice, device=device, program=PROGRAM)


def survivors(folder: Path) -> list[psutil.Process]:
    """Processes that are left of the servers of `folder`'s run."""
    mark = str(Owner.here(folder / "run"))
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


def fake_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, *, gpus: str, later: str | None = None, holders: str = "") -> None:
    """An nvidia-smi that is found first and prints these lines; `later` are the GPUs from the second question on."""
    folder.mkdir()
    program = folder / "nvidia-smi"
    for suffix, content in ((".gpus", gpus), (".holders", holders), *([(".later", later)] if later is not None else [])):
        program.with_suffix(suffix).write_text(f"{content}\n")
    program.write_text(SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


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
