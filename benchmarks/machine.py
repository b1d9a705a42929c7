"""What a figure was measured on, to stand beside it."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from engine.runs.manifest import installed_versions


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, versions and commit, as plain JSON values; and how many processes wanted a core in the last five minutes,
    without which a speed cannot be believed.
    """
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    flags = next((line for line in info.splitlines() if line.startswith("flags")), "")
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "cores_used_at_most": len(os.sched_getaffinity(0)),  # fewer under taskset
        "instructions": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags],
        "load_average": round(os.getloadavg()[1], 1),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "packages": installed_versions(),
        "commit": _commit(),
    }


def _commit() -> str:
    result = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"
