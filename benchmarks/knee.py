"""How near the engine comes to the best fixed limit, without being told one, and how it follows a change. `make bench-knee`

    python -m benchmarks.knee --repeats 3 --out benchmarks/results/knee.json

Servers are scripted after vLLM (`engine.testing.token_rate`), over real sockets: beyond its knee a server does no more, and answers only
take longer. Each is measured from 20 s after the start, then from 20 s after its capacity has doubled, then from 20 s after it has fallen
to a half of what it was at first; beside it a fixed limit of one and a half times the knee, which is the best there is. All knees run at
once, each with a server process of its own. With `--vllm` also on the real vLLM with the quickstart's teacher, beside a sweep of fixed
limits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from benchmarks.machine import describe_machine
from benchmarks.roofline import CONFIG, make_draws
from engine.config import EngineConfig, TeacherConfig, load_config
from engine.progress import Silent
from engine.records import Message, Outcome, Request, SamplingParams
from engine.rundir import RunDir
from engine.server.fleet import open_fleet
from engine.teacher.batcher import Batcher
from engine.teacher.concurrency import ConcurrencyController
from engine.teacher.endpoint import Endpoint
from engine.teacher.http import HttpClient, Limits
from engine.teacher.lane import Lane
from engine.teacher.metrics import parse_gauges
from engine.teacher.teacher import HttpTeacher, Teacher
from engine.views.display import plain_table

ROOT = Path(__file__).parents[1]
KNEES = (8, 32, 128, 500, 2000)
TOKENS_PER_S = 16
"""Of one sequence below the knee."""
LENGTHS = (20, 60)
GRACE_S = 20.0
MEASURE_S = 10.0
FACTORS = (1.0, 2.0, 0.5)
LARGE = 1000
STATIC = 1.5
"""Times the knee: enough to have the next at hand, too few to matter otherwise."""


async def ask_without_end(batcher: Batcher, requests: itertools.count[int], most: int) -> None:
    """Keeps `most` questions open until it is cancelled."""

    async def work() -> None:
        for number in requests:
            message = Message("user", f"question {number}")
            await batcher.ask(Request("scripted", (message,), SamplingParams(1.0, 1.0, 64, number)))

    async with asyncio.TaskGroup() as group:
        for _ in range(most):
            group.create_task(work())


async def record_nothing(_outcome: Outcome) -> None:
    """What is recorded is not what is measured here."""


@asynccontextmanager
async def scripted_server(*behaviours: str) -> AsyncGenerator[str]:
    """The base URL of a server in a process of its own."""
    arguments = [argument for behaviour in behaviours for argument in ("--behaviour", behaviour)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "engine.testing.server", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield json.loads(await process.stdout.readline())["base_url"]
    finally:
        process.terminate()
        await process.wait()


async def throughput(teacher: Teacher, duration_s: float) -> float:
    """Output tokens per second from now on, by the server's own counter: answers come in waves, which are longer than what is measured."""
    before, started = await _tokens(teacher), time.perf_counter()
    await asyncio.sleep(duration_s)
    return (await _tokens(teacher) - before) / (time.perf_counter() - started)


async def _tokens(teacher: Teacher) -> int:
    gauges = parse_gauges(await teacher.metrics() or "")
    assert gauges is not None, "the server shows no metrics"
    return gauges.generation_tokens


async def set_capacity(base_url: str, factor: float) -> None:
    async with HttpClient(base_url.removesuffix("/v1"), Limits(10, 10), {}) as client:
        reply = await client.post("/scripted/capacity", json.dumps({"factor": factor}).encode())
        assert reply.status == 200, reply


async def measure(base_url: str, knee: int, *, fixed: bool) -> dict[str, Any]:
    """Tokens per second in each phase, with the limit at its end, and the share of requests that were refused."""
    phases: dict[str, Any] = {}
    overloads = posts = 0
    async with HttpTeacher(Endpoint(base_url, "scripted"), timeout_s=600, stall_s=60) as teacher:
        lane = Lane(teacher, ConcurrencyController())
        batcher = Batcher([lane], attempts=4, random=random.Random(0), record=record_nothing)
        stack = contextlib.AsyncExitStack()
        async with stack:
            for factor in FACTORS:
                await set_capacity(base_url, factor)
                limit = max(round(STATIC * knee * factor), 1)
                if fixed or factor == FACTORS[0]:
                    await stack.aclose()
                    controller = ConcurrencyController.fixed(limit) if fixed else ConcurrencyController()
                    lane = Lane(teacher, controller)
                    batcher = await stack.enter_async_context(Batcher([lane], attempts=4, random=random.Random(0), record=record_nothing))
                    asking = asyncio.create_task(ask_without_end(batcher, itertools.count(int(factor * 10**8)), 12 * knee + 128))
                    stack.push_async_callback(_cancel, asking)
                await asyncio.sleep(max(4.0, 3 * LENGTHS[1] / TOKENS_PER_S) if fixed else GRACE_S)
                rate = await throughput(teacher, MEASURE_S)
                phases[f"x{factor:g}"] = {"tokens_per_s": rate, "limit": lane.limit}
            figures = batcher.statistics()
            overloads, posts = figures.overloads, figures.posts
    return {"phases": phases, "refused_share": overloads / max(posts, 1)}


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def run_knee(knee: int) -> dict[str, Any]:
    behaviours = (f"vllm:{knee}:{knee * TOKENS_PER_S}", f"tokens:{LENGTHS[0]}:{LENGTHS[1]}")
    async with scripted_server(*behaviours) as base_url:
        fixed = await measure(base_url, knee, fixed=True)
    async with scripted_server(*behaviours) as base_url:
        found = await measure(base_url, knee, fixed=False)
    # A server that refuses what is more than twice its knee.
    async with scripted_server(*behaviours, f"overload:{2 * knee}") as base_url:
        refusing = await measure(base_url, knee, fixed=False)
    ratios = {phase: found["phases"][phase]["tokens_per_s"] / fixed["phases"][phase]["tokens_per_s"] for phase in found["phases"]}
    return {"knee": knee, "ratios": ratios, "ratio": min(ratios.values()), "found": found, "fixed": fixed, "refusing": refusing}


