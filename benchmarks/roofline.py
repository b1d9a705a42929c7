"""How much of what vLLM can do the engine gets out of it through HTTP, with no concurrency given. `make bench-roofline`

    python -m benchmarks.roofline --repeats 3 --draws 3000 --out benchmarks/results/roofline.json

The same draws of the same prompts (PGKD's, on the quickstart's task, constrained to their schema), once through `LLM.generate` in one
process, once through a server that the engine starts, finds the limit of, asks, parses and stores. Both are real, on this machine, one
after the other, and take turns. Teachers: the quickstart's, and a random one of the same size.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from msgspec import structs
from rich.console import Console

from benchmarks.machine import describe_machine
from engine.config import EngineConfig, RunConfig, TeacherConfig, load_config
from engine.crew import Crew
from engine.progress import Silent
from engine.prompting import Prompter, rows_schema
from engine.records import Assignment, Call, Origin, Request, RowCounts
from engine.rundir import RunDir
from engine.server.fleet import open_fleet
from engine.server.launch import plan_launch
from engine.store import Store
from engine.task.task import load_task
from engine.teacher.batcher import Batcher
from engine.views.display import plain_table
from prompts import PromptLibrary

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "examples" / "quickstart"
CONFIG = QUICKSTART / "quickstart.toml"
DRAWS_OF_A_PROMPT = 8
ROWS = 4
MAX_NUM_SEQS = 256
KV_CACHE_GIB = 0.5


def make_draws(config: RunConfig, num_draws: int) -> list[Request]:
    """Class-conditional prompts with examples that differ from prompt to prompt, several draws of each."""
    task = load_task(config.task, seed=1)
    prompter = Prompter(PromptLibrary(), Path(config.teacher.model).name, config.sampling, seed=1)
    schema = rows_schema(task.label_names, ROWS)
    generator = random.Random(1)
    draws: list[Request] = []
    for number in range(0, num_draws, DRAWS_OF_A_PROMPT):
        labels = generator.sample(task.labels, len(task.labels))
        prompt = prompter.render(
            "zerogen/generate",
            {"kind": "classification", "domain": task.domain, "labels": labels, "num_rows": ROWS, "label": labels[0].name},
            schema,
        )
        draws += [prompter.request(prompt, "roofline", number + draw) for draw in range(min(DRAWS_OF_A_PROMPT, num_draws - number))]
    return draws


def generate_offline(model: Path, draws: Sequence[Request], config: RunConfig, folder: Path) -> dict[str, Any]:
    """In a process of its own, which ends before the next begins."""
    prompts = folder / "prompts.jsonl"
    with prompts.open("w") as file:
        for draw in draws:
            messages = [structs.asdict(message) for message in draw.messages]
            sampling = draw.sampling
            line = {"messages": messages, "seed": sampling.seed, "max_tokens": sampling.max_tokens, "json_schema": sampling.json_schema}
            file.write(json.dumps(line) + "\n")
    out = folder / "offline.json"
    command = [sys.executable, "-m", "benchmarks.offline", "--model", str(model), "--prompts", str(prompts), "--out", str(out)]
    command += ["--kv-cache-gib", str(KV_CACHE_GIB), "--max-num-seqs", str(MAX_NUM_SEQS)]
    launch = plan_launch(TeacherConfig(model=str(model)), device="cpu", port=0)
    command += ["--dtype", launch.flag("--dtype") or "auto"]
    command += ["--temperature", str(config.sampling.temperature), "--top-p", str(config.sampling.top_p)]
    with (folder / "offline.log").open("ab") as log:
        subprocess.run(command, check=True, cwd=ROOT, stdout=log, stderr=log)
    return json.loads(out.read_text())


async def generate_through_engine(model: Path, draws: Sequence[Request], folder: Path) -> dict[str, Any]:
    """Server, lanes, batcher, journal and tables as in a run."""
    teacher = TeacherConfig(model=str(model), kv_cache_gib=KV_CACHE_GIB, max_num_seqs=MAX_NUM_SEQS)
    run = RunDir(folder / f"run-{time.monotonic_ns()}")
    run.create()
    limits: list[tuple[float, int]] = []
    async with open_fleet(teacher, EngineConfig(), run, Silent(), lambda _note: None) as fleet, Store(run) as store:
        crew = Crew(limit=lambda: batcher.limit)

        def observed(*_: object) -> None:
            if not limits or limits[-1][1] != batcher.limit:
                limits.append((time.perf_counter(), batcher.limit))
            crew.grow()

        batcher = Batcher(fleet.lanes, attempts=2, random=random.Random(0), record=store.record, observed=observed)

        async def carry_out(assignment: Assignment) -> list[Call]:
            request = draws[assignment.number]
            outcome = await batcher.ask(request)
            origin = Origin(1, 0, assignment.id, "none", "bench", "zerogen/generate", request.prompt_hash, request.model, request.id)
            call = Call(request, origin, outcome, RowCounts())
            await store.add_call(call)
            return [call]

        async with batcher:
            # As the other is warmed up.
            await asyncio.gather(*(fleet.lanes[0].teacher.complete([request]) for request in draws[:32]))
            plan = (Assignment(f"a{number}", number, 1, 0, "none", (), 0) for number in range(len(draws)))
            started = time.perf_counter()
            tally = await crew.work_off(plan, carry_out, lambda _rows: None)
            wall_s = time.perf_counter() - started
            figures = batcher.statistics()
        assert figures.failed == 0, figures
        return {
            "sequences": tally.calls,
            "completion_tokens": tally.completion_tokens,
            "prompt_tokens": tally.prompt_tokens,
            "wall_s": wall_s,
            "tokens_per_s": tally.completion_tokens / wall_s,
            "posts": figures.posts,
            "limit": [(round(at - started, 2), limit) for at, limit in limits],
        }


def make_random_teacher(folder: Path) -> Path:
    """The quickstart's teacher with weights that were never trained: nothing about what it writes helps the cache or the lengths."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(QUICKSTART / "teacher"), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(QUICKSTART / "teacher").save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--draws", type=int, default=3000)
    parser.add_argument("--teachers", nargs="+", default=["shipped", "random"], choices=["shipped", "random"])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "roofline.json")
    options = parser.parse_args()
    console = Console()
    results: list[dict[str, Any]] = []
    config = load_config(CONFIG)
    with tempfile.TemporaryDirectory(prefix="reflux-roofline-") as name:
        folder = Path(name)
        for teacher in options.teachers:
            model = QUICKSTART / "teacher" if teacher == "shipped" else make_random_teacher(folder / "random")
            draws = make_draws(
                config.model_copy(update={"teacher": config.teacher.model_copy(update={"model": str(model)})}), options.draws
            )
            for repeat in range(options.repeats):
                sides: dict[str, Any] = {}
                # Whoever goes second finds files in memory and a processor that is warm or throttled: they take turns.
                for side in ("offline", "engine") if repeat % 2 == 0 else ("engine", "offline"):
                    if side == "offline":
                        sides[side] = generate_offline(model, draws, config, folder)
                    else:
                        sides[side] = uvloop.run(generate_through_engine(model, draws, folder))
                ratio = sides["engine"]["tokens_per_s"] / sides["offline"]["tokens_per_s"]
                results.append({"teacher": teacher, "repeat": repeat, "ratio": ratio, **sides})
                console.print(f"{teacher} {repeat + 1}: offline {sides['offline']['tokens_per_s']:.0f}, "
                              f"engine {sides['engine']['tokens_per_s']:.0f} tokens/s, ratio {ratio:.3f}")  # fmt: skip
    ratios = {
        teacher: [result["ratio"] for result in results if result["teacher"] == teacher]
        for teacher in dict.fromkeys(result["teacher"] for result in results)
    }
    lines = [
        (result["teacher"], result["repeat"] + 1, result["offline"]["tokens_per_s"], result["engine"]["tokens_per_s"], result["ratio"])
        for result in results
    ]
    console.print(
        plain_table(("teacher", "repeat", "LLM.generate tokens/s", "engine tokens/s", "ratio"), lines, title="Share of the roofline")
    )
    summary = {
        teacher: {"median": statistics.median(values), "least": min(values), "most": max(values)} for teacher, values in ratios.items()
    }
    content = {"machine": describe_machine(), "ratio": min(item["median"] for item in summary.values()), "by_teacher": summary,
               "draws": options.draws, "runs": results}  # fmt: skip
    options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
