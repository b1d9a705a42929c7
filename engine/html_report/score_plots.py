"""How well the student does: by round, by token, by class."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from engine.html_report.drawing import HEIGHT, Plot, canvas, legend, short, short_label, tick, whole_numbers
from engine.html_report.findings import ByClass, shown
from engine.html_report.svg import INK, MUTED, SERIES, Sheet
from engine.runs.figures import Point, RunFigures, Scored
from engine.views.comparison import letter

_MOST_BARS = 20
_MOST_CONFUSED = 8
_MARKERS = "osD^vPX*<"
_LINES = ("-", "--", "-.", ":")


def score_by_round(sheet: Sheet, figures: RunFigures) -> Plot:
    curve = figures.curve
    rounds = [point.round for point in curve]
    title = f"Macro F1 on validation by round: {_course(curve)}." + (f" {_test_line(figures)}" if figures.test else "")
    with canvas() as (figure, axes):
        _score_line(axes, rounds, curve, 0, "validation")
        if figures.test:
            for side in (figures.test.before, figures.test.after):
                low, high = (side.interval.low, side.interval.high) if side.interval else (side.scores.macro_f1,) * 2
                score = side.scores.macro_f1
                error = [[max(0.0, score - low)], [max(0.0, high - score)]]
                label = "test" if side is figures.test.before else None
                axes.errorbar([side.round], [score], yerr=error, fmt="D", color=SERIES[1], capsize=3, markersize=6, label=label)
            legend(figure, axes)
        axes.set(xlabel="round", ylabel="macro F1", ylim=_score_range(figures))
        whole_numbers(axes.xaxis)
    caption = (
        "The band is the 95 % interval: where the score would lie in 95 of 100 draws of as many rows. Test rows are read once, at the end."
    )
    return Plot("Score by round", caption, sheet.draw(figure, title))


def score_by_token(sheet: Sheet, runs: Sequence[RunFigures]) -> Plot:
    """Of one run, or of several, which are called A, B, C … as in the table beside."""
    with canvas(HEIGHT + 0.22 * (len(runs) > 1) * -(-len(runs) // 3)) as (figure, axes):
        for number, run in enumerate(runs):
            name = f"{letter(number)} {shown(Path(run.path).name, 14)}" if len(runs) > 1 else "validation"
            _score_line(axes, [point.tokens for point in run.curve], run.curve, number, name, with_band=len(runs) <= 3)
        axes.set(xlabel="teacher tokens (prompt and output)", ylabel="macro F1 on validation")
        axes.xaxis.set_major_formatter(FuncFormatter(tick))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if len(runs) > 1:
            legend(figure, axes)
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
    with canvas(0.9 + 0.24 * len(pairs)) as (figure, axes):
        places = range(len(pairs))
        if any(pair.before is not None for pair in pairs):
            befores = [pair.after if pair.before is None else pair.before for pair in pairs]
            axes.hlines(places, befores, [pair.after for pair in pairs], colors=MUTED, linewidth=1.5)
            axes.plot(befores, places, "o", color=SERIES[1], markersize=6, label=f"round {found.before_round}")
        axes.plot([pair.after for pair in pairs], places, "D", color=SERIES[0], markersize=6, label=f"round {found.after_round}")
        axes.set_yticks(places, [short_label(pair.label) for pair in pairs], color=INK)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(pairs) - 0.4), xlabel=f"F1 on {found.split}")
        legend(figure, axes)
    which = f"the {len(pairs)} of {len(measured)} labels that changed most" if len(pairs) < len(measured) else f"{len(pairs)} labels"
    spreads = (_spread([pair.before for pair in measured]), _spread([pair.after for pair in measured]))
    words = f"F1 on {found.split} of {which}: {spreads[0]} before, {spreads[1]} after."
    return Plot("F1 by label, before and after", f"{which[0].upper()}{which[1:]}; the table below has all.", sheet.draw(figure, words))


def class_order(sheet: Sheet, found: ByClass) -> Plot | None:
    """Of more labels than fit into bars: how many are how good."""
    measured = [pair for pair in found.classes if pair.support]
    if len(measured) <= _MOST_BARS:
        return None
    with canvas() as (figure, axes):
        shares = np.arange(1, len(measured) + 1)
        befores = [pair.before for pair in measured if pair.before is not None]
        if befores:
            axes.step(shares[: len(befores)], sorted(befores), color=SERIES[1], linestyle="--", label=f"round {found.before_round}")
        axes.step(shares, sorted(pair.after for pair in measured), color=SERIES[0], label=f"round {found.after_round}")
        axes.set(xlabel="labels, the weakest first", ylabel=f"F1 on {found.split}", ylim=(-0.03, 1.03))
        legend(figure, axes)
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
    with canvas(0.9 + 0.34 * len(labels)) as (figure, axes):
        for line, label in enumerate(labels):
            for column, predicted in enumerate(labels):
                _cell(axes, column, line, counts[label, predicted], support.get(label, 0), is_right=label == predicted)
            others = missed[label] - sum(counts[label, other] for other in labels if other != label)
            _cell(axes, len(labels), line, others, support.get(label, 0), is_right=False)
        axes.set_xticks(range(len(labels) + 1), [*map(str, range(1, len(labels) + 1)), "other"])
        axes.set_yticks(range(len(labels)), [f"{short_label(label)} {number}" for number, label in enumerate(labels, 1)], color=INK)
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
