"""Energy by the machine's own counters: of GPUs through NVML, of processors and their memory through RAPL (`/sys/class/powercap`).

Both count joules since some moment, for all who compute on the machine. Where there is no counter, or this user may not read it (RAPL is
for root on most systems), nothing is known, and nobody guesses.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

POWERCAP = Path("/sys/class/powercap")
_MJ_PER_J = 1e3
_UJ_PER_J = 1e6


class Counter(Protocol):
    """Of joules; they only rise."""

    @property
    def source(self) -> str:
        """`nvml` or `rapl`."""
        ...

    def joules(self) -> float:
        """Since the counter was opened. Is called often enough that a counter cannot go round twice in between."""
        ...


class Nvml:
    """Of some GPUs together. None of them is missing: with one that does not tell, there is no counter at all."""

    source = "nvml"

    def __init__(self, library: Any, handles: Sequence[Any]) -> None:
        self._library = library
        self._handles = handles
        self._begin, self._last = self._read(), 0.0

    def joules(self) -> float:
        with suppress(self._library.NVMLError):
            self._last = self._read() - self._begin
        return self._last

    def _read(self) -> float:
        return sum(self._library.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in self._handles) / _MJ_PER_J


class Rapl:
    """Of all packages of the machine together, with their memory where that is counted apart."""

    source = "rapl"

    def __init__(self, zones: Mapping[Path, int]) -> None:
        """`zones`: the value at which each counter goes round."""
        self._round = dict(zones)
        self._seen = {zone: _read_uj(zone) for zone in zones}
        self._sum_uj = 0

    def joules(self) -> float:
        with suppress(OSError, ValueError):
            for zone, before in self._seen.items():
                now = _read_uj(zone)
                self._sum_uj += now - before if now >= before else now + self._round[zone] - before
                self._seen[zone] = now
        return self._sum_uj / _UJ_PER_J


def open_counters(gpu_uuids: Sequence[str], powercap: Path = POWERCAP, library: Any = None) -> tuple[Counter, ...]:
    """Those that can be read. Blocking. `library`: NVML's, or what stands for it; None loads it where it is installed."""
    counters: list[Counter] = []
    if gpu_uuids and (library := library or _load_nvml()) is not None:
        with suppress(library.NVMLError):
            library.nvmlInit()
            counters.append(Nvml(library, [library.nvmlDeviceGetHandleByUUID(uuid) for uuid in gpu_uuids]))
    with suppress(OSError, ValueError):
        if zones := _zones(powercap):
            counters.append(Rapl(zones))
    return tuple(counters)


def _load_nvml() -> Any:
    """nvidia-ml-py, which comes with the GPU installation."""
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None


def _zones(powercap: Path) -> dict[Path, int]:
    """Packages and their memory. A package's `core` and `uncore` are parts of it, and `psys` is more than all of them together."""
    found: dict[Path, int] = {}
    for zone in sorted(powercap.glob("*-rapl:*")):
        name = (zone / "name").read_text().strip()
        if name.startswith("package") or name == "dram":
            _read_uj(zone)
            found[zone] = int((zone / "max_energy_range_uj").read_text())
    return found


def _read_uj(zone: Path) -> int:
    return int((zone / "energy_uj").read_text())
