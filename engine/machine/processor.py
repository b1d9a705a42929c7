"""What this machine's processor can do, in Linux's own words."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_CPUINFO = Path("/proc/cpuinfo")
INTEL = "GenuineIntel"


class Processor(NamedTuple):
    """All cores are alike."""

    vendor: str
    """As it calls itself; empty where it does not say, as on Arm."""
    flags: frozenset[str]
    """Names of instructions; empty where none are listed."""

    @classmethod
    def here(cls) -> Processor:
        try:
            return cls.of(_CPUINFO.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            return cls("", frozenset())

    @classmethod
    def of(cls, cpuinfo: str) -> Processor:
        """Of a text like that of /proc/cpuinfo."""
        found: dict[str, str] = {}
        for line in cpuinfo.splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
        # x86 calls the line `flags`, Arm `Features`.
        return cls(found.get("vendor_id", ""), frozenset((found.get("flags") or found.get("Features", "")).split()))

    @property
    def is_fast_in_bfloat16(self) -> bool:
        """Whether multiplying in bfloat16 takes less time than in float32.

        Elsewhere it is emulated, or not worth its conversions: an AMD EPYC with `avx512_bf16` trains 2.2 times as fast in bfloat16, an
        Intel Xeon with it, but with AMX hidden by its hypervisor, 0.7 times (MiniLM, lengths 16 to 128, CPU time).
        """
        if self.vendor == INTEL:
            return "amx_bf16" in self.flags
        return not self.flags.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})
