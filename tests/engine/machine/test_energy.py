import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.machine.energy import open_counters

ROUND_UJ = 1_000_000


class FakeNvml:
    """Of two GPUs, the second of which may be one that does not count."""

    class NVMLError(Exception):
        pass

    def __init__(self, counts: dict[str, int | None]) -> None:
        self.counts = counts
        self.is_ready = False

    def nvmlInit(self) -> None:  # noqa: N802 - NVIDIA's name
        self.is_ready = True

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if not self.is_ready or uuid not in self.counts:
            raise self.NVMLError
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if (count := self.counts[handle]) is None:
            raise self.NVMLError
        return count


def make_zone(folder: Path, zone: str, name: str, microjoules: int) -> Path:
    place = folder / zone
    place.mkdir()
    for file, value in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", ROUND_UJ)):
        (place / file).write_text(f"{value}\n")
    return place / "energy_uj"


def sources(folder: Path, library: FakeNvml | None = None, uuids: Sequence[str] = ()) -> list[str]:
    return [counter.source for counter in open_counters(uuids, folder, library)]


def test_gpus_count_together_from_the_opening_on(tmp_path: Path) -> None:
    library = FakeNvml({"GPU-a": 5_000, "GPU-b": 7_000, "GPU-c": 0})
    (counter,) = open_counters(["GPU-a", "GPU-b"], tmp_path, library)
    assert (counter.source, counter.joules()) == ("nvml", 0)
    library.counts |= {"GPU-a": 6_500, "GPU-b": 7_250, "GPU-c": 9_000}
    assert counter.joules() == pytest.approx(1.75)


def test_a_gpu_that_stops_telling_keeps_what_it_told(tmp_path: Path) -> None:
    library = FakeNvml({"GPU-a": 0})
    (counter,) = open_counters(["GPU-a"], tmp_path, library)
    library.counts["GPU-a"] = 2_000
    assert counter.joules() == 2
    library.counts["GPU-a"] = None
    assert counter.joules() == 2


@pytest.mark.parametrize("uuids", [["GPU-old"], ["GPU-a", "GPU-unknown"]])
def test_with_one_gpu_that_does_not_count_nothing_is_known(tmp_path: Path, uuids: list[str]) -> None:
    assert sources(tmp_path, FakeNvml({"GPU-a": 1, "GPU-old": None}), uuids) == []


def test_packages_and_their_memory_count_and_parts_of_them_do_not(tmp_path: Path) -> None:
    package = make_zone(tmp_path, "intel-rapl:0", "package-0", 100)
    memory = make_zone(tmp_path, "intel-rapl:0:1", "dram", 50)
    core = make_zone(tmp_path, "intel-rapl:0:0", "core", 70)
    whole = make_zone(tmp_path, "intel-rapl:1", "psys", 900)
    (counter,) = open_counters((), tmp_path)
    for file, value in ((package, 600_100), (memory, 100_050), (core, 400_000), (whole, 950_000)):
        file.write_text(f"{value}\n")
    assert counter.joules() == pytest.approx(0.7)


def test_a_counter_goes_round(tmp_path: Path) -> None:
    file = make_zone(tmp_path, "intel-rapl:0", "package-0", ROUND_UJ - 200_000)
    (counter,) = open_counters((), tmp_path)
    file.write_text("100000")
    assert counter.joules() == pytest.approx(0.3)
    file.write_text("150000")
    assert counter.joules() == pytest.approx(0.35)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_not_known(tmp_path: Path) -> None:
    make_zone(tmp_path, "intel-rapl:0", "package-0", 1).chmod(0)
    assert sources(tmp_path) == []


def test_broken_counters_are_not_known(tmp_path: Path) -> None:
    assert sources(tmp_path) == []
    make_zone(tmp_path, "intel-rapl:0", "package-0", 1).write_text("plenty")
    assert sources(tmp_path) == []
