"""The comparison drawn: of every method, how many rows its tokens bought and what the student made of them.

    python -m benchmarks.methods.chart --results benchmarks/results --out docs/methods.svg

Reads what `make methods` has written, and draws the same picture of the same figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from benchmarks.methods.entries import CONTROL, ENTRIES, FEW, FILES, RESULTS, ROOT, ROUNDS, TaskName

TICKS = (0, 10, 30, 100, 300, 1000)
LINEAR_UNTIL = 10
"""Rows; beyond, the axis is logarithmic."""
NEAR = (0.24, 0.044)
"""Of the axes: names whose points are as near as this in both directions would cover each other."""
INK, MUTED, STEERED, UNSTEERED = "#1f2933", "#8a94a0", "#c2410c", "#1d4ed8"


def draw(results: Mapping[TaskName, Mapping[str, Any]], out: Path) -> None:
    """One panel for each task; `results` are the files of `make methods`, of one task at least."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reflux", "font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(11, 4.6), layout="constrained", facecolor="white")
        for axes, (task, result) in zip(figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True):
            _panel(axes, task, result["runs"])
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})


def _panel(axes: Axes, task: str, runs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    means: dict[str, tuple[float, float]] = {}
    for method, by_seed in runs.items():
        rows, scores = ([run[name] for run in by_seed.values()] for name in ("accepted", "macro_f1"))
        color = _color(method)
        axes.scatter(rows, scores, s=8, color=color, alpha=0.35, linewidths=0)
        means[method] = (statistics.mean(rows), statistics.mean(scores))
        axes.scatter(*means[method], s=42, color=color, zorder=3)
    axes.set_xscale("symlog", linthresh=LINEAR_UNTIL, linscale=0.6)
    axes.set_xlim(-1.5, 5000)
    axes.set_xticks(TICKS)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.minorticks_off()
    for method, height in _spread(axes, means).items():
        axes.annotate(method, (means[method][0], height), xytext=(8, 0), textcoords="offset points", va="center", color=_color(method))
    axes.set_xlabel("rows accepted, at the same teacher tokens")
    axes.set_ylabel("macro F1 on test")
    axes.set_title(f"{task}: each seed, and their mean", loc="left", color=INK)
    axes.grid(color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)


def _spread(axes: Axes, means: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Where each name stands, in scores: pushed upwards where it would lie on one below it."""
    low, high = axes.get_ylim()
    across = {method: axes.transScale.transform((rows, 0))[0] for method, (rows, _) in means.items()}
    left, right = (axes.transScale.transform((edge, 0))[0] for edge in axes.get_xlim())
    heights: dict[str, float] = {}
    for method in sorted(means, key=lambda method: means[method][1]):
        height = means[method][1]
        for other, taken in heights.items():
            if abs(across[method] - across[other]) < NEAR[0] * (right - left) and height - taken < NEAR[1] * (high - low):
                height = taken + NEAR[1] * (high - low)
        heights[method] = height
    return heights


def _color(method: str) -> str:
    if method in (CONTROL, FEW, "seed_only"):
        return INK if method == CONTROL else MUTED
    # What looks at the student is what is asked in rounds, beside the control.
    return STEERED if ENTRIES[method].rounds == ROUNDS else UNSTEERED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of methods.json and methods_ner.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "methods.svg")
    options = parser.parse_args()
    paths: dict[TaskName, Path] = {task: options.results / name for task, name in FILES.items()}
    results: dict[TaskName, Any] = {task: json.loads(path.read_text(encoding="utf-8")) for task, path in paths.items() if path.exists()}
    if not results:
        sys.exit(f"error: neither {' nor '.join(FILES.values())} is in {options.results}; `make methods` writes them")
    draw(results, options.out)


if __name__ == "__main__":
    main()
