"""The page of a run: all of it there, half of a run too, and hostile text as text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.config import change_config
from engine.cost.cost import Shift, Shifts
from engine.html_report import report_page
from engine.html_report.report_page import SECTIONS
from engine.html_report.svg import Sheet
from engine.rundir import RunDir, write_json
from engine.runs.retention import Part, prune
from tests.engine.html_report.builders import add_report, make_full_run
from tests.engine.html_report.inspection import Page
from tests.engine.html_report.undrawn import leave_undrawn
from tests.engine.run_folders import LABELS, make_config, make_manifest, make_rows, make_run

HOSTILE = "<img src=x onerror=alert(1)></style><script>alert(2)</script>\u202e\x1b[2J\"'&{{ 7*7 }}" + "w" * 500 + "\ufdd0d800\uffff\ud800"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(report_page(make_full_run(tmp_path_factory.mktemp("runs") / "tickets")))


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(Sheet, "draw", leave_undrawn)


def test_every_section_is_there_and_linked(page: Page) -> None:
    assert {anchor for anchor, _ in SECTIONS} <= {*page.ids}
    assert [link for link in page.links if link[1:] in dict(SECTIONS)] == [f"#{anchor}" for anchor, _ in SECTIONS]
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert "What is missing" not in page.text


def test_plots_say_in_words_what_they_show(page: Page) -> None:
    told = "\n".join(page.plots)
    assert "Macro F1 on validation by round: from 0.500 after round 0 to 0.800 after round 3. On test 0.500 before and 0.800 after." in told
    assert "Macro F1 on validation by teacher tokens: from 0.500 after round 0 to 0.800 after round 3, for 15,000 tokens." in told
    assert "F1 on test of 3 labels: 0.40-0.60 before, 0.70-0.90 after." in told
    assert "Confusion of the 3 most confused labels on test before, round 0: 12 of cancel taken for change" in told
    assert "Rows by round, 18 asked in all: 9 accepted, 6 rejected, 3 failed." in told
    assert "Rejected rows by round and reason; in all 6 duplicate." in told
    assert "Seconds by round and by what was short; in all the server's computing 15.0 s" in told
    assert "Output tokens per second over 67 s" in told
    assert "Requests in flight over 67 s" in told
    assert "teacher writes 24.0 s in all, student learns 26.0 s in all" in told
    assert "Teacher tokens per accepted row: 1,667 in round 1, 1,667 in round 3." in told
    assert all(plot.strip() for plot in page.plots)


def test_figures_are_in_the_tables(page: Page) -> None:
    words = " ".join(page.text.split())
    assert "18 asked = 9 accepted + 6 rejected + 3 failed" in words
    assert "+0.300" in words  # gain
    assert "15,000 1,666.7 500" in words, "tokens in all, by accepted row, by point of F1"
    assert "pair:cancel>change 8 20 22.0% where is my parcel change" in words
    assert "20 of 200 rows (10.0%) seem to have a wrong label; of validation rows it would be 5.0%" in words
    assert "teacher-model" in words
    assert "sampling.temperature 1.0" in words
    assert "class:refund" in words  # what the sample rows answer


@pytest.mark.usefixtures("_undrawn")
def test_cost_is_told_in_all_and_by_round(tmp_path: Path) -> None:
    run = make_full_run(tmp_path / "run")
    assert "GPU time, energy and money are not known" in _words(run)
    prices = {"gpu_hour_price": 3.6, "currency": HOSTILE[:12]}
    write_json(run.run_json, make_manifest(change_config(make_config(LABELS), {"cost": prices})))
    write_json(run.cost, Shifts((Shift(1_700_000_000.0, 100.0, 90.0, 50.0, gpus=2), Shift(1_700_000_200.0, 50.0, 50.0, 25.0, gpus=2))))
    told = _words(run)
    assert "GPU-seconds reserved (2 GPU) 280 31.11" in told  # in all, and of each of nine rows
    assert "GPU-seconds busy 150" in told
    assert f"{HOSTILE[:12]} 0.28 0.0311" in told
    assert "the energy is not known" in told
    # Thirty seconds from call to call, of which seven were busy.
    assert "1 30.00 7.00 23.3% 60.00 14.00 0.056" in told


@pytest.mark.usefixtures("_undrawn")
def test_a_round_that_was_learned_with_a_later_one_is_told_too(tmp_path: Path) -> None:
    found = Page(report_page(make_full_run(tmp_path / "run", together=(2,))))
    told = " ".join(found.text.split())
    assert "By round round by report macro F1 on validation" in told
    assert "2 1 6 3 50.0% 4 4,000 1,000 8.0 s 3 1 0.800" in told, "asked by the report on round 1, as round 3 was; and without a score"
    assert "teacher writes 24.0 s in all, student learns 19.0 s in all" in "\n".join(found.plots)
    assert "the run took less than both together" in told
    assert "by report" not in _words(make_full_run(tmp_path / "lock-step"))


def _words(run: RunDir) -> str:
    return " ".join(Page(report_page(run)).text.split())


def test_hostile_text_is_text(tmp_path: Path) -> None:
    """Nothing of it becomes a tag, an attribute or an invisible character: `Page` would find it."""
    labels = ("<b>bold</b>", "\x1b[2J\u202eabc$x^$", "日本語 " + "w" * 180)
    run = make_full_run(tmp_path / "run", 1, labels, text=HOSTILE)
    found = Page(report_page(run))
    assert "<img src=x onerror=alert(1)>" in found.text
    assert "{{ 7*7 }}" in found.text
    assert "<b>bold</b>" in found.text
    assert "日本語" in found.text
    assert "\\u202e\\x1b[2J" in found.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\uffff]", found.html)


@pytest.mark.usefixtures("_undrawn")
def test_a_run_that_stopped_after_a_round_says_what_is_missing(tmp_path: Path) -> None:
    found = Page(report_page(make_full_run(tmp_path / "run", 1, is_finished=False)))
    assert "The run is stopped, not finished" in found.text
    assert "There are no test scores" in found.text
    assert "There is no audit" in found.text
    assert any("F1 on validation of 3 labels" in plot for plot in found.plots)


@pytest.mark.usefixtures("_undrawn")
def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    empty = make_full_run(tmp_path / "run", 0, is_finished=False)
    found = Page(report_page(empty))
    assert "No round is complete" in found.text
    empty.report(0).unlink()
    for path in empty.table("evaluations").iterdir():
        path.unlink()
    found = Page(report_page(empty))
    assert "No student has been scored yet." in found.text
    assert found.plots == []


@pytest.mark.usefixtures("_undrawn")
def test_a_pruned_run_of_an_earlier_version(tmp_path: Path) -> None:
    """Without reports, intervals, calls and rows."""
    run = make_run(tmp_path / "run", [make_rows(1, LABELS)])
    prune(run, [Part.LOGS])
    found = Page(report_page(run))
    assert "The run was pruned and has no calls, checkpoints, journal, prompts, rejections, samples any more." in " ".join(
        found.text.split()
    )


@pytest.mark.usefixtures("_undrawn")
def test_150_labels_stay_readable(tmp_path: Path) -> None:
    labels = [f"label_{number:03}" for number in range(150)]
    run = make_full_run(tmp_path / "run", 1, labels, is_finished=False)
    found = Page(report_page(run))
    assert any(plot.startswith("F1 of all 150 labels in order") for plot in found.plots)
    assert any("the 20 of 150 labels that changed most" in plot for plot in found.plots)
    assert any("the 8 most confused labels" in plot for plot in found.plots)
    assert all(f"label_{number:03}" in found.text for number in range(150)), "the table has all"


@pytest.mark.usefixtures("_undrawn")
def test_keys_on_a_command_line_are_left_out(tmp_path: Path) -> None:
    servers = ({"command": ["vllm", "--api-key", "s3cret", "--hf-token=t0ken", "--dtype", "float32"], "url": "http://me:pa55@host/v1"},)
    run = make_full_run(tmp_path / "run", 1, is_finished=False, servers=servers)
    found = Page(report_page(run))
    assert "--dtype float32" in found.text
    assert not re.search("s3cret|t0ken|pa55", found.html)


@pytest.mark.usefixtures("_undrawn")
def test_a_kept_round_is_not_the_last(tmp_path: Path) -> None:
    run = make_full_run(tmp_path / "run", 1)
    add_report(run, 2, LABELS, 0.1, "later")
    found = Page(report_page(run))
    assert "student of round 1" in found.text
    assert any("best 0.600 after round 1" in plot for plot in found.plots)
