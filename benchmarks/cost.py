"""What a prediction costs by the teacher and by the student, and when the distillation has paid for itself. `make bench-cost`

    python -m benchmarks.cost --run runs/quickstart --out benchmarks/results/cost.json

The run is the quickstart's, which is made if it is not there. The measuring is `reflux bench cost`; this adds the machine. Everything runs
on the same machine, so on a processor its price divides out of the ratios; money is told by `--machine-hour-price`, by default the
PGKD paper's. Takes about ten minutes on two cores, and as long again where the run has to be made.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import describe_machine

ROOT = Path(__file__).parents[1]
PAPERS_PRICE = 0.77
"""Dollars an hour, by the table of the PGKD paper: 0.0046 for 21.45 s of a student on a processor."""
REFLUX = (sys.executable, "-m", "engine.cli")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "quickstart")
    parser.add_argument("--endpoint", help="a server of the teacher that already runs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--test-rows", type=int, help="fewer, for a quick look")
    parser.add_argument("--gpu-hour-price", type=float, help="of one GPU, where there is one")
    parser.add_argument("--machine-hour-price", type=float, default=PAPERS_PRICE, help="of this machine")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "cost.json")
    options = parser.parse_args()
    if not (options.run / "summary.json").is_file():
        task = ROOT / "examples" / "quickstart" / "quickstart.toml"
        subprocess.run([*REFLUX, "run", str(task), "--out", str(options.run)], check=True, cwd=ROOT)
    prices = {"gpu_hour_price": options.gpu_hour_price, "machine_hour_price": options.machine_hour_price}
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "cost.json"
        command = [*REFLUX, "bench", "cost", str(options.run), "--repeats", str(options.repeats), "--out", str(figures)]
        command += [word for name, price in prices.items() if price is not None for word in ("--set", f"cost.{name}={price}")]
        command += ["--endpoint", options.endpoint] if options.endpoint else []
        command += ["--test-rows", str(options.test_rows)] if options.test_rows else []
        subprocess.run(command, check=True, cwd=ROOT)
        content = {"machine": describe_machine(), "prices": prices, **json.loads(figures.read_text(encoding="utf-8"))}
    options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
