"""What a request costs the client: the whole engine beside its peers, on one core, against the scripted server on another.

    make bench-engine        python -m benchmarks.engine --repeats 3 --out benchmarks/results/engine.json

The engine renders its prompts from templates, asks, parses, judges, journals and writes Parquet; each peer sends the same prompts as texts
and hands back answers, tuned as `benchmarks/peers/README.md` says. Replies come at once, 64 requests are in flight. Peers send fewer
prompts, as they take longer for each. Beside them stand bare loops on the same requests (`benchmarks.ceilings`), which bound what a client
in Python can reach, and the engine as it asks by itself, with draws of one prompt together; the headline figures are of single draws. All
take turns, and each is a process of its own. At last, memory: twenty and two hundred thousand rows. Without their environments
(`python -m benchmarks.peers.environments`) peers are left out; `--peers` without a name leaves out all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import ceilings, http_clients
from benchmarks.engine_client import make_prompts
from benchmarks.machine import describe_machine
from benchmarks.peers.run import run_peer
from engine.views.display import plain_table

ROOT = Path(__file__).parents[1]
CLIENT_CORE, SERVER_CORE = 0, 1
IN_FLIGHT = 64
DRAWS = 8
"""In the second workload: the engine has draws of one prompt travel together, which its peers cannot be asked to do."""
PEERS = ("openai", "datatrove", "curator", "data_designer", "litellm", "distilabel")


@contextmanager
def scripted_server() -> Generator[str]:
    command = ["taskset", "--cpu-list", str(SERVER_CORE), sys.executable, "-m", "engine.testing.server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["base_url"]
        finally:
            process.terminate()


def run_engine(base_url: str, rows: int, *, http: str = "own", draws: int = 1) -> dict[str, Any]:
    return _run("benchmarks.engine_client", base_url, "--rows", str(rows), "--http", http, "--draws", str(draws))


def run_ceiling(base_url: str, client: str, requests: int) -> dict[str, Any]:
    return _run("benchmarks.ceilings", base_url, "--client", client, "--requests", str(requests))


def _run(module: str, base_url: str, *options: str) -> dict[str, Any]:
    command = ["taskset", "--cpu-list", str(CLIENT_CORE), sys.executable, "-m", module, *options]
    command += ["--base-url", base_url, "--in-flight", str(IN_FLIGHT)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)


def write_prompts(path: Path, count: int) -> None:
    """The engine's own prompts, as one text each: all differ, as a peer may keep answers to equal ones."""
    with path.open("w") as file:
        for prompt in make_prompts(count):
            file.write(json.dumps({"prompt": "\n\n".join(message.content for message in prompt.messages)}) + "\n")


