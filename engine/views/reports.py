"""Reports on a student as pages for people. Numbers come with what is known of their luck; a part that has nothing to say is left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from engine.records import Span
from engine.reports import (
    Audit,
    Calibration,
    Change,
    ClassScore,
    Comparison,
    Copies,
    Disagreement,
    Drift,
    Interval,
    Intervals,
    LabelNoise,
    MinedRow,
    Scores,
    Slice,
    WeaknessReport,
)
from engine.text import whole
from engine.views.display import bar, inert, label_words, plain_table

_EXAMPLE_CHARS = 100
_MOST = 8
"""Weaknesses, labels or changes on a page; the JSON has all."""


def weakness_page(report: WeaknessReport) -> RenderableType:
    """Where the student is weak, the surest first; what has changed since the round before; whether its confidence can be believed."""
    parts: list[RenderableType] = []
    if report.weaknesses:
        lines = [
            (weakness.name, weakness.missed, weakness.num_rows, f"{weakness.at_least:.0%}", _example(weakness.examples))
            for weakness in report.weaknesses[:_MOST]
        ]
        rows = f"of {report.scores.counted}"
        columns = ("weakness", "missed", rows, "at least", "such a row that the student was tried on")
        parts.append(plain_table(columns, lines, title=f"Weaknesses on validation after round {report.round}, the surest first"))
    else:
        parts.append(Text(f"No row of validation is missed after round {report.round}.", style="bold"))
    weak = [found for found in report.slices if found.is_weak]
    notes = [_slice_line(found) for found in weak]
    if report.calibration:
        notes.append(calibration_line(report.calibration, report.scores))
    notes += _change_lines(report)
    return Group(*parts, *(inert(line, max_chars=1000) for line in notes))


def scores_view(
    scores: Scores, classes: Sequence[ClassScore], intervals: Intervals | None = None, calibration: Calibration | None = None
) -> RenderableType:
    """One student on one set of rows, the weakest label first; labels without rows last."""
    headline = [
        (name, value, _span(interval), bar(value))
        for name, value, interval in (
            ("macro F1", scores.macro_f1, intervals and intervals.macro_f1),
            ("accuracy", scores.accuracy, intervals and intervals.accuracy),
            ("weighted F1", scores.weighted_f1, intervals and intervals.weighted_f1),
            ("MCC", scores.mcc, intervals and intervals.mcc)
            if scores.micro_f1 is None
            else ("micro F1", scores.micro_f1, intervals and intervals.micro_f1),
        )
    ]
    marks_spans = scores.counted == "entities"
    by_label = [
        (row.label, row.precision, row.recall, row.f1, row.support, bar(row.f1))
        for row in sorted(classes, key=lambda row: (row.support == 0, row.f1))
    ]
    parts: list[RenderableType] = [plain_table(("", "", "95 % interval", ""), headline, title=f"On {scores.num_rows} rows")]
    if calibration:
        parts.append(inert(calibration_line(calibration, scores)))
    unseen = sum(row.support == 0 for row in classes)
    if unseen:
        what, things = ("types", "entity") if marks_spans else ("labels", "row")
        parts.append(inert(f"{unseen} of {len(classes)} {what} have no {things} here: macro F1 counts each of them as 0."))
    if marks_spans:
        parts.append(inert("Accuracy is of whole texts; F1 of entities, found when their type and both ends are right."))
    if scores.has_sets:
        parts.append(inert("Accuracy is of whole texts, all labels right; micro F1 of all labels together."))
    label, rows = ("type", "entities") if marks_spans else ("label", "rows")
    return Group(*parts, "", plain_table((label, "precision", "recall", "F1", rows, ""), by_label, title=f"By {label}"))


def comparison_view(comparison: Comparison, first: Path, second: Path) -> RenderableType:
    """What it means first, then the figures, then rows to look at."""
    differences = [
        (found.name, found.first, found.second, f"{found.second - found.first:+.3f}", _span(found.interval, signed=True), _p(found.p_value))
        for found in comparison.differences
    ]
    changed = [found for found in comparison.classes if found.fixed + found.broken]
    classes = [
        (
            *(found.label, found.support, found.first, found.second, f"{found.second - found.first:+.3f}", found.fixed, found.broken),
            _p(found.p_value),
            "yes" if found.is_real else "",
        )
        for found in changed[:_MOST]
    ]
    both = (
        f"They agree on {comparison.agreed} of {comparison.num_rows} rows. The second gets {comparison.fixed} right that the first misses, "
        f"and misses {comparison.broken} that the first gets right (McNemar p {_p(comparison.p_value)})."
    )
    parts: list[RenderableType] = [
        Text.assemble("first:  ", inert(first)),
        Text.assemble("second: ", inert(second)),
        "",
        Text.assemble((inert(comparison.verdict, max_chars=1000).plain, "bold")),
        inert(both),
        "",
        plain_table(("", "first", "second", "difference", "95 % interval", "p"), differences),
    ]
    if classes:
        columns = ("label", "rows", "F1 first", "F1 second", "difference", "fixed", "broken", "p", "beyond chance")
        parts += ["", plain_table(columns, classes, title="Labels that changed, the least likely by chance first")]
    for title, rows in (("Right by the second only", comparison.gained), ("Right by the first only", comparison.lost)):
        if rows:
            parts += ["", _disagreements(title, rows)]
    return Group(*parts)


def audit_view(audit: Audit) -> RenderableType:
    """The training rows as a whole."""
    parts: list[RenderableType] = [Text("Training rows", style="bold")]
    parts += (
        _noise_parts(audit.noise)
        if audit.noise
        else [inert(f"Label noise: {audit.without_noise or 'not known, as no row was predicted by a student without it'}.")]
    )
    if audit.copies:
        parts += _copy_parts(audit.copies)
    if audit.drift:
        parts += _drift_parts(audit.drift)
    return Group(*parts)


def calibration_line(calibration: Calibration, scores: Scores) -> str:
    right = scores.accuracy if calibration.precision is None else calibration.precision
    what = "accuracy" if calibration.precision is None else "precision"
    surplus = calibration.confidence - right
    how = "about as right as it is sure" if abs(surplus) < 0.02 else "surer than right" if surplus > 0 else "more right than sure"
    return (
        f"Confidence: {how} (mean confidence {calibration.confidence:.2f}, {what} {right:.2f}, calibration error "
        f"{calibration.ece:.3f}; {calibration.ece_scaled:.3f} at temperature {calibration.temperature:.2f})"
    )


def _change_lines(report: WeaknessReport) -> list[str]:
    """What is beyond chance by name, the rest as a number."""
    if not report.changes:
        return []
    overall, *others = report.changes
    since = "Since the report before"
    lines = [f"{since}: {_change_line(overall)}" + ("" if overall.is_real else ": within chance")]
    for word, found in (
        ("better", [change for change in others if change.is_real and change.fixed > change.broken]),
        ("worse", [change for change in others if change.is_real and change.broken > change.fixed]),
    ):
        lines += [f"  {word}: {change.name} {_change_line(change)}" for change in found[:_MOST]]
    rest = sum(not change.is_real for change in others)
    if rest:
        lines.append(f"  {rest} labels changed within chance")
    return lines


def _change_line(change: Change) -> str:
    rows = f"{change.fixed} of {change.num_rows} rows fixed, {change.broken} broken"
    return f"{change.before:.2f} → {change.after:.2f} right ({rows}, p {_p(change.p_value)})"


def _slice_line(found: Slice) -> str:
    return (
        f"Worse on {found.name} ({found.meaning}): {found.accuracy:.2f} of {found.num_rows} rows right, {found.rest_accuracy:.2f} of the "
        f"others (p {_p(found.p_value)})"
    )


def _noise_parts(noise: LabelNoise) -> list[RenderableType]:
    clean = "" if noise.clean_share is None else f"; of validation rows it would be {noise.clean_share:.1%}, which are only hard"
    parts: list[RenderableType] = [
        inert(f"Label noise: {noise.suspected} of {noise.num_rows} rows ({noise.share:.1%}) seem to have a wrong label{clean}")
    ]
    if noise.classes:
        lines = [(found.label, found.suspected, found.num_rows, f"{found.share:.0%}", found.instead) for found in noise.classes[:_MOST]]
        parts += [plain_table(("label", "suspected", "of rows", "", "mostly seem to be"), lines)]
    if noise.suspects:
        rows = [
            (row.label or _marked(row.text, row.spans), row.predicted or _marked(row.text, row.predicted_spans), row.confidence)
            for row in noise.suspects[:_MOST]
        ]
        texts = [inert(whole(row.content), _EXAMPLE_CHARS) for row in noise.suspects[:_MOST]]
        parts += [plain_table(("labelled", "seems to be", "sure", "row"), [(*row, text) for row, text in zip(rows, texts, strict=True)])]
    return parts


def _copy_parts(copies: Copies) -> list[RenderableType]:
    line = (
        f"Copies: of {copies.num_rows} teacher rows {copies.of_seed} are nearly a seed row, {copies.of_teacher} nearly another teacher row "
        f"({copies.similarity:g} or more alike)"
    )
    examples = [
        (copy.similarity, inert(copy.text, _EXAMPLE_CHARS), inert(copy.original, _EXAMPLE_CHARS)) for copy in copies.examples[:_MOST]
    ]
    return [inert(line), plain_table(("alike", "row", "like"), examples)] if examples else [inert(line)]


def _drift_parts(drift: Drift) -> list[RenderableType]:
    if drift.separability is None:
        apart = "too few rows to tell real from teacher rows"
    else:
        share = max(0.5, drift.separability)
        apart = f"a linear model tells a real from a teacher row {share:.0%} of the time (50 % is guessing, p {_p(drift.p_value)})"
    lines = [
        f"Drift: {apart}; label mix {drift.mix_distance:.0%} apart; median length {drift.real_words:g} words real, "
        f"{drift.synthetic_words:g} teacher; {drift.missing_words:.0%} of real words in no teacher row, {drift.new_words:.0%} of the "
        "teacher's in no real row"
    ]
    told = [found for found in drift.classes if found.separability is not None and found.separability >= 0.8][:_MOST]
    if told:
        names = ", ".join(f"{found.label} {found.separability:.0%}" for found in told)
        lines.append(f"  most unlike real rows: {names}")
    untaught = [found.label for found in drift.classes if found.real and not found.synthetic]
    if untaught:
        lines.append(f"  labels without a teacher row: {', '.join(untaught[:_MOST])}")
    return [inert(line, max_chars=1000) for line in lines]


def _disagreements(title: str, rows: Sequence[Disagreement]) -> RenderableType:
    lines = [
        (
            row.label,
            f"{row.first} ({row.first_confidence:.2f})",
            f"{row.second} ({row.second_confidence:.2f})",
            inert(row.text, _EXAMPLE_CHARS),
        )
        for row in rows
    ]
    return plain_table(("label", "first says", "second says", "row"), lines, title=title)


def _example(rows: Sequence[MinedRow]) -> Text:
    if not rows:
        return inert(None)
    row, text, spans = rows[0], rows[0].text, rows[0].predicted_spans
    said = row.predicted or (_marked(text, spans) if row.spans or spans else label_words("", row.predicted_labels))
    return inert(f"{whole(row.content)} → {said}", _EXAMPLE_CHARS)


def _marked(text: str, spans: Sequence[Span]) -> str:
    """The entities of a text in a few words."""
    return ", ".join(f"{text[span.start : span.end]} ({span.type})" for span in spans) or "no entity"


def _span(interval: Interval | None, *, signed: bool = False) -> str:
    if interval is None:
        return ""
    return f"{interval.low:+.3f} to {interval.high:+.3f}" if signed else f"{interval.low:.3f} to {interval.high:.3f}"


def _p(p_value: float | None) -> str:
    return "" if p_value is None else "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
