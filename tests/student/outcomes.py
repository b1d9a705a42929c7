"""What a run's student has come to, for comparison with another's."""

from __future__ import annotations

from dataclasses import replace

from engine.reports import WeaknessReport
from engine.rundir import RunDir, read_json


def reports(run: RunDir) -> list[WeaknessReport]:
    """As written, without how long it took."""
    paths = sorted(run.reports.glob("[0-9]*.json"))
    return [replace(read_json(path, WeaknessReport), train_s=0.0) for path in paths]


def weights(run: RunDir) -> dict[str, bytes]:
    """The optimizer's moments too, where they go on."""
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in run.student.glob("*/*.safetensors")}
