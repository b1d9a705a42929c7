from __future__ import annotations

import pytest

from engine.machine.processor import INTEL, Processor

AMD = "AuthenticAMD"


@pytest.mark.parametrize(
    ("vendor", "flags", "is_fast"),
    [
        (AMD, {"avx2", "avx512f"}, False),
        (AMD, {"avx512f", "avx512_bf16"}, True),
        (INTEL, {"avx512f", "avx512_bf16"}, False),
        (INTEL, {"avx512_bf16", "amx_bf16"}, True),
        ("", {"asimd", "bf16"}, True),
        ("", set[str](), False),
    ],
)
def test_where_bfloat16_pays(vendor: str, flags: set[str], is_fast: bool) -> None:
    assert Processor(vendor, frozenset(flags)).is_fast_in_bfloat16 == is_fast


@pytest.mark.parametrize(
    ("cpuinfo", "processor"),
    [
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nflags\t: fpu\n", Processor(INTEL, frozenset({"fpu", "avx2"}))),
        ("processor\t: 0\nFeatures\t: asimd bf16\n", Processor("", frozenset({"asimd", "bf16"}))),
        ("", Processor("", frozenset())),
    ],
)  # fmt: skip
def test_as_linux_tells_it(cpuinfo: str, processor: Processor) -> None:
    assert Processor.of(cpuinfo) == processor


def test_here() -> None:
    assert isinstance(Processor.here().flags, frozenset)
