"""What is compared: the lines of the table, and what each is told. Everything else is the same for all.

The budget is counted as the servers count it: prompts and replies together, whether the prompt lay in the server's cache or not.

A method that looks at the student is asked in ROUNDS rounds, so that it gets a report of what its own rows have done at least twice; so
is the control, which is its prompt without the report. What looks at no student gains nothing by rounds (the rows of two are those of
one): it is asked once, for as many rows as the budget is expected to bear. How many rows are in a round follows from what one is expected
to cost; where there are several rounds, each gets a little more than its share, so that the budget ends the last, whatever they did cost.
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
RESULTS = ROOT / "benchmarks" / "results"
FILES: Mapping[TaskName, str] = {"classification": "methods.json", "ner": "methods_ner.json"}
"""Of the results, by task."""
QUICKSTART = ROOT / "examples" / "quickstart"
CONFIGS: Mapping[TaskName, Path] = {"classification": QUICKSTART / "quickstart.toml", "ner": QUICKSTART / "ner.toml"}
CONTROL = "unguided"
FEW = "unguided_few"
"""The control held to as many rows as PGKD's longer prompts leave it: says whether one of its rows is worth more, whatever it costs."""
LIKE_FEW = ("pgkd", "hybrid+own")
"""Those that get about as many rows."""
ROUNDS = 3
"""Of what looks at the student, and of the control."""
MORE = 1.1
"""By how much the rounds of such a method are larger than their share of the budget."""
IN_FLIGHT = 64
"""Requests of one run at once: more than a round has, so that no search for the best number is part of what is measured."""
STUDENT: Mapping[str, object] = {"student.epochs": 1, "student.patience": 1, "student.min_steps": 14, "student.learning_rate": 3e-4}
"""Shorter than the quickstart's, for the sake of hundreds of trainings: 14 steps of 32 rows at least, at a rate that makes do with them."""
MAX_TOKENS = 512
"""Of a reply; one that is longer is not asked for again with more, as it would be elsewhere: a teacher that does not come to an end would
spend a budget on it."""
LABELLED_TOGETHER = 1
"""Texts: of 192, the shipped teacher is right about 145 that it is asked about one by one, 28 in twos and 14 in eights."""
_BLOCKS = {"examples": 8, "right": 4, "wrong": 4, "hard": 4}
"""So small a teacher loses the thread in long prompts: as in the quickstart, and no more for one method than for another."""


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
    "unguided": Entry("unguided", {"classification": 82, "ner": 95}, {"rows_per_call": 8, "examples": 8, "focus": True}, rounds=ROUNDS),
    "unguided_once": Entry("unguided", {"classification": 39}, {"rows_per_call": 8, "examples": 8, "focus": True}),
    FEW: Entry("unguided", {"classification": 230, "ner": 250}, {"rows_per_call": 8, "examples": 8, "focus": True}, rounds=ROUNDS),
    "pgkd": Entry("pgkd", {"classification": 200, "ner": 220}, {"rows_per_call": 8, "focus": True, **_BLOCKS}, rounds=ROUNDS),
    "evokd": Entry("evokd", {"classification": 563, "ner": 600}, {"rows_per_call": 8, "shown": 4}, rounds=ROUNDS),
    "evokd+init": Entry(
        "evokd", {"classification": 414}, {"rows_per_call": 8, "shown": 4, "init_rounds": 1}, rounds=ROUNDS, is_near_seed=True
    ),
    "hybrid": Entry("hybrid", {"classification": 572, "ner": 600}, {"rows_per_call": 8, **_BLOCKS}, rounds=ROUNDS),
    "hybrid+keep": Entry("hybrid", {"classification": 572}, {"rows_per_call": 8, "disagreement": "keep", **_BLOCKS}, rounds=ROUNDS),
    "hybrid+own": Entry("hybrid", {"classification": 240, "ner": 260}, {"rows_per_call": 8, "labelling": "none", **_BLOCKS}, rounds=ROUNDS),
    "zerogen": Entry("zerogen", {"classification": 34, "ner": 41}, {"rows_per_call": 8}),
    "auggpt": Entry("auggpt", {"classification": 117, "ner": 109}, {"rows_per_call": 4}, is_near_seed=True),
    "attrprompt": Entry("attrprompt", {"classification": 149, "ner": 150}, {"rows_per_call": 8}),
    "llm2llm": Entry("llm2llm", {"classification": 117, "ner": 120}, {"rows_per_call": 4, "mining": "out_of_fold"}, rounds=ROUNDS),
    "pool": Entry("pool", {"classification": 346, "ner": 360}, {"rows_per_call": 1}, rounds=ROUNDS),
    "eda": Entry("eda", {"classification": 82}, {"rows_per_call": 4}, is_near_seed=True),
    "seed_only": Entry("seed_only", {"classification": 0, "ner": 0}),
}
"""By name. `unguided_once` is the control with few prompts for all rows of a label, each of which the server is sent once: as cheap as
asking can be for whom no report interrupts; `unguided_few` leaves more than half of its budget. `hybrid+keep` keeps a text with the label
it got where that is not the one it was asked for, `hybrid+own` takes the label of who wrote the text: what labelling in a request of its
own costs and brings. `llm2llm` takes the seed rows that a student of the others gets wrong: one that has learned them gets nearly all
right, and as published there would be little to ask. `eda` takes no tokens, and as many rows as the control."""


def names_for(task: TaskName) -> list[str]:
    return [name for name, entry in ENTRIES.items() if task in entry.tokens_per_row]


def settings(name: str, task: TaskName, seed: int, teacher_tokens: int, pool: Path | None = None) -> dict[str, Any]:
    """What differs from the task's file, by dotted key. `pool`: the unlabelled texts."""
    entry = ENTRIES[name]
    strategy: dict[str, object] = {"type": entry.type, **entry.strategy}
    if entry.type != "seed_only":
        strategy |= {"rounds": entry.rounds, "patience": None, "rows_per_round": rows_per_round(entry, task, teacher_tokens)}
    changed: dict[str, Any] = {**STUDENT, "seed": seed, "strategy": strategy, "engine.concurrency": IN_FLIGHT}
    changed |= {"budget.teacher_tokens": teacher_tokens, "sampling.max_tokens": MAX_TOKENS, "sampling.max_tokens_bound": MAX_TOKENS}
    changed["labelling.texts_per_request"] = LABELLED_TOGETHER
    if entry.is_near_seed:
        changed["gates.near_duplicates"] = False
    if entry.type == "pool":
        changed["task.data.pool"] = pool and str(pool)
    return changed


def rows_per_round(entry: Entry, task: TaskName, teacher_tokens: int) -> int:
    """Whole requests."""
    rows_per_call = int(str(entry.strategy["rows_per_call"]))
    calls = teacher_tokens / (entry.tokens_per_row[task] * rows_per_call)
    in_round = round(calls) if entry.rounds == 1 else math.ceil(MORE * calls / entry.rounds)
    return rows_per_call * max(1, in_round)


def config_of(
    name: str, task: TaskName, seed: int, teacher_tokens: int, pool: Path | None = None, more: Mapping[str, object] | None = None
) -> RunConfig:
    """`more`: further settings, by dotted key."""
    return load_config(CONFIGS[task], {**settings(name, task, seed, teacher_tokens, pool), **(more or {})})
