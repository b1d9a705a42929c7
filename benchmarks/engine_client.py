"""One round of the whole engine against a server that is there: render, HTTP, parse, gates, journal, Parquet. For `benchmarks.engine`.

    python -m benchmarks.engine_client --base-url URL --rows 20000 --in-flight 64 --out FILE

A process of its own, so that processor time and memory are the engine's alone. Prompts are PGKD's with a focus in the last line, about 2
kB; a request asks for two rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import http_clients
from engine.config import RunConfig
from engine.generation import open_generation
from engine.progress import Silent
from engine.prompting import Prompt, Prompter, rows_schema
from engine.records import Example, Label, TaskSpec
from engine.reports import ClassScore, Confusion, MinedRow, Scores, WeaknessReport
from engine.rundir import RunDir
from engine.server.fleet import open_fleet
from engine.teacher import batcher
from prompts import PromptLibrary

LABELS = tuple(f"intent_{number:02d}" for number in range(16))


def make_task() -> TaskSpec:
    """Sixteen labels; the rows are as long as messages to a help desk are."""

    def rows(split: str, count: int) -> tuple[Example, ...]:
        return tuple(Example(f"a {split} message number {n} about {label}, in ten words", label) for n in range(count) for label in LABELS)

    labels = tuple(Label(label, f"all about {label}") for label in LABELS)
    domain = "messages to the help desk of a shop"
    return TaskSpec("classification", domain, labels, seed=rows("seed", 1), validation=rows("validation", 4), test=rows("test", 4))


def make_report() -> WeaknessReport:
    """With four mined rows of each kind, as in the quickstart."""
    scores = Scores(0.5, 0.5, 0.5, 64)

    def mined(kind: str) -> tuple[MinedRow, ...]:
        return tuple(MinedRow(f"a {kind} message number {n}", LABELS[n], LABELS[n + 1], 0.7) for n in range(2))

    return WeaknessReport(
        round=0,
        loss=1.0,
        scores=scores,
        classes=tuple(ClassScore(label, 0.5, 0.5, 0.5, 4) for label in LABELS),
        confusions=tuple(Confusion(one, other, 1) for one in LABELS for other in LABELS if one != other),
        mining="out_of_fold",
        right=mined("right"),
        wrong=mined("wrong"),
        hard=mined("hard"),
        num_train_rows=16,
        train_s=1.0,
        epochs=1,
    )


def make_config(base_url: str, rows: int, in_flight: int | None) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "bench",
            "seed": 1,
            "task": {
                "domain": "messages to the help desk of a shop",
                "labels": [{"name": label} for label in LABELS],
                "data": {"seed": "unused", "validation": "unused", "test": "unused"},
            },
            "teacher": {"model": "scripted", "endpoint": base_url},
            "strategy": {"rows_per_round": rows, "rows_per_call": 2, "examples": 8},
            "engine": {"concurrency": in_flight},
            "gates": {"near_duplicates": False},
        }
    )


def make_prompter(config: RunConfig) -> Prompter:
    return Prompter(PromptLibrary(), "scripted", config.sampling, 1)


def make_prompts(count: int) -> list[Prompt]:
    """As the engine renders them; up to 256 differ in the weakness they name, those beyond also in a number."""
    task = make_task()
    values = {
        "kind": task.kind,
        "domain": task.domain,
        "labels": task.labels,
        "examples": task.seed[:8],
        "report": make_report(),
        "num_rows": 2,
    }
    opening = make_prompter(make_config("http://unused/v1", 2 * count, None)).open("pgkd/generate", values)
    focuses = ((LABELS[number % 16], f"{LABELS[number // 16 % 16]} ({number})") for number in range(count))
    return [opening.finish({"kind": task.kind, "num_rows": 2, "focus": focus}, rows_schema(task.label_names, 2)) for focus in focuses]


async def measure(config: RunConfig, folder: Path, draws: int = 1) -> dict[str, Any]:
    """`draws`: as many of a prompt travel together."""
    batcher.MAX_DRAWS = draws
    run = RunDir(folder)
    run.create()
    notes: list[dict[str, Any]] = []
    async with open_fleet(config.teacher, config.engine, run, Silent(), notes.append) as fleet:
        for lane in fleet.lanes:
            lane.takes_draws = draws > 1  # else each prompt by itself, as the others send them
        started, cpu = time.perf_counter(), _cpu_s()
        async with open_generation(config, make_task(), run, fleet) as generation:
            record = await generation.ask_round(1, make_report(), Silent())
            statistics = generation.batcher.statistics()
        wall_s, cpu_s = time.perf_counter() - started, _cpu_s() - cpu
    assert record.rows.requested == record.rows.accepted == config.strategy.rows_per_round, record.rows
    assert record.calls == statistics.completed, (record.calls, statistics)
    return {
        "completions": record.calls,
        "rows": record.rows.accepted,
        "posts": statistics.posts,
        "peak_in_flight": statistics.peak_in_flight,
        "wall_s": wall_s,
        "completions_per_s": record.calls / wall_s,
        "cpu_s_per_1k": cpu_s / record.calls * 1000,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _cpu_s() -> float:
    """Of all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--draws", type=int, default=1, help="draws of a prompt that travel together, as `n` of one request")
    parser.add_argument("--http", choices=http_clients.NAMES, default="own", help="another HTTP client in the place of the engine's own")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    http_clients.use(options.http)
    with tempfile.TemporaryDirectory(prefix="reflux-bench-") as folder:
        config = make_config(options.base_url, options.rows, options.in_flight)
        result = uvloop.run(measure(config, Path(folder) / "run", options.draws))
    text = json.dumps(result, indent=2)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
