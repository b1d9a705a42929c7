"""The plots of the pages: each is given plain figures and says in words what it shows, for who cannot see it.

All are as wide as a phone, so that their text can be read there; on wider screens they stand side by side.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from engine.html_report.findings import ByClass, shown
from engine.html_report.svg import INK, MUTED, PAPER, SERIES, STYLE, Sheet
from engine.html_report.timeline import Floats, Timeline
from engine.records import RoundRecord
from engine.runs.figures import Point, RunFigures, Scored
from engine.runs.round_times import RoundTimes
from engine.views.comparison import letter
from engine.views.display import SHORT

_WIDTH = 5.0
"""In inches of 72 units, which are a little less than a phone's pixels."""
_HEIGHT = 2.9
_MOST_BARS = 20
_MOST_CONFUSED = 8
_MOST_KINDS = len(SERIES)
_LABEL_CHARS = 22
_MARKERS = "osD^vPX*<"
_LINES = ("-", "--", "-.", ":")


@dataclass(frozen=True, slots=True)
class Plot:
    title: str
    caption: str
    """How it is read."""
    svg: Markup


def score_by_round(sheet: Sheet, figures: RunFigures) -> Plot:
    curve = figures.curve
    rounds = [point.round for point in curve]
    title = f"Macro F1 on validation by round: {_course(curve)}." + (f" {_test_line(figures)}" if figures.test else "")
    with _figure() as (figure, axes):
        _score_line(axes, rounds, curve, 0, "validation")
        if figures.test:
            for side in (figures.test.before, figures.test.after):
                low, high = (side.interval.low, side.interval.high) if side.interval else (side.scores.macro_f1,) * 2
                score = side.scores.macro_f1
                error = [[max(0.0, score - low)], [max(0.0, high - score)]]
                label = "test" if side is figures.test.before else None
                axes.errorbar([side.round], [score], yerr=error, fmt="D", color=SERIES[1], capsize=3, markersize=6, label=label)
            _legend(figure, axes)
        axes.set(xlabel="round", ylabel="macro F1", ylim=_score_range(figures))
        _whole(axes)
    caption = (
        "The band is the 95 % interval: where the score would lie in 95 of 100 draws of as many rows. Test rows are read once, at the end."
    )
    return Plot("Score by round", caption, sheet.draw(figure, title))


def score_by_token(sheet: Sheet, runs: Sequence[RunFigures]) -> Plot:
    """Of one run, or of several, which are called A, B, C … as in the table beside."""
    with _figure(_HEIGHT + 0.22 * (len(runs) > 1) * -(-len(runs) // 3)) as (figure, axes):
        for number, run in enumerate(runs):
            name = f"{letter(number)} {shown(Path(run.path).name, 14)}" if len(runs) > 1 else "validation"
            _score_line(axes, [point.tokens for point in run.curve], run.curve, number, name, with_band=len(runs) <= 3)
        axes.set(xlabel="teacher tokens (prompt and output)", ylabel="macro F1 on validation")
        axes.xaxis.set_major_formatter(FuncFormatter(_tick))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if len(runs) > 1:
            _legend(figure, axes)
    courses = "; ".join(
        (f"{letter(number)} {Path(run.path).name}: " if len(runs) > 1 else "") + f"{_course(run.curve)}, for {run.tokens:,} tokens"
        for number, run in enumerate(runs)
    )
    caption = "What the teacher's tokens brought: the steeper, the better spent."
    return Plot(
        "Score by teacher tokens", caption, sheet.draw(figure, f"Macro F1 on validation by teacher tokens: {shown(courses, 2000)}.")
    )


def class_scores(sheet: Sheet, found: ByClass) -> Plot | None:
    """Each label with its F1 before and after; of many labels those that changed most."""
    measured = [pair for pair in found.classes if pair.support]
    if not measured:
        return None
    most = sorted(measured, key=lambda pair: -abs(pair.after - (pair.before or 0)))[:_MOST_BARS]
    pairs = sorted(most, key=lambda pair: -pair.after)
    with _figure(0.9 + 0.24 * len(pairs)) as (figure, axes):
        places = range(len(pairs))
        if any(pair.before is not None for pair in pairs):
            befores = [pair.after if pair.before is None else pair.before for pair in pairs]
            axes.hlines(places, befores, [pair.after for pair in pairs], colors=MUTED, linewidth=1.5)
            axes.plot(befores, places, "o", color=SERIES[1], markersize=6, label=f"round {found.before_round}")
        axes.plot([pair.after for pair in pairs], places, "D", color=SERIES[0], markersize=6, label=f"round {found.after_round}")
        axes.set_yticks(places, [_label(pair.label) for pair in pairs], color=INK)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(pairs) - 0.4), xlabel=f"F1 on {found.split}")
        _legend(figure, axes)
    which = f"the {len(pairs)} of {len(measured)} labels that changed most" if len(pairs) < len(measured) else f"{len(pairs)} labels"
    spreads = (_spread([pair.before for pair in measured]), _spread([pair.after for pair in measured]))
    words = f"F1 on {found.split} of {which}: {spreads[0]} before, {spreads[1]} after."
    return Plot("F1 by label, before and after", f"{which[0].upper()}{which[1:]}; the table below has all.", sheet.draw(figure, words))


