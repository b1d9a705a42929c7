"""The pages as people see them: what matters is on them, what was not found is not, and hostile text does nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from engine.reports import (
    Audit,
    Calibration,
    Change,
    ClassDifference,
    ClassDrift,
    ClassNoise,
    ClassScore,
    Comparison,
    Copies,
    Copy,
    Difference,
    Disagreement,
    Drift,
    Interval,
    Intervals,
    LabelNoise,
    MinedRow,
    Scores,
    Slice,
    Weakness,
)
from engine.views.reports import audit_view, comparison_view, scores_view, weakness_page
from tests.engine.builders import make_report

HOSTILE = "\x1b[2Jkettle [bold]broke[/bold]"
NOISE = LabelNoise(200, 20, 0.05, (ClassNoise("tool", 0.3, 20, 66, "fruit"),), (MinedRow(HOSTILE, "tool", "fruit", 0.97),))
COPIES = Copies(500, 0.7, 3, 1, (Copy("my kettle is broken", HOSTILE, 0.93),))
DRIFT = Drift(
    90, 500, 0.82, 0.0001, 0.12, 9.0, 14.0, 0.4, 0.21, 0.08, (ClassDrift("beast", 30, 100, 0.95), ClassDrift("tool", 30, 0, None))
)


def render(what: object) -> str:
    console = Console(width=200, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(what)
    text = capture.get()
    assert "\x1b" not in text
    return "\n".join(line.rstrip() for line in text.splitlines())


def test_the_surest_weakness_is_the_first_line_of_the_page() -> None:
    weakness = Weakness("pair:cancel>change", ("cancel", "change"), 8, 10, 0.49, (MinedRow(HOSTILE, "cancel", "change", 0.9),))
    page = render(weakness_page(make_report(round=2, weaknesses=(weakness,))))
    lines = page.splitlines()
    assert "after round 2" in lines[0]
    assert lines[2].split()[:5] == ["pair:cancel>change", "8", "10", "49%", "\\x1b[2Jkettle"]
    assert "[bold]broke[/bold] → change" in lines[2]
    assert len(lines) == 3


def test_what_changed_is_told_by_name_and_chance_as_a_number() -> None:
    changes = (
        Change("all", 30, 0.5, 0.7, 8, 2, 0.11),
        Change("pair:cancel>change", 10, 0.1, 0.9, 8, 0, 0.01),
        Change("class:track", 10, 0.9, 0.1, 0, 8, 0.02),
        Change("class:change", 10, 0.5, 0.4, 0, 1, 1.0),
    )
    page = render(weakness_page(replace(make_report(round=3), changes=changes)))
    assert "Since the report before: 0.50 → 0.70 right (8 of 30 rows fixed, 2 broken, p 0.110): within chance" in page
    assert "better: pair:cancel>change 0.10 → 0.90 right" in page
    assert "worse: class:track 0.90 → 0.10 right" in page
    assert "1 labels changed within chance" in page
    assert "class:change" not in page


def test_only_slices_beyond_chance_are_shown() -> None:
    slices = (Slice("length:long", "the longest quarter", 20, 0.4, 0.9, 0.0001), Slice("words:rare", "rare words", 20, 0.8, 0.9, 0.2))
    page = render(weakness_page(replace(make_report(), slices=slices)))
    assert "Worse on length:long (the longest quarter): 0.40 of 20 rows right, 0.90 of the others (p < 0.001)" in page
    assert "words:rare" not in page


def test_confidence_in_words() -> None:
    page = render(weakness_page(replace(make_report(), calibration=Calibration(0.8, 0.31, 2.5, 0.02))))
    assert "surer than right (mean confidence 0.80, accuracy 0.50, calibration error 0.310; 0.020 at temperature 2.50)" in page


def test_a_student_without_a_weakness() -> None:
    assert render(weakness_page(make_report(round=4))) == "No row of validation is missed after round 4."


def test_scores_with_their_intervals() -> None:
    span = Interval(0.4, 0.6)
    classes = (ClassScore("good", 0.9, 0.9, 0.9, 5), ClassScore("never", 0.0, 0.0, 0.0, 0), ClassScore("bad", 0.2, 0.2, 0.2, 5))
    page = render(scores_view(Scores(0.5, 0.5, 0.5, 10, 0.3), classes, Intervals(span, span, span, span), Calibration(0.5, 0.1, 1.1, 0.05)))
    assert "0.400 to 0.600" in page
    assert "1 of 3 labels have no row here" in page
    order = [line.split()[0] for line in page.splitlines()[-3:]]
    assert order == ["bad", "good", "never"]


def test_an_audit() -> None:
    page = render(audit_view(Audit(NOISE, COPIES, DRIFT, 1.0)))
    assert "20 of 200 rows (10.0%) seem to have a wrong label; of validation rows it would be 5.0%" in page
    assert "\\x1b[2Jkettle [bold]broke[/bold]" in page
    assert "of 500 teacher rows 3 are nearly a seed row, 1 nearly another teacher row" in page
    assert "82% of the time (50 % is guessing, p < 0.001)" in page
    assert "most unlike real rows: beast 95%" in page
    assert "labels without a teacher row: tool" in page


def test_an_audit_that_had_nothing_to_look_at() -> None:
    assert "not known" in render(audit_view(Audit(None, None, None, 0.0)))
    few = replace(DRIFT, separability=None, p_value=None)
    assert "too few rows" in render(audit_view(Audit(None, None, few, 0.0)))


def test_a_comparison_says_what_it_means_first() -> None:
    comparison = Comparison(
        num_rows=60,
        agreed=49,
        fixed=10,
        broken=1,
        p_value=0.0117,
        differences=(Difference("macro F1", 0.8, 0.9, Interval(0.02, 0.18), 0.004),),
        classes=(ClassDifference("pear", 20, 0.6, 0.9, 10, 0, 0.006), ClassDifference("plum", 20, 0.9, 0.9, 0, 0, 1.0)),
        gained=(Disagreement(HOSTILE, "pear", "plum", 0.9, "pear", 0.8),),
        lost=(),
        verdict="The second student is better (in words).",
    )
    page = render(comparison_view(comparison, Path("runs/a"), Path("runs/b")))
    lines = page.splitlines()
    assert lines[:2] == ["first:  runs/a", "second: runs/b"]
    assert lines[3] == "The second student is better (in words)."
    assert "+0.020 to +0.180" in page
    assert "plum (0.90)" in page
    assert "Right by the first only" not in page
    assert not any(line.startswith("plum") for line in lines)
