"""The page that sets runs side by side."""

from __future__ import annotations

from engine.html_report import score_plots
from engine.html_report.page import decimal, render_page, signed
from engine.html_report.svg import Sheet
from engine.runs.comparison import RunComparison
from engine.views.comparison import figure_lines, letter


def comparison_page(comparison: RunComparison) -> str:
    """The comparison as HTML."""
    sheet = Sheet()
    scored = any(run.curve for run in comparison.runs)
    content = {
        "found": comparison,
        "letters": tuple(map(letter, range(len(comparison.runs)))),
        "score_plots": [score_plots.score_by_token(sheet, comparison.runs)] if scored else [],
        "figure_rows": figure_lines(comparison),
        "class_rows": [
            (shift.label, shift.support, decimal(shift.first), decimal(shift.second), signed(shift.second - shift.first))
            for shift in (comparison.classes.shifts if comparison.classes else ())
        ],
    }
    return render_page("comparison.jinja", "Reflux runs compared", sheet, content)