def class_order(sheet: Sheet, found: ByClass) -> Plot | None:
    """Of more labels than fit into bars: how many are how good."""
    measured = [pair for pair in found.classes if pair.support]
    if len(measured) <= _MOST_BARS:
        return None
    with _figure() as (figure, axes):
        shares = np.arange(1, len(measured) + 1)
        befores = [pair.before for pair in measured if pair.before is not None]
        if befores:
            axes.step(shares[: len(befores)], sorted(befores), color=SERIES[1], linestyle="--", label=f"round {found.before_round}")
        axes.step(shares, sorted(pair.after for pair in measured), color=SERIES[0], label=f"round {found.after_round}")
        axes.set(xlabel="labels, the weakest first", ylabel=f"F1 on {found.split}", ylim=(-0.03, 1.03))
        _legend(figure, axes)
    words = f"F1 of all {len(measured)} labels in order, {_spread(befores)} before and {_spread([pair.after for pair in measured])} after."
    return Plot(
        "F1 of all labels, in order", "The higher a curve on the left, the fewer labels are left behind.", sheet.draw(figure, words)
    )


def confusion_matrices(sheet: Sheet, found: ByClass) -> list[Plot]:
    """Rows of the labels that are confused most, by what they were taken for: before and after."""
    if not found.confusions:
        return []
    weight: Counter[str] = Counter()
    for pair in found.confusions:
        weight[pair.label] += pair.before + pair.after
        weight[pair.predicted] += pair.before + pair.after
    labels = [label for label, _ in weight.most_common(_MOST_CONFUSED)]
    support = {pair.label: pair.support for pair in found.classes}
    sides = (("before", found.before_round), ("after", found.after_round))
    if found.before_round == found.after_round:
        sides = sides[1:]
    return [_matrix(sheet, found, labels, support, when, round) for when, round in sides]


def _matrix(sheet: Sheet, found: ByClass, labels: Sequence[str], support: dict[str, int], when: str, round: int) -> Plot:
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    missed: Counter[str] = Counter()
    for pair in found.confusions:
        count = pair.before if when == "before" else pair.after
        counts[pair.label, pair.predicted] += count
        missed[pair.label] += count
    for label in labels:
        counts[label, label] = max(0, support.get(label, 0) - missed[label])
    with _figure(0.9 + 0.34 * len(labels)) as (figure, axes):
        for line, label in enumerate(labels):
            for column, predicted in enumerate(labels):
                _cell(axes, column, line, counts[label, predicted], support.get(label, 0), is_right=label == predicted)
            others = missed[label] - sum(counts[label, other] for other in labels if other != label)
            _cell(axes, len(labels), line, others, support.get(label, 0), is_right=False)
        axes.set_xticks(range(len(labels) + 1), [*map(str, range(1, len(labels) + 1)), "other"])
        axes.set_yticks(range(len(labels)), [f"{_label(label)} {number}" for number, label in enumerate(labels, 1)], color=INK)
        axes.set(xlim=(-0.5, len(labels) + 0.5), ylim=(len(labels) - 0.5, -0.5), xlabel="predicted, by number")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    worst = sorted(((counts[pair.label, pair.predicted], pair) for pair in found.confusions), key=lambda item: -item[0])[:3]
    told = "; ".join(f"{count} of {shown(pair.label, 60)} taken for {shown(pair.predicted, 60)}" for count, pair in worst if count)
    words = f"Confusion of the {len(labels)} most confused labels on {found.split} {when}, round {round}: {told or 'none'}."
    caption = (
        f"On {found.split}, round {round}. A line is a true label, a column what its rows were taken for; blue is right, red is wrong."
    )
    return Plot(f"Confusion {when}", caption, sheet.draw(figure, words))


def _cell(axes: Axes, column: int, line: int, count: int, of: int, *, is_right: bool) -> None:
    if not count:
        return
    share = min(1.0, count / of) if of else 0.0
    color = SERIES[0] if is_right else SERIES[3]
    axes.add_patch(Rectangle((column - 0.47, line - 0.47), 0.94, 0.94, facecolor=color, edgecolor="none", alpha=0.1 + 0.4 * share))
    axes.text(column, line, short(count), ha="center", va="center", fontsize=9)


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
        + (" Teacher and student worked at the same time, so the run took less than both together." if _is_ahead(rounds) else ""),
        _stacked(sheet, numbers, layers, "seconds", words),
    )


def _is_ahead(rounds: Sequence[RoundRecord]) -> bool:
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
    with _figure() as (figure, axes):
        axes.plot([record.round for record in costed], prices, "o-", color=SERIES[1])
        axes.set(xlabel="round", ylabel="tokens per accepted row", ylim=(0, max(prices) * 1.1 or 1))
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))
        _whole(axes)
    ends = [f"{price:,.0f} in round {record.round}" for price, record in ((prices[0], costed[0]), (prices[-1], costed[-1]))]
    words = f"Teacher tokens per accepted row: {ends[0]}, {ends[1]}."
    return Plot("Tokens per accepted row", "Prompt and output tokens of a round, by the rows that it brought.", sheet.draw(figure, words))


