"""What is compared: the lines of the table, and what each is told. Everything else is the same for all.

The budget is counted as the servers count it: prompts and replies together, whether the prompt lay in the server's cache or not.

A method that looks at the student is asked in ROUNDS rounds, so that it gets a report of what its own rows have done at least twice; so
is the control, which is its prompt without the report. What looks at no student gains nothing by rounds (the rows of two are those of
one): it is asked once, for as many rows as the budget is expected to bear. How many that are in a round follows from what a row is
expected to cost; where there are several, the budget ends the run whatever they did cost, and spare rounds use up what they left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.config import RunConfig, load_config

TaskName = Literal["classification", "ner"]

TASKS: tuple[TaskName, ...] = ("classification", "ner")

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "examples" / "quickstart"
CONFIGS: Mapping[TaskName, Path] = {"classification": QUICKSTART / "quickstart.toml", "ner": QUICKSTART / "ner.toml"}
CONTROL = "unguided"
ROUNDS, SPARE_ROUNDS = 3, 2
"""Rounds into which the budget is cut for what looks at the student, and how many further ones may use up what is left then."""
IN_FLIGHT = 64
"""Requests of one run at once: more than a round has, so that no search for the best number is part of what is measured."""
STUDENT: Mapping[str, object] = {"student.epochs": 1, "student.patience": 1, "student.min_steps": 20}
"""Shorter than the quickstart's, for the sake of hundreds of trainings: some 20 steps of 32 rows, however many rows there are."""
MAX_TOKENS = 512
"""Of a reply; one that is longer is not asked for again with more, as it would be elsewhere: a teacher that does not come to an end would
spend a budget on it."""
_BLOCKS = {"examples": 8, "right": 4, "wrong": 4, "hard": 4}
"""So small a teacher loses the thread in long prompts: as in the quickstart, and no more for one method than for another."""
_LEAST_ROWS = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table."""

    type: str
    """The strategy."""
    tokens_per_row: Mapping[TaskName, float] = field(default_factory=dict[TaskName, float])
    """Of prompts and replies, for a row asked for, as found with the shipped teacher; only the cut into rounds follows from it. A task
    that is not there is not one for this method."""
    strategy: Mapping[str, object] = field(default_factory=dict[str, object])
    """What it is told beside its rounds."""
    rounds: int = 1
    is_near_seed: bool = False
    """Whether its rows are meant to be near to the seed, so that the gate that refuses such rows is open."""


ENTRIES: Mapping[str, Entry] = {
    "unguided": Entry("unguided", {"classification": 98, "ner": 98}, {"rows_per_call": 8, "examples": 8, "focus": True}, rounds=ROUNDS),
    "pgkd": Entry("pgkd", {"classification": 170, "ner": 170}, {"rows_per_call": 8, "focus": True, **_BLOCKS}, rounds=ROUNDS),
    "evokd": Entry("evokd", {"classification": 300, "ner": 300}, {"rows_per_call": 8, "shown": 4}, rounds=ROUNDS),
    "evokd+init": Entry(
        "evokd",
        {"classification": 300, "ner": 300},
        {"rows_per_call": 8, "shown": 4, "init_rounds": 1},
        rounds=ROUNDS,
        is_near_seed=True,
    ),
    "hybrid": Entry("hybrid", {"classification": 270, "ner": 270}, {"rows_per_call": 8, **_BLOCKS}, rounds=ROUNDS),
    "zerogen": Entry("zerogen", {"classification": 80, "ner": 80}, {"rows_per_call": 8}),
    "auggpt": Entry("auggpt", {"classification": 130, "ner": 130}, {"rows_per_call": 4}, is_near_seed=True),
    "attrprompt": Entry("attrprompt", {"classification": 120, "ner": 120}, {"rows_per_call": 8}),
    "llm2llm": Entry("llm2llm", {"classification": 130, "ner": 130}, {"rows_per_call": 4, "mining": "out_of_fold"}, rounds=ROUNDS),
    "pool": Entry("pool", {"classification": 420, "ner": 420}, {"rows_per_call": 1}, rounds=ROUNDS),
    "eda": Entry("eda", {"classification": 98}, {"rows_per_call": 4}, is_near_seed=True),
    "seed_only": Entry("seed_only", {"classification": 0, "ner": 0}),
}
"""By name. `eda` takes no tokens and is given as many rows as the control asks for."""


def names_for(task: TaskName) -> list[str]:
    return [name for name, entry in ENTRIES.items() if task in entry.tokens_per_row]


def settings(name: str, task: TaskName, seed: int, teacher_tokens: int, pool: Path | None = None) -> dict[str, Any]:
    """What differs from the task's file, by dotted key. `pool`: the unlabelled texts."""
    entry = ENTRIES[name]
    strategy: dict[str, object] = {"type": entry.type, **entry.strategy}
    if entry.type != "seed_only":
        rows = rows_per_round(entry, task, teacher_tokens)
        spare = SPARE_ROUNDS if entry.rounds > 1 else 0
        strategy |= {"rounds": entry.rounds + spare, "patience": None, "rows_per_round": rows}
    changed: dict[str, Any] = {**STUDENT, "seed": seed, "strategy": strategy, "engine.concurrency": IN_FLIGHT}
    changed |= {"budget.teacher_tokens": teacher_tokens, "sampling.max_tokens": MAX_TOKENS, "sampling.max_tokens_bound": MAX_TOKENS}
    if entry.is_near_seed:
        changed["gates.near_duplicates"] = False
    if entry.type == "pool":
        changed["task.data.pool"] = pool and str(pool)
    return changed


def rows_per_round(entry: Entry, task: TaskName, teacher_tokens: int) -> int:
    """Whole requests, as many as the budget is expected to bear."""
    calls = teacher_tokens / (entry.tokens_per_row[task] * int(str(entry.strategy["rows_per_call"])))
    return max(_LEAST_ROWS, math.ceil(calls / entry.rounds) * int(str(entry.strategy["rows_per_call"])))


def config_of(
    name: str, task: TaskName, seed: int, teacher_tokens: int, pool: Path | None = None, more: Mapping[str, object] | None = None
) -> RunConfig:
    """`more`: further settings, by dotted key."""
    return load_config(CONFIGS[task], {**settings(name, task, seed, teacher_tokens, pool), **(more or {})})
