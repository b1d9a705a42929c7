"""The teacher and the students beside each other, for people."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from engine.cost.predictions import Line, PredictionCost
from engine.cost.words import amount
from engine.views.display import inert, plain_table

_WIDE = ("", "ms a batch", "rows/s", "{} for 1,000", "faster", "cheaper", "reads", "cut", "pays after")


def prediction_cost_view(found: PredictionCost) -> RenderableType:
    """A table for each kind of inputs, then the scores, and what to know of them."""
    parts: list[RenderableType] = []
    for name in dict.fromkeys(line.inputs for line in found.lines):
        lines = [_cells(line) for line in found.lines if line.inputs == name]
        about = next((each for each in found.inputs if each.name == name), found.inputs[0])
        title = f"{about.rows} inputs of {about.mean_tokens:,.0f} tokens on average ({name})"
        parts += [plain_table([column.format(found.currency) for column in _WIDE], lines, title=title), ""]
    lines = [(score.way, score.rows, score.accuracy, score.macro_f1, score.unanswered) for score in found.quality]
    parts += [plain_table(("", "test rows", "accuracy", "macro F1", "unanswered"), lines, title="Scores"), ""]
    spent = f"{amount(found.run_money)} {found.currency} and " if found.run_money is not None else ""
    parts.append(Text(f"The run took {spent}{amount(found.run_s)} s; break-even is counted in {inert(found.pays_in)}.", style="bold"))
    return Group(*parts, *(inert(f"Note: {line}", max_chars=1000) for line in found.notes))


def _cells(line: Line) -> tuple[object, ...]:
    reads = "all" if line.most_tokens is None else f"{line.most_tokens} tokens"
    return (
        line.way + (f" ({line.failed} unanswered)" if line.failed else ""),
        f"{line.ms_per_batch:,.1f}",
        amount(line.rows_per_s),
        amount(line.per_1000),
        _times(line.times_faster),
        _times(line.times_cheaper),
        reads,
        f"{line.cut_share:.0%}",
        _pays(line),
    )


def _pays(line: Line) -> str:
    if line.pays_after is not None:
        return f"{line.pays_after:,}"
    return "" if line.times_faster is None else "never"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{amount(ratio)} x"