def spread(runs: list[dict[str, Any]], name: str) -> dict[str, float]:
    values = [run[name] for run in runs]
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=80_000)
    parser.add_argument("--peer-prompts", type=int, default=1_500)
    parser.add_argument("--peers", nargs="*", default=list(PEERS))
    parser.add_argument(
        "--http",
        nargs="*",
        default=["aiohttp"],
        choices=[name for name in http_clients.NAMES if name != "own"],
        help="clients to measure in the place of the engine's own",
    )
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "engine.json")
    options = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        parser.error("client and server need a core each")
    if missing := [name for name in options.http if find_spec(name) is None]:
        parser.error(
            f"not installed: {', '.join(missing)}; `{sys.executable} -m pip install {' '.join(missing)}`, or leave them out of --http"
        )
    console = Console()
    ours: list[dict[str, Any]] = []
    drawn: list[dict[str, Any]] = []
    bare: dict[str, list[dict[str, Any]]] = {name: [] for name in ceilings.NAMES}
    others: dict[str, list[dict[str, Any]]] = {name: [] for name in options.http}
    peers: dict[str, list[dict[str, Any]]] = {name: [] for name in options.peers}
    with tempfile.TemporaryDirectory(prefix="reflux-bench-") as folder, scripted_server() as base_url:
        prompts = Path(folder) / "prompts.jsonl"
        write_prompts(prompts, options.peer_prompts)
        prompt_bytes = prompts.stat().st_size / options.peer_prompts
        for repeat in range(options.repeats):
            started = time.perf_counter()
            ours.append(run_engine(base_url, options.rows))
            drawn.append(run_engine(base_url, options.rows, draws=DRAWS))
            for name in ceilings.NAMES:
                bare[name].append(run_ceiling(base_url, name, options.rows // 2))
            for name in options.http:
                others[name].append(run_engine(base_url, options.rows // 2, http=name))
            for name in options.peers:
                result = run_peer(name, base_url=base_url, model="scripted", prompts=prompts, in_flight=IN_FLIGHT, core=CLIENT_CORE)
                peers[name].append(asdict(result))
            console.print(f"repeat {repeat + 1}: {ours[-1]['completions_per_s']:.0f}/s; {time.perf_counter() - started:.0f} s")
        memory = {} if options.no_memory else {str(rows): run_engine(base_url, rows)["peak_rss_mb"] for rows in (20_000, 200_000)}
    names = ("completions_per_s", "cpu_s_per_1k", "peak_rss_mb")
    table = {"reflux": {name: spread(ours, name) for name in names}}
    table[f"reflux, {DRAWS} draws of a prompt together"] = {name: spread(drawn, name) for name in names}
    table |= {f"ceiling: bare loop on {client}": {name: spread(runs, name) for name in names} for client, runs in bare.items()}
    table |= {f"reflux over {http}": {name: spread(runs, name) for name in names} for http, runs in others.items() if runs}
    table |= {peer: {name: spread(runs, name) for name in names} for peer, runs in peers.items() if runs}
    lines = [
        (client, figures["completions_per_s"]["median"], figures["cpu_s_per_1k"]["median"], figures["peak_rss_mb"]["median"])
        for client, figures in table.items()
    ]
    console.print(
        plain_table(("client", "completions/s", "CPU s per 1,000", "peak MB"), lines, title="One core, 64 in flight, instant replies")
    )
    content: dict[str, Any] = {
        "machine": describe_machine(),
        "in_flight": IN_FLIGHT,
        "prompt_bytes": round(prompt_bytes),
        "completions_per_s": table["reflux"]["completions_per_s"]["median"],
        "cpu_s_per_1k": table["reflux"]["cpu_s_per_1k"]["median"],
        "clients": table,
        "draws": {"together": DRAWS, **{name: spread(drawn, name)["median"] for name in names[:2]}},
        "ceilings": {client: {name: spread(runs, name)["median"] for name in names[:2]} for client, runs in bare.items()},
        "runs": {
            "reflux": ours,
            "draws": drawn,
            "ceilings": bare,
            **{f"reflux over {http}": runs for http, runs in others.items()},
            **peers,
        },
        "peak_rss_mb_by_rows": memory,
    }
    if any(peers.values()):
        best = max(peers, key=lambda name: table[name]["completions_per_s"]["median"])
        content |= {
            "best_peer": best,
            "ratio_to_best_peer": content["completions_per_s"] / table[best]["completions_per_s"]["median"],
        }
        reached = table[best]["completions_per_s"]["median"]
        # No more than this could be shown, however little the rest of the engine cost.
        content["ratio_bound"] = {client: figures["completions_per_s"] / reached for client, figures in content["ceilings"].items()}
        bounds = ", ".join(f"{bound:.1f} by a bare loop on {client}" for client, bound in content["ratio_bound"].items())
        console.print(f"{content['ratio_to_best_peer']:.1f} times the best peer ({best}); at most {bounds}")
    if memory:
        content["memory_growth_mb"] = memory["200000"] - memory["20000"]
        console.print(f"peak memory with 20,000 rows {memory['20000']:.0f} MB, with 200,000 rows {memory['200000']:.0f} MB")
    options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
