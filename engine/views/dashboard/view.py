"""A Status as lines for a terminal. Pure: a status, a size and the time in, lines out, never more or longer than fit.

Lines are laid out here and not by rich's tables, and kept while what they tell of stays the same: a picture is drawn beside work that must
not notice it, and takes a fraction of the time this way. Where there is no room for all, what is of use at every moment stays, and lists
are cut.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.text import Span, Text

from engine.cost.words import cost_glance
from engine.status import Notice, Point, Range, ScoreForecast, ServerStatus, Stage, Status, WeakClass
from engine.views.dashboard.curve import interval_bar, sparkline
from engine.views.display import SHORT, bar, inert

_STYLIST = Console()
"""Knows what styles are called."""
Part: TypeAlias = str | Text | tuple[str, str]
"""Of a line: plain, styled, or text with its style. Words that come from outside are a Text made inert."""

SILENT_S = 5.0
"""Without a heartbeat for so long, something is wrong."""
MARGIN = 10
"""Columns before a line's values."""
_STYLES = {
    Stage.STARTING: "yellow",
    Stage.ASKING: "green",
    Stage.TRAINING: "cyan",
    Stage.FINISHED: "bold green",
    Stage.STOPPED: "bold yellow",
    Stage.DIED: "bold red",
    Stage.WORKING: "yellow",
}


