"""What constraining the teacher's output to a JSON schema is worth, and what it costs. `make bench-structured`

    python -m benchmarks.structured --repeats 3 --out benchmarks/results/structured.json

The same prompts with the same seeds, once with the schema of the reply in the request, and once without: rows in eights (PGKD's prompt, a
class to each request), and labels for single texts. The real vLLM with the quickstart's teacher, or a server that runs already
(`--endpoint`). The two take turns, so that a busy minute is both's; the first turn of each, in which the server makes its grammars, is
measured apart. A reply fails its schema if it ended by itself and is not what the schema says; one that `max_tokens` cut off is counted as
such. A row is usable if parsing finds it, which trusts no schema, and its label is one of the task's. Ends with status 1 if a constrained
reply failed its schema.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import uvloop
from rich.console import Console

from benchmarks.knee import record_nothing
from benchmarks.machine import describe_machine
from benchmarks.roofline import CONFIG
from engine.config import EngineConfig, RunConfig, load_config
from engine.gates.gates import check_shape
from engine.parsing import parse_labels, parse_rows
from engine.progress import Silent
from engine.prompting import Prompt, Prompter, label_schema, rows_schema
from engine.records import Completion, FinishReason, Request, TaskSpec
from engine.rehearsal import make_up_report
from engine.rundir import RunDir
from engine.server.fleet import open_fleet
from engine.task.task import load_task
from engine.teacher.batcher import Batcher
from engine.teacher.concurrency import ConcurrencyController
from engine.teacher.lane import Lane
from engine.views.display import plain_table
from prompts import PromptLibrary

ROOT = Path(__file__).parents[1]
MODES = ("constrained", "free")
ROWS = 8
"""In each reply that has rows, as the quickstart asks for them."""
DRAWS = 8
"""Of each prompt for rows; they travel together, as in a run."""
NUM_TEXTS = 192
"""To be labelled, in a request each."""
IN_FLIGHT = 64

Kind: TypeAlias = Literal["rows", "labels"]


@dataclass(frozen=True, slots=True)
class Pass:
    """All prompts of one kind, asked once in one mode."""

    mode: str
    kind: Kind
    replies: int
    schema_failures: int
    """Replies that ended by themselves and are not what the schema says."""
    cut_off: int
    """By `max_tokens`."""
    asked: int
    """Rows, or labels."""
    usable: int
    completion_tokens: int
    wall_s: float

    @property
    def failure_share(self) -> float:
        return self.schema_failures / max(1, self.replies - self.cut_off)

    @property
    def tokens_per_s(self) -> float:
        return self.completion_tokens / self.wall_s

    @property
    def rows_per_1000_tokens(self) -> float:
        """Usable ones, for tokens that the teacher wrote; the prompts are the same in both modes."""
        return 1000 * self.usable / max(1, self.completion_tokens)

    @property
    def rows_per_s(self) -> float:
        return self.usable / self.wall_s


def make_prompts(config: RunConfig, task: TaskSpec) -> dict[Kind, list[Prompt]]:
    """For rows of each label, and for a label of each of some texts; all are of the seed."""
    prompter = Prompter(PromptLibrary(), "any", config.sampling, seed=1)
    names, examples = task.label_names, task.seed[:8]
    report = make_up_report(config, task)
    common = {
        "kind": "classification",
        "domain": task.domain,
        "labels": task.labels,
        "examples": examples,
        "num_rows": ROWS,
        "report": report,
    }
    writing, schema = prompter.open("pgkd/generate", common), rows_schema(names, ROWS)
    labelling = prompter.open("labelling/label", {"kind": "classification", "domain": task.domain, "labels": task.labels, "num_texts": 1})
    texts = [task.seed[number % len(task.seed)].text for number in range(NUM_TEXTS)]
    return {
        "rows": [writing.finish({"kind": "classification", "focus": (name,), "num_rows": ROWS}, schema) for name in names],
        "labels": [labelling.finish({"text": text}, label_schema(names)) for text in texts],
    }


def make_requests(
    config: RunConfig, model: str, prompts: Sequence[Prompt], kind: Kind, mode: str, turn: int, row_draws: int
) -> list[Request]:
    """With seeds that are the turn's own, and the same in both modes."""
    sampling = config.sampling.model_copy(update={"constrained": mode == "constrained"})
    prompter = Prompter(PromptLibrary(), model, sampling, seed=turn)
    draws = row_draws if kind == "rows" else 1
    return [prompter.request(prompt, kind, number * draws + draw) for number, prompt in enumerate(prompts) for draw in range(draws)]


def fits_rows(reply: str, names: frozenset[str]) -> bool:
    """Whether a reply is what `rows_schema` says, and nothing else."""
    rows = _read(reply)
    return isinstance(rows, list) and len(rows) == ROWS and all(_fits_row(row, names) for row in rows)


def fits_label(reply: str, names: frozenset[str]) -> bool:
    """As above, of `label_schema`."""
    row = _read(reply)
    return isinstance(row, dict) and set(row) == {"label"} and isinstance(row["label"], str) and row["label"] in names


def _fits_row(row: Any, names: frozenset[str]) -> bool:
    if not isinstance(row, dict) or set(row) != {"text", "label"}:
        return False
    text, label = row["text"], row["label"]
    return isinstance(text, str) and text != "" and isinstance(label, str) and label in names


def _read(reply: str) -> Any:
    try:
        return json.loads(reply)
    except (ValueError, RecursionError):
        return None


def usable_rows(reply: str, names: frozenset[str], max_text_chars: int) -> int:
    return sum(check_shape(row, names, max_text_chars) is None for row in parse_rows(reply)[:ROWS])