async def run_all(knees: Sequence[int]) -> list[dict[str, Any]]:
    """The small ones together, a large one alone: all at once would be more answers than one client can take."""
    small, large = [knee for knee in knees if knee < LARGE], [knee for knee in knees if knee >= LARGE]
    return [*await asyncio.gather(*(run_knee(knee) for knee in small)), *[await run_knee(knee) for knee in large]]


async def run_vllm(limits: list[int], duration_s: float) -> dict[str, Any]:
    """The real thing: a sweep of fixed limits, then none given."""
    config = load_config(CONFIG)
    draws = make_draws(config, 200_000 // 8)
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="reflux-knee-") as folder:
        run = RunDir(Path(folder) / "run")
        run.create()
        teacher = TeacherConfig(model=config.teacher.model, kv_cache_gib=0.5)
        async with open_fleet(teacher, EngineConfig(), run, Silent(), lambda _note: None) as fleet:
            numbers = itertools.count()
            for limit in [None, *limits, None]:
                controller = ConcurrencyController() if limit is None else ConcurrencyController.fixed(limit)
                lane = Lane(fleet.lanes[0].teacher, controller)
                async with Batcher([lane], attempts=4, random=random.Random(0), record=record_nothing) as batcher:

                    async def work(batcher: Batcher = batcher) -> None:
                        for number in numbers:
                            await batcher.ask(draws[number % len(draws)])

                    async with asyncio.TaskGroup() as group:
                        tasks = [group.create_task(work()) for _ in range(2 * (limit or 512) + 64)]
                        await asyncio.sleep(GRACE_S if limit is None else 5.0)
                        rate = await throughput(lane.teacher, duration_s)
                        name = "found" if limit is None else str(limit)
                        rates[name] = max(rate, rates.get(name, 0.0)) if limit is not None else rate
                        if limit is None:
                            rates["limit found"] = lane.limit
                        for task in tasks:
                            task.cancel()
    best = max(rate for name, rate in rates.items() if name.isdigit())
    return {"tokens_per_s": rates, "ratio": rates["found"] / best}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--knees", type=int, nargs="+", default=sorted(KNEES))
    parser.add_argument("--vllm", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "knee.json")
    options = parser.parse_args()
    repeats = [uvloop.run(run_all(options.knees)) for _ in range(options.repeats)]
    console = Console()
    lines: list[tuple[Any, ...]] = []
    knees: list[dict[str, Any]] = []
    for index, knee in enumerate(options.knees):
        runs = [repeat[index] for repeat in repeats]
        medians = {phase: statistics.median(run["ratios"][phase] for run in runs) for phase in runs[0]["ratios"]}
        refused = max(run["refusing"]["refused_share"] for run in runs)
        limits = [str(runs[0]["found"]["phases"][phase]["limit"]) for phase in medians]
        lines.append((knee, *medians.values(), ", ".join(limits), f"{refused:.2%}"))
        knees.append({"knee": knee, "median_ratios": medians, "refused_share": refused, "runs": runs})
    columns = ("knee", "start", "doubled", "halved", "limits found", "refused (by a server that refuses)")
    console.print(plain_table(columns, lines, title="Throughput / that of the best fixed limit"))
    content: dict[str, Any] = {
        "machine": describe_machine(),
        "ratio": min(value for knee in knees for value in knee["median_ratios"].values()),
        "refused_share": max(knee["refused_share"] for knee in knees),
        "scripted": knees,
    }
    if options.vllm:
        content["vllm"] = uvloop.run(run_vllm([16, 32, 64, 128, 256], MEASURE_S))
        rates = content["vllm"]["tokens_per_s"]
        console.print(plain_table(("limit", "tokens/s"), list(rates.items()), title=f"Real vLLM: {content['vllm']['ratio']:.3f}"))
    options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
