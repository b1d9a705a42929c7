"""The page about one run: what each of its tables says. How a plot is drawn stands in `plots`, how a page is made in `page`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from engine.cost.words import COST_COLUMNS, amount, cost_rows
from engine.export.card import MEANING
from engine.html_report import course_plots, score_plots
from engine.html_report.findings import Findings, gather
from engine.html_report.page import decimal, duration, grouped, percent, render_page, signed
from engine.html_report.svg import Sheet
from engine.records import Span
from engine.reports import MinedRow, WeaknessReport
from engine.rundir import RunDir
from engine.runs.figures import RunFigures
from engine.text import whole
from engine.views.display import speed_line
from engine.views.reports import calibration_line
from engine.views.variants import VariantFigures, compared, read_variants
from engine.watching.bottleneck import combine

Line: TypeAlias = tuple[object, ...]

SECTIONS = (
    ("outcome", "Outcome"),
    ("score", "Score"),
    ("classes", "Labels"),
    ("confusion", "Confusion"),
    ("rows", "Rows"),
    ("speed", "Speed"),
    ("cost", "Cost"),
    ("weaknesses", "Weaknesses"),
    ("samples", "Sample rows"),
    ("audit", "Audit"),
    ("configuration", "Configuration"),
    ("provenance", "Provenance"),
)
"""Anchor and name."""
_ROUND_COLUMNS = (
    *("macro F1 on validation", "95 % interval", "loss", "training rows", "asked", "accepted", "yield", "calls"),
    *("prompt tokens", "output tokens", "seconds writing", "seconds learning"),
)
_MOST = 15
"""Lines of a table that has no end of its own."""
_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
_SECRET_FLAG = re.compile(r"--[\w-]*(?:key|token|password|secret)")
_HIDDEN = "(left out)"
CLASS_PLOTS = (score_plots.class_order, score_plots.class_scores)


def report_page(run: RunDir) -> str:
    """The run as HTML, finished or not. StoreError if what lies there cannot be read."""
    found, sheet = gather(run), Sheet()
    figures, rounds = found.figures, found.rounds
    content = {
        "found": found,
        "sections": SECTIONS,
        "encoder": Path(figures.encoder).name,
        "score_plots": [score_plots.score_by_round(sheet, figures), score_plots.score_by_token(sheet, [figures])] if figures.curve else [],
        "class_plots": [plot(sheet, found.by_class) for plot in CLASS_PLOTS] if found.by_class else [],
        "confusion_plots": score_plots.confusion_matrices(sheet, found.by_class) if found.by_class else [],
        "row_plots": [
            course_plots.rows_by_round(sheet, rounds) if rounds else None,
            course_plots.reasons_by_round(sheet, [record.round for record in rounds], found.reasons),
        ],
        "speed_plots": [
            course_plots.speed_over_time(sheet, found.timeline) if found.timeline else None,
            course_plots.in_flight_over_time(sheet, found.timeline) if found.timeline else None,
            course_plots.limits_by_round(sheet, rounds),
        ],
        "cost_plots": [
            course_plots.seconds_by_round(sheet, figures.curve, rounds) if figures.curve else None,
            course_plots.tokens_per_row(sheet, rounds),
            course_plots.busy_by_round(sheet, found.round_times),
        ],
        "round_columns": ("round", *(("by report",) if course_plots.is_ahead(rounds) else ()), *_ROUND_COLUMNS),
        "round_rows": _round_rows(found),
        "class_rows": _class_rows(found),
        "confusion_rows": _confusion_rows(found),
        "reason_rows": [
            (example.reason, MEANING.get(example.reason, ""), grouped(example.rows), example.detail, example.raw)
            for example in found.examples
        ],
        "variant_rows": [_variant_line(one) for one in compared(read_variants(run))],
        "speed": _speed(found),
        "amount_rows": _amount_rows(figures),
        "cost_columns": COST_COLUMNS,
        "cost_rows": cost_rows(figures.cost) if figures.cost else [],
        "cost_notes": figures.cost.notes if figures.cost else (),
        "round_costs": _round_costs(found),
        **_weakness_content(found.newest),
        **_audit_content(found),
        "config_rows": list(_settings(found.manifest.config)),
        "label_rows": [(label["name"], label["description"]) for label in found.manifest.config["task"]["labels"]],
        "provenance_rows": list(_provenance(found)),
    }
    return render_page("report.jinja", f"{figures.name}: report of a Reflux run", sheet, content)


def _round_rows(found: Findings) -> list[Line]:
    """Without scores where the student learned a round with a later one, or has not yet."""
    records = {record.round: record for record in found.rounds}
    points = {point.round: point for point in found.figures.curve}
    has_reports = course_plots.is_ahead(found.rounds)
    lines: list[Line] = []
    for number in sorted(records.keys() | points.keys()):
        record, point = records.get(number), points.get(number)
        line: list[object] = [number]
        if has_reports:
            line.append("" if record is None else record.report)
        if point is None:
            line += [""] * 4
        else:
            span = f"{decimal(point.interval.low)} to {decimal(point.interval.high)}" if point.interval else ""
            line += [decimal(point.macro_f1), span, decimal(point.loss), grouped(point.train_rows)]
        if record is None:
            line += [""] * 7
        else:
            rows = record.rows
            share = rows.accepted / rows.requested if rows.requested else None
            line += [grouped(rows.requested), grouped(rows.accepted), percent(share), grouped(record.calls)]
            line += [grouped(record.prompt_tokens), grouped(record.completion_tokens), duration(record.generation_s)]
        lines.append((*line, "" if point is None else duration(point.train_s)))
    return lines


def _class_rows(found: Findings) -> list[Line]:
    if found.by_class is None:
        return []
    return [
        (
            pair.label,
            pair.support,
            decimal(pair.before),
            decimal(pair.after),
            "" if pair.before is None else signed(pair.after - pair.before),
        )
        for pair in found.by_class.classes
    ]


def _confusion_rows(found: Findings) -> list[Line]:
    if found.by_class is None:
        return []
    return [
        (pair.label, pair.predicted, pair.before, pair.after, f"{pair.after - pair.before:+d}")
        for pair in found.by_class.confusions[:_MOST]
    ]


def _variant_line(one: VariantFigures) -> Line:
    """One wording of a template."""
    rate = "" if one.rows_per_1000_tokens is None else f"{one.rows_per_1000_tokens:.2f}"
    tokens = grouped(one.prompt_tokens + one.completion_tokens)
    return (
        one.template,
        one.variant,
        grouped(one.assignments),
        grouped(one.requested),
        grouped(one.accepted),
        tokens,
        rate,
        signed(one.gain),
    )


def _speed(found: Findings) -> str:
    flow = combine(found.rounds)
    return speed_line(flow.tokens_per_s, flow.roofline_share, flow.limited_s)


def _round_costs(found: Findings) -> tuple[tuple[str, ...], list[Line]]:
    """Headings and a line a round; of GPUs and money only where the run has them. Money is by the time of the whole run."""
    cost = found.figures.cost
    accepted = {record.round: record.rows.accepted for record in found.rounds}
    columns = ["round", "seconds reserved", "seconds busy", "busy share"]
    if cost and cost.gpus:
        columns += ["GPU-seconds reserved", "GPU-seconds busy"]
    if cost and cost.money is not None:
        columns += [cost.currency, f"{cost.currency} an accepted row"]
    lines: list[Line] = []
    for times in found.round_times:
        busy = percent(times.busy_s / times.reserved_s) if times.reserved_s else ""
        line: list[object] = [times.round, amount(times.reserved_s), amount(times.busy_s), busy]
        if cost and cost.gpus:
            line += [amount(times.reserved_s * cost.gpus), amount(times.busy_s * cost.gpus)]
        if cost and cost.money is not None:
            money = cost.money * times.reserved_s / cost.wall_s if cost.wall_s else 0.0
            rows = accepted.get(times.round)
            line += [amount(money), amount(money / rows if rows else None)]
        lines.append(tuple(line))
    return tuple(columns), lines


def _amount_rows(figures: RunFigures) -> list[Line]:
    """By row and by point of F1. A run that gained nothing has no price by point."""
    contrast = figures.test or figures.validation
    points = 100 * contrast.gain if contrast and contrast.gain > 0 else None
    lines: list[Line] = []
    for name, count in (
        ("prompt tokens", figures.prompt_tokens),
        ("output tokens", figures.completion_tokens),
        ("teacher tokens", figures.tokens),
        ("accepted rows", figures.rows.accepted),
    ):
        per_row = count / figures.rows.accepted if figures.rows.accepted and name != "accepted rows" else None
        lines.append((name, grouped(count), "" if per_row is None else f"{per_row:,.1f}", _per_point(count, points)))
    for name, seconds in (
        ("seconds in which the teacher wrote", figures.generation_s),
        ("seconds in which the student learned", figures.train_s),
        ("seconds of work on the run, but for killed processes", figures.wall_s),
    ):
        per_row = seconds / figures.rows.accepted if figures.rows.accepted else None
        lines.append((name, f"{seconds:,.1f}", "" if per_row is None else f"{per_row:.3g}", _per_point(seconds, points)))
    return lines


def _per_point(amount: float, points: float | None) -> str:
    return "no gain" if points is None else f"{amount / points:,.1f}"


def _weakness_content(report: WeaknessReport | None) -> dict[str, Any]:
    if report is None:
        return {"weakness_rows": [], "weakness_notes": [], "change_rows": []}
    notes = [
        f"Worse on {found.name} ({found.meaning}): {found.accuracy:.2f} of {found.num_rows} rows right, else {found.rest_accuracy:.2f}"
        for found in report.slices
        if found.is_weak
    ]
    if report.calibration:
        notes.append(calibration_line(report.calibration, report.scores))
    return {
        "weakness_rows": [
            (weakness.name, weakness.missed, weakness.num_rows, percent(weakness.at_least), *_example(weakness.examples))
            for weakness in report.weaknesses[:_MOST]
        ],
        "weakness_notes": notes,
        "change_rows": [
            (
                *(change.name, change.num_rows, decimal(change.before), decimal(change.after), change.fixed, change.broken),
                *("< 0.001" if change.p_value < 0.001 else decimal(change.p_value), "yes" if change.is_real else ""),
            )
            for change in report.changes[:_MOST]
        ],
    }


def _example(rows: Sequence[MinedRow]) -> Line:
    return (whole(rows[0].content), _said(rows[0])) if rows else ("", "")


def _said(row: MinedRow) -> str:
    return row.predicted or _marked(row.text, row.predicted_spans) or ", ".join(row.predicted_labels)


def _marked(text: str, spans: Sequence[Span]) -> str:
    """The entities of a text; nothing where a text has a label instead."""
    return ", ".join(f"{text[span.start : span.end]} ({span.type})" for span in spans)


def _audit_content(found: Findings) -> dict[str, Any]:
    audit = found.audit
    return {
        "noise_rows": [
            (
                row.label or _marked(row.text, row.spans),
                row.predicted or _marked(row.text, row.predicted_spans),
                f"{row.confidence:.2f}",
                whole(row.content),
            )
            for row in (audit.noise.suspects[:_MOST] if audit and audit.noise else ())
        ],
        "copy_rows": [
            (f"{copy.similarity:.2f}", copy.text, copy.original)
            for copy in (audit.copies.examples[:_MOST] if audit and audit.copies else ())
        ],
        "drift_rows": [
            (
                drift.label,
                drift.real,
                drift.synthetic,
                "too few rows" if drift.separability is None else percent(max(0.5, drift.separability)),
            )
            for drift in (audit.drift.classes[:_MOST] if audit and audit.drift else ())
        ],
    }


def _settings(config: Mapping[str, Any], prefix: str = "") -> Iterator[Line]:
    """Each key with its value, without the labels, which have a table of their own."""
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _settings(value, f"{key}.")
        elif key != "task.labels":
            yield key, " ".join(_without_secrets(value)) if _is_words(value) else _IN_URL.sub("", json.dumps(value, ensure_ascii=False))


def _provenance(found: Findings) -> Iterator[Line]:
    figures, manifest, final = found.figures, found.manifest, found.final
    yield "folder", figures.path
    yield "begun", figures.created_at
    for teacher in (manifest.config["teacher"], *manifest.config.get("teachers", ())):
        yield "teacher", teacher["model"]
    yield "weights of the teacher", figures.teacher_revision or "not known (asked over the network, or not started yet)"
    for number, server in enumerate(dict.fromkeys(map(_server_line, manifest.servers)), start=1):
        yield f"server {number}", server
    yield "student", f"{figures.encoder}, {final.num_parameters:,} parameters, {final.precision}" if final else figures.encoder
    for name, version in manifest.versions.items():
        yield f"version of {name}", version
    for split, digest in manifest.data.items():
        yield f"digest of {split} rows", digest
    for leak in manifest.leaks:
        yield "leak", leak


def _server_line(server: Mapping[str, Any]) -> str:
    """How a server was started, or where it was found, with all flags."""
    command = server.get("command")
    started = f"{shlex.join(_without_secrets(command))} " if command and _is_words(command) else ""
    rest = {name: value for name, value in server.items() if name != "command"}
    return started + (_IN_URL.sub("", json.dumps(rest, ensure_ascii=False)) if rest else "")


def _is_words(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(word, str) for word in value)


def _without_secrets(words: Sequence[str]) -> list[str]:
    """A report is passed on; keys on a server's command line are not."""
    kept: list[str] = []
    for word, before in zip(words, ["", *words], strict=False):
        flag, equals, _ = word.partition("=")
        is_value = _SECRET_FLAG.fullmatch(before) is not None and not word.startswith("--")
        is_both = bool(equals) and _SECRET_FLAG.fullmatch(flag) is not None
        kept.append(_HIDDEN if is_value else f"{flag}={_HIDDEN}" if is_both else _IN_URL.sub("", word))
    return kept
