"""Runs with all that a page may tell of one, without an engine or a student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from msgspec import structs

from engine.records import Annotation, Finish, RoundRecord, RowCounts, Span, Timings
from engine.reports import (
    Audit,
    Calibration,
    Change,
    ClassDrift,
    ClassNoise,
    ClassScore,
    Confusion,
    Copies,
    Copy,
    Drift,
    FinalReport,
    Interval,
    Intervals,
    LabelNoise,
    MinedRow,
    Scores,
    Slice,
    StudentScores,
    Weakness,
    WeaknessReport,
)
from engine.rundir import RunDir, write_json
from engine.store import Evaluation
from engine.store.schemas import pack_calls, pack_evaluations, pack_rejections, pack_rounds, pack_samples
from engine.store.segments import write_segment
from engine.text import readable
from tests.engine.builders import make_report
from tests.engine.run_folders import LABELS, make_config, make_manifest, make_rows
from tests.engine.store.builders import make_call, make_completion, make_rejection

SUPPORT = 20


def make_full_run(
    root: Path,
    rounds: int = 3,
    labels: Sequence[str] = LABELS,
    *,
    text: str = "where is my parcel",
    is_finished: bool = True,
    f1: float = 0.4,
    together: Sequence[int] = (),
    **manifest: object,
) -> RunDir:
    """`text` stands wherever a teacher or a row speaks. A label gets better by a tenth a round, from `f1` on. Rounds
    `together` were learned with the one after them.
    """
    run = RunDir(root)
    run.create()
    write_json(run.run_json, make_manifest(make_config(labels), wall_s=60.0 * rounds, **manifest))
    reported = [round for round in range(rounds + 1) if round not in together]
    for round in reported:
        add_report(run, round, labels, f1, text)
    for round in range(1, rounds + 1):
        add_round(run, round, labels, text, report=max(number for number in reported if number < round))
    if is_finished:
        finish_full_run(run, rounds, labels, f1, text)
    return run


def add_round(run: RunDir, round: int, labels: Sequence[str], text: str, report: int) -> None:
    rows = make_rows(round, labels, [f"{text} {round} {number}" for number in range(len(labels))])
    marked = structs.replace(rows[0], annotation=Annotation(spans=(Span(0, min(5, len(text)), text[:20]),)))
    write_segment(run.table("samples"), pack_samples([marked, *rows[1:]]))
    rejection = structs.replace(make_rejection(f"{round:02x}ff-0", round=round), raw=text, detail=text, text=text)
    write_segment(run.table("rejections"), pack_rejections([rejection, structs.replace(rejection, id=f"{round:02x}ff-1")]))
    calls = [
        structs.replace(make_call(f"{round:02x}{number:02x}", round), outcome=structs.replace(
            make_completion(f"{round:02x}{number:02x}"), timings=Timings(1_700_000_000.0 + 30 * round + number, 4.0, 1)
        ))
        for number in range(4)
    ]  # fmt: skip
    write_segment(run.table("calls"), pack_calls(calls))
    counts = RowCounts(requested=len(labels) + 3, accepted=len(labels), rejected=2, failed=1)
    record = RoundRecord(round, report, 4, 4, counts, 4000, 1000, 8.0, {}, {"compute": 5.0, "supply": 2.0, text[:30]: 1.0}, 200.0)
    write_segment(run.table("rounds"), pack_rounds([record]))


def add_report(run: RunDir, round: int, labels: Sequence[str], f1: float, text: str) -> None:
    report = make_full_report(round, labels, f1, text)
    write_json(run.report(round), report)
    evaluation = Evaluation(round, "validation", report.scores, report.classes, report.loss, report.num_train_rows, report.train_s, 3)
    write_segment(run.table("evaluations"), pack_evaluations([evaluation]))


def make_full_report(round: int, labels: Sequence[str], f1: float, text: str) -> WeaknessReport:
    scores = class_scores(labels, f1, round)
    text = readable(text)  # as a student writes it: no JSON holds half a surrogate pair
    row = MinedRow(text, labels[0], labels[1], 0.97)
    report = make_report(round, loss=1 - round / 10, f1={score.label: score.f1 for score in scores})
    return replace(
        report,
        scores=replace(report.scores, num_rows=SUPPORT * len(labels)),
        classes=scores,
        confusions=confusions(labels, scores),
        num_train_rows=len(labels) * (round + 1),
        train_s=5.0 + round,
        weaknesses=(Weakness(f"pair:{labels[0]}>{labels[1]}", (labels[0], labels[1]), 8, SUPPORT, 0.22, (row,)),),
        slices=(Slice("length:long", text, 20, 0.4, 0.9, 0.0001),),
        changes=(Change("all", 60, 0.5, 0.7, 14, 2, 0.004), Change(f"class:{labels[0]}", 20, 0.4, 0.5, 3, 1, 0.6)) if round else (),
        intervals=around(report.scores.macro_f1),
        calibration=Calibration(0.8, 0.31, 2.5, 0.02),
    )


def finish_full_run(run: RunDir, rounds: int, labels: Sequence[str], f1: float, text: str) -> None:
    before, after = (make_student_scores(round, labels, f1) for round in (0, rounds))
    write_json(run.final_report, FinalReport(before, after, "minilm", 22_700_000, "float32"))
    write_json(run.finish, Finish(best_round=rounds, rounds=rounds, reason="the score has settled"))
    text = readable(text)
    row = MinedRow(text, labels[0], labels[1], 0.97)
    noise = LabelNoise(200, 20, 0.05, (ClassNoise(labels[0], 0.3, 20, 66, labels[1]),), (row,))
    copies = Copies(500, 0.7, 3, 1, (Copy(text, text, 0.93),))
    drift = Drift(
        90, 500, 0.82, 0.0001, 0.12, 9.0, 14.0, 0.4, 0.21, 0.08, (ClassDrift(labels[0], 30, 100, 0.95), ClassDrift(labels[1], 30, 0, None))
    )
    write_json(run.audit, Audit(noise, copies, drift, 1.0))
    write_json(run.summary, {})


def make_student_scores(round: int, labels: Sequence[str], f1: float) -> StudentScores:
    classes = class_scores(labels, f1, round)
    mean = sum(score.f1 for score in classes) / len(classes)
    return StudentScores(round, Scores(mean, mean, mean, SUPPORT * len(labels), mean), classes, confusions(labels, classes), around(mean))


def class_scores(labels: Sequence[str], f1: float, round: int) -> tuple[ClassScore, ...]:
    """No two labels alike, and all between 0 and 1."""
    values = [min(1.0, f1 + 0.1 * round + 0.3 * number / len(labels)) for number in range(len(labels))]
    return tuple(ClassScore(label, value, value, value, SUPPORT) for label, value in zip(labels, values, strict=True))


def confusions(labels: Sequence[str], scores: Sequence[ClassScore]) -> tuple[Confusion, ...]:
    """What is missed of a label is taken for the one behind it."""
    pairs = zip(scores, [*labels[1:], labels[0]], strict=True)
    found = [Confusion(score.label, other, round(SUPPORT * (1 - score.f1))) for score, other in pairs]
    return tuple(sorted((item for item in found if item.count), key=lambda item: -item.count))


def around(score: float) -> Intervals:
    span = Interval(score - 0.05, score + 0.05)
    return Intervals(span, span, span, span)