def short(value: float) -> str:
    """12,300 is 12.3k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _label(text: str) -> str:
    """What fits beside an axis: of a long label both ends, as labels of one family often begin alike."""
    whole = shown(text)
    return whole if len(whole) <= _LABEL_CHARS else f"{whole[: _LABEL_CHARS // 2]}…{whole[1 - _LABEL_CHARS // 2 :]}"


def _tick(value: float, _place: int) -> str:
    return short(value)


@contextmanager
def _figure(height: float = _HEIGHT) -> Generator[tuple[Figure, Axes]]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        yield figure, figure.add_subplot()


def _score_line(axes: Axes, places: Sequence[float], curve: Sequence[Point], number: int, name: str, *, with_band: bool = True) -> None:
    color = SERIES[number % len(SERIES)]
    scores = [point.macro_f1 for point in curve]
    axes.plot(places, scores, _LINES[number % 4], marker=_MARKERS[number % len(_MARKERS)], color=color, markersize=5, label=name)
    known = [(place, point.interval) for place, point in zip(places, curve, strict=True) if point.interval]
    if with_band and known:
        axes.fill_between(
            [place for place, _ in known],
            [span.low for _, span in known],
            [span.high for _, span in known],
            color=color,
            alpha=0.15,
            linewidth=0,
        )


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
    with _figure(_HEIGHT + 0.2 * (lines - 1)) as (figure, axes):
        below = np.zeros(len(axis))
        for (name, values), color in zip(layers.items(), colors, strict=False):
            axes.bar(axis, values, bottom=below, color=color, edgecolor=PAPER, linewidth=0.6, width=0.8, label=name)
            below = below + np.asarray(values, dtype=float)
        axes.set(xlabel="round", ylabel=unit, ylim=(0, below.max() * 1.05 or 1))
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))
        axes.grid(visible=False, axis="x")
        _whole(axes)
        _legend(figure, axes, legend_columns)
    return sheet.draw(figure, words)


def _over_time(sheet: Sheet, timeline: Timeline, values: Floats, unit: str, words: str, color: str) -> Markup:
    scale, name = (1.0, "seconds") if timeline.at_s[-1] < 300 else (60.0, "minutes") if timeline.at_s[-1] < 3 * 3600 else (3600.0, "hours")
    with _figure(2.4) as (figure, axes):
        axes.fill_between(timeline.at_s / scale, values, color=color, alpha=0.25, linewidth=0, step="mid")
        axes.step(timeline.at_s / scale, values, where="mid", color=color, linewidth=1.2)
        for pause in timeline.pauses_s:
            axes.axvline(pause / scale, color=MUTED, linestyle="--", linewidth=1)
        axes.set(xlabel=f"{name} since the first call", ylabel=unit, ylim=(0, float(values.max()) * 1.05 or 1))
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    return sheet.draw(figure, words)


def _legend(figure: Figure, axes: Axes, columns: int = 3) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=1.4, columnspacing=1.2, borderpad=0)


def _whole(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))


def _score_range(figures: RunFigures) -> tuple[float, float]:
    """Room for all that is drawn, and not less than a tenth, so that noise does not look like a mountain."""
    spans = [point.interval for point in figures.curve] + [side.interval for side in _sides(figures)]
    scores = [point.macro_f1 for point in figures.curve] + [side.scores.macro_f1 for side in _sides(figures)]
    ends = [end for span in spans if span for end in (span.low, span.high)] + scores
    low, high = min(ends) - 0.03, max(ends) + 0.03
    return (max(-0.02, min(low, high - 0.1)), min(1.02, max(high, low + 0.1)))


def _sides(figures: RunFigures) -> tuple[Scored, ...]:
    return (figures.test.before, figures.test.after) if figures.test else ()


def _course(curve: Sequence[Point]) -> str:
    if not curve:
        return "no student has been scored"
    first, last, best = curve[0], curve[-1], max(curve, key=lambda point: point.macro_f1)
    if first is last:
        return f"{first.macro_f1:.3f} after round {first.round}"
    course = f"from {first.macro_f1:.3f} after round {first.round} to {last.macro_f1:.3f} after round {last.round}"
    return course if best is last else f"{course}, best {best.macro_f1:.3f} after round {best.round}"


def _test_line(figures: RunFigures) -> str:
    assert figures.test is not None
    before, after = figures.test.before, figures.test.after
    return f"On test {before.scores.macro_f1:.3f} before and {after.scores.macro_f1:.3f} after."


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{min(known):.2f}-{max(known):.2f}" if known else "none"


def _duration(timeline: Timeline) -> str:
    return f"{2 * timeline.at_s[-1] - timeline.at_s[-2]:,.0f} s" if len(timeline.at_s) > 1 else "a moment"


def _pauses(timeline: Timeline) -> str:
    cut = f" Dashed: {len(timeline.pauses_s)} longer pauses, cut out." if timeline.pauses_s else ""
    return f"From the times of the calls, which count for as long as they took.{cut}"
