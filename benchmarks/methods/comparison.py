"""Runs of several methods and seeds set against each other: means, and differences to the control seed by seed."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console

from benchmarks.methods.entries import CONTROL, FEW, LIKE_FEW
from benchmarks.paired import paired
from engine.views.display import plain_table

SCORE = "macro_f1"
_MEANS = (
    "accuracy", "micro_f1", "before", "rounds", "calls", "prompt_tokens", "completion_tokens", "cached_prompt_tokens",
    "requested", "accepted", "rejected", "failed", "generation_s", "train_s", "wall_s", "labels_agreed", "spans_agreed",
    "label_as_asked", "distinct", "near_seed", "near_each_other", "balance", "separability", "missing_words",
)  # fmt: skip
"""Means over the runs that have them."""


def summarise(runs: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """A line for each method, over its seeds, the best first: by method and seed, what `figures` gives."""
    lines: list[dict[str, Any]] = []
    for method, by_seed in runs.items():
        scores = [by_seed[seed][SCORE] for seed in sorted(by_seed)]
        reasons = sum((Counter(run["reasons"]) for run in by_seed.values()), Counter[str]())
        lines.append(
            {
                "method": method,
                "seeds": sorted(by_seed),
                "mean": statistics.mean(scores),
                "sd": statistics.stdev(scores) if len(scores) > 1 else None,
                "difference": None if method == CONTROL else paired(_differences(by_seed, runs.get(CONTROL, {}))),
                "difference_few": paired(_differences(by_seed, runs.get(FEW, {}))) if method in LIKE_FEW else None,
                **{name: _mean(run.get(name) for run in by_seed.values()) for name in _MEANS},
                "reasons": {reason: count / len(by_seed) for reason, count in reasons.most_common()},
                "aim": {name: _mean(run["aim"][name] for run in by_seed.values()) for name in next(iter(by_seed.values()))["aim"]},
            }
        )
    return sorted(lines, key=lambda line: -line["mean"])


def _differences(by_seed: Mapping[int, Mapping[str, Any]], control: Mapping[int, Mapping[str, Any]]) -> list[float]:
    return [by_seed[seed][SCORE] - control[seed][SCORE] for seed in sorted(set(by_seed) & set(control))]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def show(lines: Sequence[Mapping[str, Any]], title: str, console: Console) -> None:
    """What came of the tokens, then what the rows were like."""
    seeds = len(max((line["seeds"] for line in lines), key=len, default=[]))
    results = [
        (
            line["method"], *([len(line["seeds"])] if len(line["seeds"]) < seeds else [""]), line["mean"], _or_blank(line["sd"]),
            _interval(line["difference"]), _interval(line["difference_few"]), _whole(line["requested"]), _whole(line["accepted"]),
            _share(line["accepted"], line["requested"]), _whole(line["prompt_tokens"]), _whole(line["cached_prompt_tokens"]),
            _whole(line["completion_tokens"]), _tenths(line["rounds"]),
            _tenths(line["generation_s"]), _tenths(line["train_s"]), _tenths(line["wall_s"]),
        )
        for line in lines
    ]  # fmt: skip
    columns = ("method", "seeds", "macro F1", "sd", f"less {CONTROL} [95 %]", f"less {FEW}", "asked", "accepted", "yield", "tokens in",
               "of them cached", "out", "rounds", "teacher s", "student s", "wall s")  # fmt: skip
    console.print(plain_table(columns, results, title=f"{title}: {seeds} seeds, on test"))
    rows = [
        (
            line["method"], _or_blank(line["labels_agreed"] if line["spans_agreed"] is None else line["spans_agreed"]),
            *(_or_blank(line[name]) for name in ("label_as_asked", "near_seed", "near_each_other", "balance", "separability")),
            *(_or_blank(line["aim"][name]) for name in ("asked", "written", "weak_gain", "other_gain")),
            ", ".join(f"{reason} {count:.1f}" for reason, count in [*line["reasons"].items()][:3]),
        )
        for line in lines
    ]  # fmt: skip
    columns = ("method", "judge agrees", "label as asked", "near seed", "near others", "balance", "told from real", "asked: weak",
               "written: weak", "gain weak", "gain others", "refused, a run")  # fmt: skip
    console.print(plain_table(columns, rows, title=f"{title}: why"))


def _interval(found: Mapping[str, float] | None) -> str:
    return "" if found is None else f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else ""


def _or_blank(value: float | None) -> float | str:
    return "" if value is None else value


def _whole(value: float | None) -> int | str:
    return "" if value is None else round(value)


def _tenths(value: float | None) -> float | str:
    return "" if value is None else round(value, 1)
