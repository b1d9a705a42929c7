"""Progress on a terminal: the dashboard for a run, one live line for shorter work. Without a terminal, or where the user wants it plain,
a line for each round.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from engine.progress import Progress, Silent
from engine.records import RoundRecord, RowCounts
from engine.reports import WeaknessReport
from engine.views.dashboard import Dashboard
from engine.views.display import bar, inert, row_counts


@contextmanager
def run_progress(console: Console, *, plain: bool = False) -> Generator[Progress]:
    """The dashboard of a run on `console` (standard error), until the block is left; plain lines where nothing can be drawn."""
    if plain or not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(console)
        return
    dashboard = Dashboard(console)
    with dashboard.screen:
        yield dashboard


@contextmanager
def console_progress(console: Console) -> Generator[Progress]:
    """Draws on `console` (standard error) until the block is left."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    text, rows = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[rows]}")
    columns = (SpinnerColumn(), text, BarColumn(24), rows, TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True, refresh_per_second=8) as bars:
        yield _Live(console, bars)


class _Lines(Silent):
    """Plain lines for what is worth keeping in a log: rounds, reports, notices, and what goes on before the first of them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.perf_counter()
        self._is_starting = True
        self._phase = ""
        self._has_student = False

    def phase(self, text: str) -> None:
        # A server takes minutes to start, in which a log would say nothing; later, rounds and reports say it.
        if self._is_starting and text != self._phase:
            self._print(Text(text))
        self._phase = text

    def round_started(self, round: int, num_rows: int) -> None:
        self._is_starting = False

    def notice(self, text: str) -> None:
        self._print(Text(f"note: {text}"))

    def round_done(self, record: RoundRecord) -> None:
        self._print(_round_line(record, has_student=self._has_student))

    def reported(self, report: WeaknessReport) -> None:
        self._has_student, self._is_starting = True, False
        self._print(_report_line(report))

    def _print(self, text: Text) -> None:
        clock = f"{time.perf_counter() - self._started:6.1f} s  "
        self._console.print(Text(clock) + inert(text.plain, max_chars=2000), soft_wrap=True, highlight=False)


class _Live(Silent):
    """The phase and the round's rows in a line that is redrawn at a fixed rate; rounds stay above it."""

    def __init__(self, console: Console, bars: Bars) -> None:
        self._console = console
        self._bars = bars
        self._bar = bars.add_task("starting", total=None, rows="")
        self._rows = RowCounts()
        self._has_student = False

    def phase(self, text: str) -> None:
        self._bars.reset(self._bar, total=None, description=inert(text).plain, rows="")

    def notice(self, text: str) -> None:
        self._console.print(Text.assemble(("note: ", "yellow"), inert(text, max_chars=2000)))

    def round_started(self, round: int, num_rows: int) -> None:
        self._rows = RowCounts()
        self._bars.reset(self._bar, total=num_rows, description=f"teacher writes round {round}", rows="")

    def assignment_done(self, rows: RowCounts) -> None:
        self._rows += rows
        self._bars.update(self._bar, completed=self._rows.requested, rows=f"{self._rows.accepted} of {self._rows.requested} rows accepted")

    def round_done(self, record: RoundRecord) -> None:
        self._console.print(_round_line(record, has_student=self._has_student), highlight=False)

    def reported(self, report: WeaknessReport) -> None:
        self._has_student = True
        self._console.print(_report_line(report), highlight=False)


def _round_line(record: RoundRecord, *, has_student: bool) -> Text:
    rate = record.completion_tokens / record.generation_s if record.generation_s else 0.0
    # In lock-step it goes without saying.
    asked_by = f", asked by report {record.report}" if has_student and record.is_ahead else ""
    return Text(f"round {record.round}: {row_counts(record.rows)}; {record.generation_s:.1f} s, {rate:.0f} tokens/s{asked_by}")


def _report_line(report: WeaknessReport) -> Text:
    f1 = report.scores.macro_f1
    rows = f"{report.num_train_rows} rows, {report.train_s:.1f} s"
    return Text.assemble(
        f"student {report.round}: validation macro F1 ", (f"{f1:.3f}", "bold"), f" {bar(f1)} ", (f"loss {report.loss:.3f}, {rows}", "dim")
    )
