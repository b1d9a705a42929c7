"""Memory of the GPUs a server will use, and who holds it. Asks NVIDIA's own tool, because the engine knows nothing of torch.

Where that tool is missing, or says something else than expected (other makers, divided GPUs), nothing is known, and nothing refused:
vLLM judges for itself, some time later.
"""

from __future__ import annotations

import csv
import math
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.errors import PreflightError

SMI = ("nvidia-smi",)
TIMEOUT_S = 10.0
MIB_PER_GIB = 1024


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, as it is just now."""

    index: int
    uuid: str
    total_mib: int
    free_mib: int


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has memory on a GPU."""

    uuid: str
    """Of the GPU."""
    pid: str
    command: str
    used_mib: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command}, {self.used_mib} MiB)"


def check_memory(fraction: float, *, num_gpus: int, environment: Mapping[str, str], program: Sequence[str] = SMI) -> None:
    """PreflightError if one of the first `num_gpus` GPUs visible in `environment` has less than this share of its memory free. Blocking."""
    for gpu in visible_gpus(read_gpus(program), environment)[:num_gpus]:
        if gpu.free_mib < fraction * gpu.total_mib:
            holders = [str(holder) for holder in read_holders(program) if holder.uuid == gpu.uuid]
            held = f"is held by {', '.join(holders)}: end that" if holders else "is held by other processes: end them"
            raise PreflightError(
                f"GPU {gpu.index} has {_gib(gpu.free_mib)} of {_gib(gpu.total_mib)} GiB free, and the teacher's server would take "
                f"{_gib(fraction * gpu.total_mib)} GiB (teacher.gpu_memory_fraction = {fraction:g}); the rest {held}, "
                f"or lower teacher.gpu_memory_fraction to at most {math.floor(100 * gpu.free_mib / gpu.total_mib) / 100:g}"
            )


def visible_gpus(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves, in its order; none where it cannot be told which they are."""
    names = environment.get("CUDA_VISIBLE_DEVICES")
    wanted = [str(gpu.index) for gpu in gpus] if names is None else [name.strip() for name in names.split(",")]
    # CUDA numbers unlike GPUs by speed, the tool by their place on the bus.
    by_speed = len({gpu.total_mib for gpu in gpus}) > 1 and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID"
    found: list[Gpu] = []
    for name in wanted:
        by_number = [gpu for gpu in gpus if not by_speed and str(gpu.index) == name]
        by_uuid = [gpu for gpu in gpus if name.startswith("GPU-") and gpu.uuid.startswith(name)]
        if len(matches := by_number or by_uuid) != 1:
            break  # as CUDA does: what follows an unknown name is invisible
        found += matches
    return found


def read_gpus(program: Sequence[str] = SMI) -> list[Gpu]:
    """All undivided GPUs of this machine whose memory is known."""
    # Not what is left of the total after what is used: the driver keeps some for itself.
    rows = _query(program, "--query-gpu=index,uuid,memory.total,memory.free,mig.mode.current", num_columns=5)
    return [
        Gpu(int(index), uuid, int(total), int(free))
        for index, uuid, total, free, divided in rows
        if divided != "Enabled" and index.isdigit() and total.isdigit() and free.isdigit()
    ]


def read_holders(program: Sequence[str] = SMI) -> list[Holder]:
    """Empty in most containers, which do not see the processes outside."""
    return [Holder(*row) for row in _query(program, "--query-compute-apps=gpu_uuid,pid,process_name,used_memory", num_columns=4)]


def _query(program: Sequence[str], query: str, *, num_columns: int) -> list[list[str]]:
    try:
        done = subprocess.run(
            [*program, query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return [row for row in rows if len(row) == num_columns]


def _gib(mib: float) -> str:
    return f"{mib / MIB_PER_GIB:.1f}"
