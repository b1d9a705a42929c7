from rich.console import Console

from engine.records import RowCounts
from engine.views.display import bar, inert, plain_table, print_error, row_counts


def render(what: object) -> str:
    console = Console(width=100, force_terminal=True, color_system=None, legacy_windows=False)
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
