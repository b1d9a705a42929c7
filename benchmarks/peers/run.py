"""Runs one peer on one core and says what its work cost.

Invariants: the peer has its own environment, an empty home, and its core from its first instruction on; when `run_peer` returns or raises,
no process of the peer is left. Needs an OpenAI server that is up, and nothing else of the network.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import PeerError, last_lines, python_of

CLIENTS = Path(__file__).parent

INHERITED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
"""All that a peer sees of our environment: a proxy, an API key or a tuning of ours must not reach it."""


@dataclass(frozen=True, slots=True)
class PeerResult:
    """What one run of a peer cost. A peer that lost an answer has no result."""

    name: str
    version: str
    completions: int
    completions_per_s: float
    """By the wall time of the peer's own pipeline: starting Python and importing the peer are left out, in its favour."""
    cpu_s_per_1k: float
    """User and system time of the pipeline, with its child processes, for 1,000 completions; imports are left out here too."""
    peak_rss_mb: float
    """In units of 10^6 bytes, imports included; of the largest process where there are several."""
    wall_s: float
    """Of all the peer did, imports included."""


def run_peer(name: str, *, base_url: str, model: str, prompts: Path, in_flight: int, core: int, time_limit_s: float = 600.0) -> PeerResult:
    """Send every prompt (JSON lines with "prompt") once through the peer. PeerError if it fails, loses an answer or takes too long."""
    python = python_of(name)
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        out, log = home / "result.json", home / "output.log"
        options = {"base-url": base_url, "model": model, "prompts": prompts.resolve(), "in-flight": in_flight, "out": out}
        command = ["taskset", "--cpu-list", str(core), str(python), str(CLIENTS / f"{name}_client.py")]
        command += [part for option, value in options.items() for part in (f"--{option}", str(value))]
        _run(name, command, log, home, time_limit_s)
        try:
            result: dict[str, Any] = json.loads(out.read_bytes())
        except (OSError, ValueError) as error:
            raise PeerError(f"{name} ended well but wrote no result:\n{last_lines(log)}") from error
        completions = result["completions"]
        if completions != result["asked"]:
            raise PeerError(f"{name} answered {completions} of {result['asked']} prompts:\n{last_lines(log)}")
    return PeerResult(
        name=name,
        version=result["version"],
        completions=completions,
        completions_per_s=completions / result["pipeline_wall_s"],
        cpu_s_per_1k=1_000 * result["pipeline_cpu_s"] / completions,
        peak_rss_mb=result["peak_rss_bytes"] / 1e6,
        wall_s=result["wall_s"],
    )


def _run(name: str, command: list[str], log: Path, home: Path, time_limit_s: float) -> None:
    environment = {variable: os.environ[variable] for variable in INHERITED if variable in os.environ}
    environment |= {"HOME": str(home), "TMPDIR": str(home), "PYTHONNOUSERSITE": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home,
            env=environment,
            start_new_session=True,
        ) as process,
    ):
        try:
            status = process.wait(time_limit_s)
        except subprocess.TimeoutExpired:
            raise PeerError(f"{name} was not done within {time_limit_s:g} s:\n{last_lines(log)}") from None
        finally:
            # Also what a peer that has ended left behind: its session is its process group.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if status:
        raise PeerError(f"{name} ended with status {status}:\n{last_lines(log)}")