@dataclass(frozen=True, slots=True)
class View:
    """A picture of a status at a time."""

    status: Status
    now: float
    """Unix time."""
    is_fitted: bool = True
    """To the console's height; otherwise it is as high as it wants to be."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # One line less: the cursor stands below the last.
        height = console.height - 1 if self.is_fitted else sys.maxsize
        for number, line in enumerate(lines(self.status, options.max_width, height, self.now)):
            if number:
                yield Segment.line()
            yield from _segments(line.plain, tuple(line.spans))


@lru_cache(maxsize=256)
def _segments(plain: str, spans: tuple[Span, ...]) -> tuple[Segment, ...]:
    """Most lines stay what they were."""
    return tuple(Text(plain, spans=[*spans], end="").render(_STYLIST))


@dataclass(frozen=True, slots=True)
class _List:
    """A section of which only the first lines may be shown."""

    title: str
    size: int
    fewest: int
    draw: Callable[[int], list[Text]]
    """So many lines of it; what is not shown is not drawn."""


def lines(status: Status, width: int, height: int, now: float) -> list[Text]:
    """At most `height`, of at most `width` cells."""
    head = [_header(status, width, now), *_work(status, width)]
    middle = [*_rows(status), *_speed(status, width)]
    servers = _List("Servers", len(status.servers), 1, lambda size: _servers(status.servers[:size], width))
    score = _score(status.curve, status.best_round, width)
    rounds = _List("", len(status.curve), 0, lambda size: _rounds(status.curve, status.best_round, size, width))
    weakest = _List("Weakest", len(status.weakest), 3, lambda size: _weakest(status.weakest[:size], width))
    notes = _List("Notes", len(status.notices), 1, lambda size: _notes(status.notices[-size:] if size else ()))
    tail = [_tokens(status), _time(status), *_left(status), *_cost(status), *_budget(status)]
    lists = (servers, weakest, rounds, notes)
    spare = height - sum(map(len, (head, middle, score, tail)))
    sizes = _share(spare, lists)
    gaps = max(0, min(4, spare - sum(sizes)))
    shown = [_titled(part, size) for part, size in zip(lists, sizes, strict=True)]
    blocks = [head, [*middle, *shown[0]], [*score, *shown[2]], shown[1], tail, shown[3]]
    drawn: list[Text] = []
    for block in (block for block in blocks if block):
        if drawn and gaps:
            drawn.append(Text())
            gaps -= 1
        drawn += block
    for line in drawn:
        line.truncate(width, overflow="ellipsis")
    return drawn[: max(height, 0)]


def _share(spare: int, lists: Sequence[_List]) -> list[int]:
    """Lines for each: first what it needs, then gaps between the blocks, then one after the other until all is shown."""
    sizes = [0] * len(lists)
    for number, part in enumerate(lists):
        sizes[number] = max(0, min(part.fewest, part.size, spare - sum(sizes)))
    room = spare - sum(sizes) - 4
    while room > 0 and any(size < part.size for size, part in zip(sizes, lists, strict=True)):
        for number, part in enumerate(lists):
            if room > 0 and sizes[number] < part.size:
                sizes[number] += 1
                room -= 1
    return sizes


def _titled(part: _List, size: int) -> list[Text]:
    return [_line("" if number else part.title, line) for number, line in enumerate(part.draw(size))]


def _line(title: str, *parts: Part) -> Text:
    line = Text(no_wrap=True)
    line.append(title.ljust(MARGIN), style="bold")
    for part in parts:
        if isinstance(part, tuple):
            line.append(*part)
        else:
            line.append(part)
    return line


def _header(status: Status, width: int, now: float) -> Text:
    silent_s = now - status.updated_at
    stage: Part = (status.state.value, _STYLES[status.state])
    if status.state.has_heartbeat and silent_s > SILENT_S:
        stage = (f"{status.state}, but no sign of life for {duration(silent_s)}", "bold red")
    clock = duration(status.wall_s + (max(0.0, now - status.updated_at) if status.state.has_heartbeat else 0.0))
    right = Text.assemble(stage, f" · {clock}")
    name = Text.assemble(("reflux    ", "bold"), inert(status.name), (f" · {inert(status.strategy)}", "dim"))
    name.truncate(max(width - right.cell_len - 2, 0), overflow="ellipsis")
    return Text.assemble(name, " " * max(width - name.cell_len - right.cell_len, 2), right)


def _work(status: Status, width: int) -> list[Text]:
    phase = _line("Now", inert(status.phase))
    of = f"{status.round} of at most {status.rounds}"
    if not status.round_planned:
        return [phase, _line("Round", of)]
    done = status.round_rows.requested
    words = f" {done:,} of {status.round_planned:,} rows, {done / status.round_planned:.0%}"
    return [phase, _line("Round", f"{of}  ", _gauge(done / status.round_planned, width - MARGIN - len(of) - 2 - len(words)), words)]


def _rows(status: Status) -> list[Text]:
    rows = status.rows
    counts = _line(
        "Rows",
        f"{rows.requested:,} asked = ",
        (f"{rows.accepted:,} accepted", "green"),
        " + ",
        (f"{rows.rejected:,} rejected", "yellow" if rows.rejected else ""),
        " + ",
        (f"{rows.failed:,} failed", "red" if rows.failed else ""),
    )
    reasons = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in status.lost.items())
    return [counts, _line("", ("not accepted: ", "dim"), inert(reasons))] if reasons else [counts]


def _speed(status: Status, width: int) -> list[Text]:
    if not status.peak_tokens_per_s and not status.tokens_per_s:
        return []
    share = min(status.tokens_per_s / status.peak_tokens_per_s, 1.0) if status.peak_tokens_per_s else 0.0
    words = f" {share:.0%} of the best, {status.peak_tokens_per_s:,.0f}"
    rate = f"{status.tokens_per_s:,.0f} tokens/s "
    speed = _line("Speed", rate, _gauge(share, width - MARGIN - len(rate) - len(words)), words)
    if status.limit is None:
        return [speed]
    limit = _line("", ("limited by ", "dim"), inert(SHORT.get(status.limit, status.limit)))
    if status.waiting:
        limit.append(f"; {status.waiting:,} requests wait for a place", style="dim")
    return [speed, limit]


def _servers(servers: Sequence[ServerStatus], width: int) -> list[Text]:
    names = [inert(server.name.removeprefix("http://").removesuffix("/v1")) for server in servers]
    _align(names, width - MARGIN - 56)
    return [_server(server, name) for server, name in zip(servers, names, strict=True)]


def _server(server: ServerStatus, name: Text) -> Text:
    line = Text.assemble(name, f"  {server.in_flight:,}/{server.limit:,} in flight")
    if server.running is not None:
        line.append(f", {server.running:,} running, {server.waiting or 0:,} waiting")
    if server.reach != "open":
        line.append(f"  {server.reach}", style="bold red")
    elif server.kv_cache_use is not None:
        line.append("  KV ").append_text(_gauge(server.kv_cache_use, 6)).append(f" {server.kv_cache_use:.0%}")
    return line


@lru_cache(maxsize=4)
def _score(curve: tuple[Point, ...], best_round: int | None, width: int) -> list[Text]:
    if not curve:
        return []
    words = f"{score(curve[-1])} macro F1  "
    best = f"  best: round {best_round}" if best_round else ""
    room = width - MARGIN - len(words) - len(best)
    return [_line("Student", (words, "bold"), (sparkline([point.macro_f1 for point in curve], room), "cyan"), (best, "dim"))]


@lru_cache(maxsize=4)
def _rounds(curve: tuple[Point, ...], best_round: int | None, size: int, width: int) -> list[Text]:
    """The newest first; on one scale with those that are not shown."""
    low = min((point.macro_f1 if point.low is None else point.low for point in curve), default=0.0)
    high = max((point.macro_f1 if point.high is None else point.high for point in curve), default=1.0)
    room = min(width - MARGIN - 24, 60)
    return [
        Text.assemble(
            f"{f'round {point.round}' if point.round else 'seed':<9} {point.macro_f1:.3f}  ",
            (interval_bar(point, low, high, room), "bold cyan" if point.round == best_round else "cyan"),
        )
        for point in [*reversed(curve)][:size]
    ]


@lru_cache(maxsize=4)
def _weakest(classes: tuple[WeakClass, ...], width: int) -> list[Text]:
    names = [inert(found.label) for found in classes]
    _align(names, width - MARGIN - 46)
    return [_weak(found, name) for found, name in zip(classes, names, strict=True)]


def _weak(found: WeakClass, name: Text) -> Text:
    line = Text.assemble(name, f"  {found.f1:.3f} ", _gauge(found.f1, 12))
    if found.before is not None:
        change = found.f1 - found.before
        line.append(f" {change:+.3f}", style="green" if change > 0 else "red" if change < 0 else "dim")
    return line.append(f"  of {found.support:,} row{'' if found.support == 1 else 's'}", style="dim")


def _align(names: Sequence[Text], most: int) -> None:
    """As wide as the longest, or as there is room for."""
    width = max(min(max((name.cell_len for name in names), default=0), most), 12)
    for name in names:
        name.truncate(width, overflow="ellipsis", pad=True)


def _tokens(status: Status) -> Text:
    tokens = status.prompt_tokens + status.completion_tokens
    each = f"; {tokens / status.rows.accepted:,.0f} an accepted row" if status.rows.accepted else ""
    return _line("Tokens", f"{status.prompt_tokens:,} prompt + {status.completion_tokens:,} completion{each}")


def _time(status: Status) -> Text:
    shares = f"teacher writing {duration(status.generation_s)}, student learning {duration(status.train_s)}"
    return _line("Time", f"{duration(status.wall_s)}: {shares}")


def _left(status: Status) -> list[Text]:
    if not status.state.has_heartbeat:
        return []
    parts = [f"{name} {_range(left)}" for name, left in (("round", status.round_left), ("run", status.run_left)) if left]
    left = _line("Left", "; ".join(parts) or ("not to be told yet", "dim"))
    return [left, *([_forecast(status.score_forecast)] if status.score_forecast else [])]


def _forecast(forecast: ScoreForecast) -> Text:
    score = f"macro F1 {forecast.macro_f1:.3f} ({forecast.low:.3f} to {forecast.high:.3f})"
    return _line("Forecast", score, (f" at the end, with {forecast.rows:,} rows", "dim"))


def _cost(status: Status) -> list[Text]:
    return [_line("Cost", inert(cost_glance(status.cost, status.cost_at_end)))] if status.cost and status.cost.reserved_s else []


def _budget(status: Status) -> list[Text]:
    parts = [f"{use.spent / use.bound:.0%} of {use.bound:,.0f} {use.name}" for use in status.budget]
    return [_line("Budget", ", ".join(parts))] if parts else []


@lru_cache(maxsize=4)
def _notes(notices: tuple[Notice, ...]) -> list[Text]:
    """The newest first."""
    return [Text.assemble((time.strftime("%H:%M ", time.localtime(notice.at)), "dim"), inert(notice.text)) for notice in reversed(notices)]


def _gauge(share: float, width: int) -> Text:
    """Of that width, if that is any use."""
    if width < 4:
        return Text()
    filled = bar(share, width)
    return Text.assemble((filled, "cyan"), ("·" * (width - cell_len(filled)), "dim"))


def _range(left: Range) -> str:
    low, high = duration(left.low_s), duration(left.high_s)
    return f"about {low}" if low == high else f"{low} to {high}"


def score(point: Point) -> str:
    """With its interval, where there is one."""
    within = f" ({point.low:.3f} to {point.high:.3f})" if point.low is not None and point.high is not None else ""
    return f"{point.macro_f1:.3f}{within}"


def duration(seconds: float) -> str:
    """To two digits or so."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 100:
        return f"{minutes:.1f} min" if minutes < 10 else f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h"
