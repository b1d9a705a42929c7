"""Runs side by side for people: a column each, called A, B, C … where their names would not fit."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.text import Text

from engine.cost.cost import Cost
from engine.cost.words import amount
from engine.runs.comparison import RunComparison
from engine.runs.figures import Contrast, RunFigures, Scored
from engine.views.display import inert, plain_table

_MOST_LABELS = 12
"""On a terminal; the JSON and the page have all."""


def letter(number: int) -> str:
    """A, B, … Z, A2, B2, …"""
    return chr(ord("A") + number % 26) + (str(number // 26 + 1) if number >= 26 else "")


def run_comparison_view(comparison: RunComparison) -> RenderableType:
    """Which run is which, what cannot be compared, the figures, and the labels that differ most."""
    letters = [letter(number) for number in range(len(comparison.runs))]
    parts: list[RenderableType] = [
        *(Text.assemble((f"{name}  ", "bold"), inert(run.path)) for name, run in zip(letters, comparison.runs, strict=True)),
        *(Text.assemble(("Not comparable: ", "bold yellow"), inert(line, max_chars=1000)) for line in comparison.not_comparable),
        "",
        plain_table(("", *letters), figure_lines(comparison)),
    ]
    if comparison.classes:
        lines = [
            (shift.label, shift.support, shift.first, shift.second, f"{shift.second - shift.first:+.3f}")
            for shift in comparison.classes.shifts[:_MOST_LABELS]
        ]
        title = f"F1 by label on {comparison.classes.split}, the largest difference first"
        parts += ["", plain_table(("label", "rows", "A", "B", "difference"), lines, title=title)]
    return Group(*parts)


def figure_lines(comparison: RunComparison) -> list[tuple[str, ...]]:
    """What is said of each run, a line a figure; an empty word where it is not known."""
    lines: list[tuple[str, Callable[[RunFigures], str]]] = [
        ("state", lambda run: run.state),
        ("method", lambda run: run.method),
        ("seed", lambda run: str(run.seed)),
        ("teacher", lambda run: run.teacher + (f", {run.teacher_revision}" if run.teacher_revision else "")),
        ("rounds", lambda run: f"{run.rounds}" + ("" if run.kept_round is None else f" (student of {run.kept_round})")),
        ("rows asked", lambda run: f"{run.rows.requested:,}"),
        ("rows accepted", lambda run: f"{run.rows.accepted:,}"),
        ("yield", lambda run: "" if run.yield_share is None else f"{run.yield_share:.1%}"),
        ("teacher tokens", lambda run: f"{run.tokens:,}"),
        ("of them output", lambda run: f"{run.completion_tokens:,}"),
        ("seconds teacher", lambda run: f"{run.generation_s:,.1f}"),
        ("seconds student", lambda run: f"{run.train_s:,.1f}"),
        ("seconds in all", lambda run: f"{run.wall_s:,.1f}"),
        ("GPU-hours reserved", lambda run: _cost(run.cost, lambda cost: cost.reserved_gpu_s / 3600)),
        ("of them busy", lambda run: _cost(run.cost, lambda cost: cost.busy_gpu_s / 3600)),
        ("kWh", lambda run: _cost(run.cost, lambda cost: cost.kwh)),
        ("money", lambda run: _money(run.cost, lambda cost: cost.money)),
        ("  per 1,000 rows", lambda run: _money(run.cost, lambda cost: cost.per_1000_rows and cost.per_1000_rows.money)),
        ("validation before", lambda run: _score(run.validation and run.validation.before)),
        ("validation after", lambda run: _score(run.validation and run.validation.after)),
        ("validation gain", lambda run: _gain(run.validation)),
        ("  per 1,000 tokens", lambda run: _rate(run.validation)),
        ("test before", lambda run: _score(run.test and run.test.before)),
        ("test after", lambda run: _score(run.test and run.test.after)),
        ("test gain", lambda run: _gain(run.test)),
        ("  per 1,000 tokens", lambda run: _rate(run.test)),
    ]
    return [(name, *map(told, comparison.runs)) for name, told in lines]


def _cost(cost: Cost | None, tell: Callable[[Cost], float | None]) -> str:
    return amount(tell(cost)) if cost else ""


def _money(cost: Cost | None, tell: Callable[[Cost], float | None]) -> str:
    told = _cost(cost, tell)
    return f"{told} {cost.currency}" if cost and told else ""


def _score(side: Scored | None) -> str:
    if side is None:
        return ""
    span = f" ({side.interval.low:.3f} to {side.interval.high:.3f})" if side.interval else ""
    return f"{side.scores.macro_f1:.3f}{span}"


def _gain(contrast: Contrast | None) -> str:
    return "" if contrast is None else f"{contrast.gain:+.3f}"


def _rate(contrast: Contrast | None) -> str:
    return "" if contrast is None or contrast.gain_per_1000_tokens is None else f"{contrast.gain_per_1000_tokens:+.2g}"
