"""What a run was busy with: rows, reasons, seconds, speed, by round or over time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter

from engine.html_report.drawing import HEIGHT, Plot, canvas, legend, tick, whole_numbers
from engine.html_report.findings import shown
from engine.html_report.svg import MUTED, PAPER, SERIES, Sheet
from engine.html_report.timeline import Floats, Timeline
from engine.records import RoundRecord
from engine.runs.figures import Point
from engine.runs.round_times import RoundTimes
from engine.views.display import SHORT

_MOST_KINDS = len(SERIES)


def rows_by_round(sheet: Sheet, rounds: Sequence[RoundRecord]) -> Plot:
    layers = {
        "accepted": [record.rows.accepted for record in rounds],
        "rejected": [record.rows.rejected for record in rounds],
        "failed": [record.rows.failed for record in rounds],
    }
    sums = {name: sum(values) for name, values in layers.items()}
    words = f"Rows by round, {sum(sums.values()):,} asked in all: " + ", ".join(f"{count:,} {name}" for name, count in sums.items()) + "."
    svg = _stacked(sheet, [record.round for record in rounds], layers, "rows asked for", words, (SERIES[2], SERIES[3], SERIES[8]))
    return Plot("Rows asked for, and how they ended", "Rejected: refused by a gate. Failed: asked for and never written.", svg)


def reasons_by_round(sheet: Sheet, rounds: Sequence[int], reasons: Sequence[tuple[int, str, int]]) -> Plot | None:
    if not reasons:
        return None
    sums: Counter[str] = Counter()
    for _, reason, count in reasons:
        sums[reason] += count
    axis = sorted({*rounds, *(round for round, _, _ in reasons)})
    by_place = {(round, reason): count for round, reason, count in reasons}
    named = [reason for reason, _ in sums.most_common(_MOST_KINDS - 1)]
    layers = {reason.replace("_", " "): [by_place.get((round, reason), 0) for round in axis] for reason in named}
    if len(sums) > len(named):
        layers["other"] = [sum(by_place.get((round, reason), 0) for reason in sums if reason not in named) for round in axis]
    words = "Rejected rows by round and reason; in all " + ", ".join(f"{count:,} {reason}" for reason, count in sums.most_common()) + "."
    return Plot(
        "Why rows were rejected",
        "Rows past the number asked for are surplus; they were not asked for.",
        _stacked(sheet, axis, layers, "rows", words),
    )


def limits_by_round(sheet: Sheet, rounds: Sequence[RoundRecord]) -> Plot | None:
    sums: defaultdict[str, float] = defaultdict(float)
    for record in rounds:
        for limit, seconds in record.limited_s.items():
            sums[limit] += seconds
    if not sums:
        return None
    longest = sorted(sums, key=lambda limit: -sums[limit])[:_MOST_KINDS]
    layers = {shown(SHORT.get(limit, limit), 46): [record.limited_s.get(limit, 0.0) for record in rounds] for limit in longest}
    words = (
        "Seconds by round and by what was short; in all "
        + ", ".join(f"{name} {sum(values):.1f} s" for name, values in layers.items())
        + "."
    )
    svg = _stacked(sheet, [record.round for record in rounds], layers, "seconds", words, legend_columns=1)
    return Plot("What limited the teacher", "At each moment one thing was short, and more of it would have brought more rows.", svg)


def speed_over_time(sheet: Sheet, timeline: Timeline) -> Plot:
    values = timeline.tokens_per_s
    words = f"Output tokens per second over {_duration(timeline)}: mean {values.mean():,.0f}, highest {values.max():,.0f}."
    return Plot("Output tokens per second", _pauses(timeline), _over_time(sheet, timeline, values, "tokens/s", words, SERIES[0]))


def in_flight_over_time(sheet: Sheet, timeline: Timeline) -> Plot:
    values = timeline.in_flight
    words = f"Requests in flight over {_duration(timeline)}: mean {values.mean():,.1f}, highest {values.max():,.0f}."
    return Plot("Requests in flight", _pauses(timeline), _over_time(sheet, timeline, values, "in flight", words, SERIES[4]))


def seconds_by_round(sheet: Sheet, curve: Sequence[Point], rounds: Sequence[RoundRecord]) -> Plot:
    writing = {record.round: record.generation_s for record in rounds}
    learning = {point.round: point.train_s for point in curve}
    numbers = sorted(writing.keys() | learning.keys())
    layers = {
        "teacher writes": [writing.get(number, 0.0) for number in numbers],
        "student learns": [learning.get(number, 0.0) for number in numbers],
    }
    sums = {name: sum(values) for name, values in layers.items()}
    words = "Seconds by round: " + ", ".join(f"{name} {count:.1f} s in all" for name, count in sums.items()) + "."
    return Plot(
        "Where the time went",
        "Round 0 learns the seed rows alone."
        + (" Teacher and student worked at the same time, so the run took less than both together." if is_ahead(rounds) else ""),
        _stacked(sheet, numbers, layers, "seconds", words),
    )


def is_ahead(rounds: Sequence[RoundRecord]) -> bool:
    """Whether teacher and student worked at once."""
    return any(record.is_ahead for record in rounds)


def busy_by_round(sheet: Sheet, rounds: Sequence[RoundTimes]) -> Plot | None:
    if not rounds:
        return None
    layers = {"busy": [times.busy_s for times in rounds], "reserved and idle": [times.reserved_s - times.busy_s for times in rounds]}
    sums = {name: sum(values) for name, values in layers.items()}
    words = "Seconds of the teacher's servers by round: " + ", ".join(f"{name} {count:.1f} s in all" for name, count in sums.items()) + "."
    return Plot(
        "The servers' time",
        "Busy: with a request in flight. What is paid for is busy and idle together.",
        _stacked(sheet, [times.round for times in rounds], layers, "seconds", words, (SERIES[2], SERIES[8])),
    )


def tokens_per_row(sheet: Sheet, rounds: Sequence[RoundRecord]) -> Plot | None:
    costed = [record for record in rounds if record.rows.accepted]
    if not costed:
        return None
    prices = [(record.prompt_tokens + record.completion_tokens) / record.rows.accepted for record in costed]
    with canvas() as (figure, axes):
        axes.plot([record.round for record in costed], prices, "o-", color=SERIES[1])
        axes.set(xlabel="round", ylabel="tokens per accepted row", ylim=(0, max(prices) * 1.1 or 1))
        axes.yaxis.set_major_formatter(FuncFormatter(tick))
        whole_numbers(axes.xaxis)
    ends = [f"{price:,.0f} in round {record.round}" for price, record in ((prices[0], costed[0]), (prices[-1], costed[-1]))]
    words = f"Teacher tokens per accepted row: {ends[0]}, {ends[1]}."
    return Plot("Tokens per accepted row", "Prompt and output tokens of a round, by the rows that it brought.", sheet.draw(figure, words))


def _stacked(
    sheet: Sheet,
    axis: Sequence[int],
    layers: Mapping[str, Sequence[float]],
    unit: str,
    words: str,
    colors: Sequence[str] = SERIES,
    legend_columns: int = 3,
) -> Markup:
    lines = -(-len(layers) // legend_columns)
    with canvas(HEIGHT + 0.2 * (lines - 1)) as (figure, axes):
        below = np.zeros(len(axis))
        for (name, values), color in zip(layers.items(), colors, strict=False):
            axes.bar(axis, values, bottom=below, color=color, edgecolor=PAPER, linewidth=0.6, width=0.8, label=name)
            below = below + np.asarray(values, dtype=float)
        axes.set(xlabel="round", ylabel=unit, ylim=(0, below.max() * 1.05 or 1))
        axes.yaxis.set_major_formatter(FuncFormatter(tick))
        axes.grid(visible=False, axis="x")
        whole_numbers(axes.xaxis)
        if all(float(value).is_integer() for values in layers.values() for value in values):
            whole_numbers(axes.yaxis)
        legend(figure, axes, legend_columns)
    return sheet.draw(figure, words)


def _over_time(sheet: Sheet, timeline: Timeline, values: Floats, unit: str, words: str, color: str) -> Markup:
    scale, name = (1.0, "seconds") if timeline.at_s[-1] < 300 else (60.0, "minutes") if timeline.at_s[-1] < 3 * 3600 else (3600.0, "hours")
    with canvas(2.4) as (figure, axes):
        axes.fill_between(timeline.at_s / scale, values, color=color, alpha=0.25, linewidth=0, step="mid")
        axes.step(timeline.at_s / scale, values, where="mid", color=color, linewidth=1.2)
        for pause in timeline.pauses_s:
            axes.axvline(pause / scale, color=MUTED, linestyle="--", linewidth=1)
        axes.set(xlabel=f"{name} since the first call", ylabel=unit, ylim=(0, float(values.max()) * 1.05 or 1))
        axes.yaxis.set_major_formatter(FuncFormatter(tick))
    return sheet.draw(figure, words)


def _duration(timeline: Timeline) -> str:
    return f"{2 * timeline.at_s[-1] - timeline.at_s[-2]:,.0f} s" if len(timeline.at_s) > 1 else "a moment"


def _pauses(timeline: Timeline) -> str:
    cut = f" Dashed: {len(timeline.pauses_s)} longer pauses, cut out." if timeline.pauses_s else ""
    return f"From the times of the calls, which count for as long as they took.{cut}"
