"""What every peer's script shares: its options, its clock and its result. Standard library only: it runs in each peer's environment.

Knows nothing of Reflux, and nothing of the peers. A script imports its peer first and calls `run_client` last, so that importing is never
counted as part of the pipeline.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

STARTED_AT = time.perf_counter()


@dataclass(frozen=True, slots=True)
class Job:
    """What a peer is asked to do: send every prompt once."""

    base_url: str
    """Ends in /v1."""
    model: str
    prompts: tuple[str, ...]
    in_flight: int
    folder: Path
    """For whatever the peer writes; empty before, gone afterwards."""
    temperature: float = 0.7
    max_tokens: int = 128
    timeout_s: int = 600


def run_client(package: str, pipeline: Callable[[Job], Iterable[object]]) -> None:
    """Run `pipeline`, which returns the text of each answer, once on the job in the command line, and write what it cost."""
    parser = argparse.ArgumentParser(description=f"Send every prompt once with {package}, and measure what that costs.")
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=Path, required=True, help='JSON lines: {"prompt": "..."}')
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with options.prompts.open(encoding="utf-8") as lines:
        prompts = tuple(json.loads(line)["prompt"] for line in lines)
    # A peer's last threads and files may outlive its pipeline by a moment.
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as folder:
        job = Job(options.base_url, options.model, prompts, options.in_flight, Path(folder))
        cpu_before, began_at = _cpu_s(), time.perf_counter()
        answers = [answer for answer in pipeline(job) if isinstance(answer, str) and answer]
        ended_at, cpu_after = time.perf_counter(), _cpu_s()
    result = {
        "package": package,
        "version": version(package),
        "python": platform.python_version(),
        "asked": len(prompts),
        "completions": len(answers),
        "pipeline_wall_s": ended_at - began_at,
        "pipeline_cpu_s": cpu_after - cpu_before,
        "wall_s": ended_at - STARTED_AT,
        "cpu_s": cpu_after,
        "peak_rss_bytes": _peak_rss_bytes(),
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _cpu_s() -> float:
    """User and system time of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_rss_bytes() -> int:
    """Of this process or of its largest child, whichever is more.

    Not ru_maxrss for this process: that survives exec, and would count the driver that started us.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    own_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * max(own_kib, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
