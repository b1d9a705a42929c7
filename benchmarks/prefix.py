"""What the order of requests is worth to a server's prefix cache. `make bench-prefix`

    python -m benchmarks.prefix --repeats 3 --out benchmarks/results/prefix.json

PGKD's prompts for 60 weaknesses, each with mined rows of its own (about 1,300 tokens), 20 draws of each. Once as the engine sends them, by
prompt and with draws together; once shuffled and one by one, as a client does that does not look. The real vLLM with the quickstart's
teacher; its cache holds a part of the prompts, as that of a larger teacher does; it is emptied in between.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from msgspec.structs import replace
from rich.console import Console

from benchmarks.knee import record_nothing
from benchmarks.machine import describe_machine
from benchmarks.roofline import CONFIG
from engine.config import EngineConfig, TeacherConfig, load_config
from engine.progress import Silent
from engine.prompting import Prompter, rows_schema
from engine.records import Request
from engine.reports import ClassScore, Confusion, MinedRow, Scores, WeaknessReport
from engine.rundir import RunDir
from engine.server.fleet import open_fleet
from engine.task.task import load_task
from engine.teacher.batcher import Batcher
from engine.teacher.concurrency import ConcurrencyController
from engine.teacher.lane import Lane
from engine.teacher.metrics import parse_gauges
from engine.views.display import plain_table
from prompts import PromptLibrary

ROOT = Path(__file__).parents[1]
WEAKNESSES = 60
DRAWS = 20
IN_FLIGHT = 32
KV_CACHE_GIB = 0.06
"""About 30,000 tokens of the 80,000 that the prompts have: an 8B model on a 24 GB card has about as many."""


def make_requests() -> list[Request]:
    config = load_config(CONFIG)
    task = load_task(config.task, seed=1)
    sampling = config.sampling.model_copy(update={"max_tokens": 24})
    prompter = Prompter(PromptLibrary(), Path(config.teacher.model).name, sampling, seed=1)
    schema = rows_schema(task.label_names, 1)
    generator = random.Random(1)
    texts = [row.text for row in task.seed]
    requests: list[Request] = []
    for number in range(WEAKNESSES):

        def mine() -> tuple[MinedRow, ...]:
            labels = generator.choices(task.label_names, k=16)
            return tuple(MinedRow(generator.choice(texts), label, generator.choice(task.label_names), 0.8) for label in labels)

        report = WeaknessReport(
            round=0,
            loss=1.0,
            scores=Scores(0.5, 0.5, 0.5, 64),
            classes=tuple(ClassScore(label, 0.5, 0.5, 0.5, 4) for label in task.label_names),
            confusions=(Confusion(task.label_names[0], task.label_names[1], 1),),
            mining="out_of_fold",
            right=mine(),
            wrong=mine(),
            hard=mine(),
            num_train_rows=32,
            train_s=1.0,
            epochs=1,
        )
        values = {"kind": "classification", "domain": task.domain, "labels": task.labels, "examples": task.seed[:16],
                  "num_rows": 1, "report": report, "focus": (generator.choice(task.label_names),)}  # fmt: skip
        prompt = prompter.render("pgkd/generate", values, schema)
        requests += [prompter.request(prompt, "prefix", number * DRAWS + draw) for draw in range(DRAWS)]
    return requests


async def send(fleet_lane: Lane, requests: Sequence[Request], *, ordered: bool) -> dict[str, Any]:
    controller = ConcurrencyController.fixed(IN_FLIGHT)
    lane = Lane(fleet_lane.teacher, controller)
    lane.takes_draws = ordered
    before = parse_gauges(await lane.teacher.metrics() or "")
    async with Batcher([lane], attempts=2, random=random.Random(0), record=record_nothing) as batcher:
        started = time.perf_counter()
        # Falling priorities keep the order in which they are asked.
        outcomes = await asyncio.gather(*(batcher.ask(request, 0 if ordered else -number) for number, request in enumerate(requests)))
        wall_s = time.perf_counter() - started
        figures = batcher.statistics()
    after = parse_gauges(await lane.teacher.metrics() or "")
    assert before is not None, "no metrics"
    assert after is not None, "no metrics"
    assert figures.failed == 0, [outcome for outcome in outcomes if not hasattr(outcome, "usage")][:3]
    queries = after.prefix_cache_queries - before.prefix_cache_queries
    return {
        "prompt_tokens": figures.prompt_tokens,
        "prompt_tokens_per_s": figures.prompt_tokens / wall_s,
        "hit_rate": (after.prefix_cache_hits - before.prefix_cache_hits) / max(queries, 1),
        "posts": figures.posts,
        "wall_s": wall_s,
    }


async def run_all(repeats: int) -> list[dict[str, Any]]:
    requests = make_requests()
    config = load_config(CONFIG)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="reflux-prefix-") as folder:
        run = RunDir(Path(folder) / "run")
        run.create()
        teacher = TeacherConfig(model=config.teacher.model, kv_cache_gib=KV_CACHE_GIB)
        async with open_fleet(teacher, EngineConfig(), run, Silent(), lambda _note: None) as fleet:
            lane = fleet.lanes[0]
            await send(lane, requests[: 4 * DRAWS], ordered=True)
            for repeat in range(repeats):
                sides: dict[str, Any] = {}
                for side in ("ordered", "shuffled") if repeat % 2 == 0 else ("shuffled", "ordered"):
                    # Another first word for each pass: what an earlier one left in the cache is of no use.
                    fresh = [_begin_with(request, f"Pass {repeat} {side}.") for request in requests]
                    if side == "shuffled":
                        random.Random(repeat).shuffle(fresh)
                    sides[side] = await send(lane, fresh, ordered=side == "ordered")
                # A request for n draws counts its prompt once, though it is asked n times: both get the count of those sent alone.
                one = sides["shuffled"]["prompt_tokens"]
                for figures in sides.values():
                    figures["prompt_tokens_per_s"] = one / figures["wall_s"]
                runs.append({"ratio": sides["shuffled"]["wall_s"] / sides["ordered"]["wall_s"], **sides})
    return runs


def _begin_with(request: Request, word: str) -> Request:
    first, *others = request.messages
    return Request(request.model, (replace(first, content=f"{word} {first.content}"), *others), request.sampling)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "prefix.json")
    options = parser.parse_args()
    runs = uvloop.run(run_all(options.repeats))
    lines = [
        (number, side, run[side]["prompt_tokens_per_s"], run[side]["hit_rate"], run[side]["posts"], run[side]["wall_s"])
        for number, run in enumerate(runs, start=1)
        for side in ("ordered", "shuffled")
    ]
    console = Console()
    console.print(
        plain_table(("repeat", "order", "prompt tokens/s", "hit rate", "HTTP requests", "s"), lines, title="60 weaknesses x 20 draws")
    )
    ratios = [run["ratio"] for run in runs]
    console.print(f"ratio {statistics.median(ratios):.2f} (least {min(ratios):.2f}, most {max(ratios):.2f})")
    content = {"machine": describe_machine(), "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios), "runs": runs}
    options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
