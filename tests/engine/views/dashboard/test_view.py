import re
import time
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from engine.config import CostConfig
from engine.cost.cost import AtEnd, Shift, reckon
from engine.records import RowCounts
from engine.status import Notice, Point, Range, ServerStatus, Stage, Status, WeakClass
from engine.views.dashboard import View, news
from engine.views.dashboard.curve import interval_bar, sparkline
from engine.views.dashboard.view import duration, lines
from tests.engine.views.dashboard.statuses import NOW, make_status


def draw(status: Status, width: int = 80, height: int = 24, now: float = NOW) -> str:
    console = Console(record=True, width=width, height=height, force_terminal=True, file=StringIO())
    console.print(View(status, now))
    return console.export_text()


def test_a_run_at_a_glance() -> None:
    shown = draw(make_status())
    for words in (
        "tickets · pgkd",
        "asking · 13 min",
        "teacher writes round 3",
        "3 of at most 10",
        "412 of 640 rows, 64%",
        "1,692 asked = 1,402 accepted + 250 rejected + 40 failed",
        "near duplicate 180, duplicate 70, timeout 40, surplus 12",
        "1,204 tokens/s",
        "81% of the best, 1,480",
        "limited by the server's KV cache; 64 requests wait for a place",
        "127.0.0.1:8000  64/64 in flight, 60 running, 4 waiting",
        "93%",
        "0.842 (0.802 to 0.872) macro F1",
        "best: round 2",
        "intent_00",
        "812,331 prompt + 201,442 completion; 723 an accepted row",
        "teacher writing 8.3 min, student learning 83 s",
        "round 70 s to 95 s; run 8.0 min to 32 min",
        "20% of 5,000,000 teacher tokens",
        "the server is back",
    ):
        assert words in shown, words
    assert len(shown.splitlines()) <= 23
    assert max(map(len, shown.splitlines())) <= 80


def test_more_is_shown_where_there_is_more_room() -> None:
    status = make_status()
    small, large = draw(status), draw(status, 120, 50)
    assert "intent_19" in large
    assert "intent_19" not in small
    assert "seed      0.412" in large
    assert "changed since this run was started" in large
    assert len(large.splitlines()) < 50


@given(st.integers(1, 200), st.integers(1, 80), st.sampled_from([{}, {"servers": (), "curve": ()}, {"round_planned": 0, "limit": None}]))
def test_it_never_goes_beyond_the_terminal(width: int, height: int, changes: dict[str, object]) -> None:
    drawn = lines(make_status(**changes), width, height, NOW)
    assert len(drawn) <= height
    assert max(line.cell_len for line in drawn) <= width


def test_hostile_text_is_inert_and_wide_text_fits() -> None:
    evil = "\x1b[2J\x07[red]\u202e\r"
    status = make_status(
        name=evil,
        phase=evil,
        lost={evil: 3},
        limit=evil,
        servers=(ServerStatus(evil, "lost", 1, 2), ServerStatus("http://\x1b]0;x\x07", "open", 1, 2, 3, 4, 0.5)),
        weakest=(WeakClass("名前" * 60, 0.1, 0.1, 1), WeakClass(evil, 0.1, None, 1)),
        notices=(Notice(NOW, evil),),
    )
    plain = "".join(line.plain for line in lines(status, 80, 24, NOW))
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", plain)
    assert plain.count("[red]") >= 5
    assert all(line.cell_len <= 80 for line in lines(status, 80, 24, NOW))


def test_a_run_without_a_sign_of_life_says_so() -> None:
    assert "no sign of life" not in draw(make_status(), now=NOW + 4)
    assert "asking, but no sign of life for 34 s" in draw(make_status(), now=NOW + 34)
    assert "no sign of life" not in draw(make_status(state=Stage.FINISHED), now=NOW + 1e6)