def usable_labels(reply: str, names: frozenset[str]) -> int:
    return sum(label in names for label in parse_labels(reply, 1))


async def ask(lane: Lane, requests: Sequence[Request]) -> tuple[list[Completion], float]:
    """All at once, as far as the lane allows; and the seconds it took."""
    async with Batcher([lane], attempts=3, random=random.Random(0), record=record_nothing) as batcher:
        started = time.perf_counter()
        outcomes = await asyncio.gather(*(batcher.ask(request, 0) for request in requests))
        wall_s = time.perf_counter() - started
    failed = [outcome for outcome in outcomes if not isinstance(outcome, Completion)]
    assert not failed, failed[:3]
    return [outcome for outcome in outcomes if isinstance(outcome, Completion)], wall_s


def judge(kind: Kind, mode: str, completions: Sequence[Completion], wall_s: float, names: frozenset[str], max_text_chars: int) -> Pass:
    fits: Callable[[str, frozenset[str]], bool] = fits_rows if kind == "rows" else fits_label
    whole = [completion for completion in completions if completion.finish_reason is FinishReason.STOP]
    if kind == "rows":
        usable = sum(usable_rows(completion.text, names, max_text_chars) for completion in completions)
    else:
        usable = sum(usable_labels(completion.text, names) for completion in completions)
    return Pass(
        mode,
        kind,
        replies=len(completions),
        schema_failures=sum(not fits(completion.text, names) for completion in whole),
        cut_off=len(completions) - len(whole),
        asked=len(completions) * (ROWS if kind == "rows" else 1),
        usable=usable,
        completion_tokens=sum(completion.usage.completion_tokens for completion in completions),
        wall_s=wall_s,
    )


async def run_all(repeats: int, endpoint: str | None = None, draws: int | None = None) -> tuple[list[Pass], list[Pass]]:
    """The first turn, and the others."""
    config = load_config(CONFIG)
    task = load_task(config.task, seed=1)
    prompts, names = make_prompts(config, task), frozenset(task.label_names)
    teacher = config.teacher.model_copy(update={"endpoint": endpoint})
    passes: list[Pass] = []
    with tempfile.TemporaryDirectory(prefix="reflux-structured-") as folder:
        run = RunDir(Path(folder) / "run")
        run.create()
        async with open_fleet(teacher, EngineConfig(), run, Silent(), lambda _note: None) as fleet:
            for turn in range(repeats + 1):
                for kind in prompts:
                    for mode in MODES if turn % 2 == 0 else MODES[::-1]:
                        lane = Lane(fleet.lanes[0].teacher, ConcurrencyController.fixed(IN_FLIGHT))
                        requests = make_requests(config, fleet.model, prompts[kind], kind, mode, turn, draws or DRAWS)
                        completions, wall_s = await ask(lane, requests)
                        passes.append(judge(kind, mode, completions, wall_s, names, config.task.max_text_chars))
    first = len(MODES) * len(prompts)
    return passes[:first], passes[first:]


def summarize(passes: Sequence[Pass]) -> list[dict[str, Any]]:
    """A line for each kind and mode; speeds are medians, with the least and the most."""
    lines: list[dict[str, Any]] = []
    for kind in dict.fromkeys(one.kind for one in passes):
        for mode in MODES:
            ours = [one for one in passes if (one.kind, one.mode) == (kind, mode)]
            speeds = [one.tokens_per_s for one in ours]
            replies, cut_off = sum(one.replies for one in ours), sum(one.cut_off for one in ours)
            lines.append(
                {
                    "kind": kind,
                    "mode": mode,
                    "replies": replies,
                    "schema_failures": sum(one.schema_failures for one in ours),
                    "schema_failure_share": sum(one.schema_failures for one in ours) / max(1, replies - cut_off),
                    "cut_off": cut_off,
                    "usable_share": sum(one.usable for one in ours) / sum(one.asked for one in ours),
                    "tokens_per_s": statistics.median(speeds),
                    "tokens_per_s_spread": (min(speeds), max(speeds)),
                    "usable_per_1000_tokens": 1000 * sum(one.usable for one in ours) / max(1, sum(one.completion_tokens for one in ours)),
                    "usable_per_s": statistics.median(one.rows_per_s for one in ours),
                }
            )
    return lines


def show(lines: Sequence[dict[str, Any]], console: Console) -> None:
    columns = {
        "asked for": "kind",
        "output": "mode",
        "replies": "replies",
        "fail schema": "schema_failure_share",
        "cut off": "cut_off",
        "usable": "usable_share",
        "tokens/s": "tokens_per_s",
        "usable / 1,000 tokens": "usable_per_1000_tokens",
        "usable/s": "usable_per_s",
    }
    rows = [[line[name] for name in columns.values()] for line in lines]
    console.print(plain_table(tuple(columns), rows, title="Output constrained to its schema, or free"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--draws", type=int, default=DRAWS, help="of each of the 16 prompts for rows")
    parser.add_argument("--endpoint", help="a server that runs already, instead of one of our own")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "structured.json")
    options = parser.parse_args()
    first, passes = uvloop.run(run_all(options.repeats, options.endpoint, options.draws))
    lines = summarize(passes)
    show(lines, Console())
    content = {
        "machine": describe_machine(),
        "rows_per_reply": ROWS,
        "draws": options.draws,
        "in_flight": IN_FLIGHT,
        "repeats": options.repeats,
        "figures": lines,
        "first_turn": [asdict(one) for one in first],
        "passes": [asdict(one) for one in passes],
    }
    options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if failures := sum(one.schema_failures for one in (*first, *passes) if one.mode == "constrained"):
        sys.exit(f"{failures} constrained replies are not what their schema says")


if __name__ == "__main__":
    main()
