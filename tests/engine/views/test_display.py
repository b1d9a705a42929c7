from io import StringIO

import pytest
from rich.console import Console

from engine.records import RoundRecord, RowCounts
from engine.views.console import console_progress
from engine.views.display import bar, inert, plain_table, print_error, rounds_view, row_counts
from tests.engine.builders import make_report


def render(what: object, width: int = 100) -> str:
    console = Console(width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_hostile_text_is_shown_and_does_nothing() -> None:
    shown = render(inert("\x1b[31mred\x07 [bold]markup[/bold]\r\x9b2J \u202eright to left \ud800"))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "[bold]markup[/bold]" in shown
    assert "\\x1b[31mred\\x07" in shown


def test_an_error_keeps_its_lines_and_nothing_else() -> None:
    console = Console(width=40, force_terminal=False)
    with console.capture() as capture:
        print_error(console, "first line that is longer than the console is wide\n    second \x1b[2J")
    assert capture.get() == "error: first line that is longer than the console is wide\n    second \\x1b[2J\n"


def test_long_text_is_cut() -> None:
    assert inert("x" * 500, max_chars=10).plain == "x" * 9 + "…"


def test_bars_are_as_long_as_their_share() -> None:
    assert bar(0.0) == ""
    assert bar(1.0) == "█" * 24
    assert bar(0.5) == "█" * 12
    assert bar(7.0) == "█" * 24
    assert bar(1 / 24 / 8) == "▏"


def test_tables_set_numbers_to_the_right() -> None:
    lines = render(plain_table(("label", "rows"), [("a", 5), ("b", 1234)])).splitlines()
    assert [line.rstrip() for line in lines] == ["label  rows", "a         5", "b      1234"]


def test_counts_say_where_every_row_went() -> None:
    assert row_counts(RowCounts(10, 7, 2, 1)) == "10 asked = 7 accepted + 2 rejected + 1 failed"
    assert row_counts(RowCounts(10, 7, 2, 1, surplus=3)).endswith("(and 3 not asked for)")


def test_the_run_by_round_lists_rounds_that_were_learned_together_and_what_they_answered() -> None:
    counts = RowCounts(requested=8, accepted=7, rejected=1)
    rounds = [RoundRecord(round, report, 1, 1, counts, 10, 5, 1.0) for round, report in ((1, 0), (2, 0), (3, 1))]
    lines = render(rounds_view(rounds, [make_report(0), make_report(1), make_report(3)]), 140).splitlines()
    assert lines[1].split()[:4] == ["round", "by", "report", "asked"]
    assert lines[4].split() == ["2", "0", "8", "7", "1", "0", "5"]
    assert lines[5].split()[:7] == ["3", "1", "8", "7", "1", "0", "5"]
    assert lines[5].split()[9] == "0.500"
    assert "by report" not in render(rounds_view(rounds[:1], [make_report(0)]), 140), "in lock-step it goes without saying"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_line_of_a_round_says_which_report_it_answers_where_that_is_not_the_last(is_terminal: bool) -> None:
    file = StringIO()
    with console_progress(Console(file=file, width=200, force_terminal=is_terminal)) as progress:
        progress.phase("looking for a server")
        progress.round_done(RoundRecord(5, 0, 1, 1, RowCounts(), 10, 5, 1.0))  # without a student, as in `reflux generate`
        progress.reported(make_report(0))
        progress.round_started(1, 8)
        progress.phase("teacher writes round 1")
        for round, report in ((1, 0), (2, 0)):
            progress.round_done(RoundRecord(round, report, 1, 1, RowCounts(), 10, 5, 1.0))
    told = file.getvalue()
    assert told.count("asked by report") == told.count("tokens/s, asked by report 0") == 1
    if not is_terminal:
        assert "looking for a server" in told, "a log tells what goes on before the first round"
        assert "teacher writes round 1" not in told
