"""The store under load, on one core. `make bench-store`

    python -m benchmarks.store --rows 1000000 --repeats 3 --out benchmarks/results/store.json

Rows go through the real store (journal with synced groups, Parquet segments), and through plain pyarrow that promises nothing, by turns;
then SQL, other layouts and the duplicate gates work on what the store wrote. Each is a process of its own, and all are kept to one core.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import describe_machine
from benchmarks.store import layout
from engine.rundir import RunDir
from engine.store import compact, run_query
from engine.views.display import plain_table

ROOT = Path(__file__).parents[2]
GROUP_BY = "SELECT weakness, label, count(*) AS count FROM samples GROUP BY ALL ORDER BY ALL"
WANTED = {
    "rows_per_s": "at least 100,000",
    "rss_growth_mb": "under 300",
    "group_by_s": "under 1",
    "near_rows_per_s": "at least 10,000",
}


def in_own_process(module: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.store.{module}", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)


def measure_writing(rows: int, repeats: int, folder: Path) -> tuple[list[dict[str, Any]], RunDir]:
    """Figures of every pass, and the run that the store's last one left."""
    passes: list[dict[str, Any]] = []
    for repeat in range(repeats):
        # Whoever goes second finds a processor that is warm or throttled.
        for side in ("store", "pyarrow") if repeat % 2 == 0 else ("pyarrow", "store"):
            target = folder / side
            shutil.rmtree(target, ignore_errors=True)
            passes.append({"side": side, **in_own_process("writing", "--side", side, "--rows", str(rows), "--folder", str(target))})
    return passes, RunDir(folder / "store")


def measure_group_by(run: RunDir, repeats: int) -> list[float]:
    """Seconds, with opening the run's files and closing them."""
    seconds: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        run_query(run, GROUP_BY)
        seconds.append(time.perf_counter() - started)
    return seconds


def measure(rows: int, repeats: int, layout_rows: int, judged_rows: int, copies: int, folder: Path) -> dict[str, Any]:
    passes, run = measure_writing(rows, repeats, folder)
    medians = {side: _medians([figures for figures in passes if figures["side"] == side]) for side in ("store", "pyarrow")}
    group_by = {"as sealed": measure_group_by(run, repeats)}
    layouts = layout.measure_layouts(run, layout_rows, folder, repeats)
    started = time.perf_counter()
    compact(run)
    compact_s = time.perf_counter() - started
    group_by["compacted"] = measure_group_by(run, repeats)
    gates = in_own_process("duplicates", "--run", str(run.root), "--judged-rows", str(judged_rows), "--copies", str(copies))
    return {
        "rows": rows,
        "rows_per_s": medians["store"]["rows_per_s"],
        "rss_growth_mb": medians["store"]["rss_growth_mb"],
        "share_of_pyarrow": medians["store"]["rows_per_s"] / medians["pyarrow"]["rows_per_s"],
        "group_by_s": statistics.median(group_by["as sealed"]),
        "near_rows_per_s": gates["near"]["rows_per_s"],
        "wanted": WANTED,
        "medians": medians,
        "passes": passes,
        "group_by": {"sql": GROUP_BY, "seconds": group_by, "compact_s": compact_s},
        "gates": gates,
        "layouts": {"rows": min(rows, layout_rows), "lines": layouts},
    }


def _medians(passes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {name: statistics.median(figures[name] for figures in passes) for name in passes[0] if name != "side"}


def show(result: Mapping[str, Any], console: Console) -> None:
    columns = ("side", "rows/s", "least", "most", "CPU s per million", "memory grown MB", "bytes a row")
    lines = [
        (
            side,
            medians["rows_per_s"],
            *(pick(figures["rows_per_s"] for figures in result["passes"] if figures["side"] == side) for pick in (min, max)),
            medians["cpu_s_per_million"],
            medians["rss_growth_mb"],
            medians["bytes_per_row"],
        )
        for side, medians in result["medians"].items()
    ]
    console.print(plain_table(columns, lines, title=f"{result['rows']:,} rows, one core"))
    console.print(plain_table(("figure", "measured", "wanted"), [(name, result[name], wanted) for name, wanted in WANTED.items()]))
    kinds = [
        (
            kind,
            gate["known_rows"],
            gate["rebuild_s"],
            gate["rss_growth_mb"] if kind == "exact" else gate["index_mb"],
            gate["rows_per_s"],
            gate["cpu_us_per_row"],
        )
        for kind, gate in ((kind, result["gates"][kind]) for kind in ("exact", "near"))
    ]
    columns = ("gate", "known rows", "rebuilt in s", "memory MB", "judged rows/s", "CPU us a row")
    console.print(plain_table(columns, kinds, title="Duplicate gates"))
    accuracy = result["gates"]["accuracy"]
    alterations = [(kind, *figures.values()) for kind, figures in accuracy["by_alteration"].items()]
    title = f"Near duplicates: recall {accuracy['recall'] or 0:.3f}, precision {accuracy['precision'] or 0:.3f}"
    console.print(plain_table(("copies altered by", "likeness", "truly alike", "refused"), alterations, title=title))
    layouts = result["layouts"]["lines"]
    for title, unit in (
        ("Layouts, bytes a row", "_bytes_per_row"),
        ("Layouts, CPU seconds to write", "_write_s"),
        ("Layouts, CPU ms to read", "_ms"),
    ):
        names = [name for name in layouts[0] if name.endswith(unit)]
        columns = ("layout", *(name.removesuffix(unit).replace("_", " ") for name in names))
        console.print(plain_table(columns, [(line["layout"], *(line[name] for name in names)) for line in layouts], title=title))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layout-rows", type=int, default=200_000, help="rows that the layouts are compared with")
    parser.add_argument("--judged-rows", type=int, default=50_000, help="new rows that the duplicate gates judge")
    parser.add_argument("--copies", type=int, default=300, help="altered copies of each kind for the near-duplicate gate")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs", help="on the disk that is measured; what is written there goes again")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "store.json")
    options = parser.parse_args()
    # Before any thread starts, so that pyarrow's and DuckDB's pools are of one too.
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-store-", dir=options.folder) as folder:
        result = measure(options.rows, options.repeats, options.layout_rows, options.judged_rows, options.copies, Path(folder))
    show(result, Console())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": describe_machine(), **result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