@pytest.mark.parametrize("state", [Stage.FINISHED, Stage.STOPPED, Stage.DIED])
def test_nothing_is_forecast_for_what_has_ended(state: Stage) -> None:
    shown = draw(make_status(state=state, phase="the disk is full"))
    assert f"{state} · 13 min" in shown
    assert "the disk is full" in shown
    assert "Left" not in shown


def test_what_is_not_known_yet_is_not_shown() -> None:
    status = make_status(
        state=Stage.STARTING,
        phase="vLLM: loading weights",
        round=0,
        round_planned=0,
        rows=RowCounts(),
        lost={},
        peak_tokens_per_s=0.0,
        tokens_per_s=0.0,
        limit=None,
        servers=(),
        curve=(),
        best_round=None,
        weakest=(),
        round_left=None,
        run_left=None,
        budget=(),
        notices=(),
    )
    shown = draw(status)
    assert "vLLM: loading weights" in shown
    assert "not to be told yet" in shown
    for title in ("Speed", "Servers", "Student", "Weakest", "Budget", "Notes", "not accepted"):
        assert title not in shown


def test_no_colour_is_drawn_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(width=80, height=24, force_terminal=True, color_system="truecolor", file=StringIO())
    with console.capture() as capture:
        console.print(View(make_status(), NOW))
    assert not re.search(r"\x1b\[[\d;]*3[0-7]", capture.get())


def test_a_curve_in_characters() -> None:
    assert sparkline([0.1, 0.2, 0.8], 10) == "▁▂█"
    assert sparkline([0.1, 0.2, 0.8], 2) == "▁█"
    assert sparkline([0.5, 0.5], 10) == "▄▄"
    assert sparkline([], 10) == sparkline([0.5], 0) == ""


def test_an_interval_in_characters() -> None:
    assert interval_bar(Point(1, 0.5, 0.25, 0.75, 0.1), 0.0, 1.0, 9) == "  ├─●─┤"
    assert interval_bar(Point(1, 1.0, None, None, 0.1), 0.0, 1.0, 9) == "        ●"
    assert interval_bar(Point(1, 0.5, None, None, 0.1), 0.5, 0.5, 9) == "●"
    assert interval_bar(Point(1, 0.5, None, None, 0.1), 0.0, 1.0, 7) == ""


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 99, 100, 1234, 20_000)] == ["0 s", "99 s", "1.7 min", "21 min", "5.6 h"]


def test_a_range_of_equal_ends_is_one_figure() -> None:
    assert "round about 50 s" in draw(make_status(round_left=Range(50.1, 50.2)))


def test_news_for_who_has_no_terminal() -> None:
    before = make_status()
    assert list(news(before, make_status(updated_at=NOW + 1, rows=RowCounts(9, 9)))) == []
    assert list(news(None, before))[-1] == "asking: teacher writes round 3; round 3 of at most 10, 1,402 of 1,692 rows accepted"
    after = make_status(
        phase="student learns round 3",
        state=Stage.TRAINING,
        curve=(*before.curve, Point(3, 0.9, 0.8, 0.95, 0.1)),
        notices=(*before.notices, Notice(time.time(), "a notice")),
    )
    assert list(news(before, after)) == [
        "note: a notice",
        "student 3: validation macro F1 0.900 (0.800 to 0.950), loss 0.100",
        "training: student learns round 3; round 3 of at most 10, 1,402 of 1,692 rows accepted",
    ]


def test_cost_so_far_and_at_the_end_are_shown_once_a_server_is_up() -> None:
    def shown(reserved_s: float) -> str:
        prices = CostConfig(gpu_hour_price=2.0, currency="EUR")
        cost = reckon((Shift(NOW - 3600, wall_s=3600.0, reserved_s=reserved_s, busy_s=900.0, gpus=1),), prices)
        return draw(make_status(cost=cost, cost_at_end=AtEnd(2.5, 3.0, "EUR")))

    assert "2.00 EUR, 1.00 GPU-hours; at the end 2.50 to 3.00 EUR; servers" in shown(3600.0)
    assert "EUR" not in shown(0.0)
