"""The figures of one run, as they are set beside those of others. Read while it goes on, too: what is not there yet is None, never 0.

Teacher tokens are prompt and output tokens together, as the servers counted them, of completed rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from engine.config import CostConfig
from engine.cost.cost import Cost, reckon
from engine.cost.meter import read_shifts
from engine.records import Finish, RoundRecord, RowCounts, Totals
from engine.reports import ClassScore, FinalReport, Interval, Intervals, Scores, WeaknessReport
from engine.rundir import RunDir, read_json
from engine.runs.inventory import State, find_state
from engine.runs.manifest import Manifest, teacher_revision
from engine.store import read_rounds, run_query, unescape

_EVALUATIONS = """
select round, split, accuracy, macro_f1, weighted_f1, num_rows, coalesce(mcc, 0) as mcc, loss, num_train_rows, train_s, classes
from evaluations order by round
"""


@dataclass(frozen=True, slots=True)
class Scored:
    """One student on one split."""

    round: int
    scores: Scores
    intervals: Intervals | None
    """None in runs of earlier versions."""
    classes: tuple[ClassScore, ...]

    @property
    def interval(self) -> Interval | None:
        return self.intervals and self.intervals.macro_f1


@dataclass(frozen=True, slots=True)
class Contrast:
    """The student of the seed rows and a later one, on the same rows."""

    before: Scored
    after: Scored
    gain: float
    """In macro F1."""
    gain_per_1000_tokens: float | None
    """The same by teacher tokens up to the later student's round; None before any was spent."""


@dataclass(frozen=True, slots=True)
class Point:
    """The run at the end of a round, on validation."""

    round: int
    macro_f1: float
    interval: Interval | None
    loss: float | None
    train_rows: int
    accepted: int
    """Up to this round, as the next two are."""
    tokens: int
    busy_s: float
    """Seconds in which the teacher wrote or the student learned; each is counted where both did."""
    train_s: float
    """Of this round alone."""


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What a run asked, took and reached."""

    name: str
    path: str
    state: State
    stopped: str | None
    """Why no further round was asked; None in a run that is not finished."""
    kept_round: int | None
    """Whose student the run keeps, or the newest where it has not chosen yet; None before the first report."""
    created_at: str
    method: str
    seed: int
    teacher: str
    """Of several all, joined by a plus."""
    teacher_revision: str | None
    encoder: str
    rounds: int
    rows: RowCounts
    yield_share: float | None
    """Accepted of asked."""
    calls: int
    prompt_tokens: int
    completion_tokens: int
    generation_s: float
    train_s: float
    wall_s: float
    """Time that processes worked on it; one that was killed is not counted."""
    validation: Contrast | None
    test: Contrast | None
    """None until the run has finished."""
    curve: tuple[Point, ...]
    cost: Cost | None = None
    """None in runs of earlier versions."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def read_figures(run: RunDir) -> RunFigures:
    """StoreError if what lies there cannot be read."""
    manifest = read_json(run.run_json, Manifest)
    config = manifest.config
    rounds = read_rounds(run)
    finish = read_json(run.finish, Finish) if run.finish.exists() else None
    evaluations: list[dict[str, Any]] = run_query(run, _EVALUATIONS).to_pylist()
    on_validation = [line for line in evaluations if line["split"] == "validation"]
    validation = {line["round"]: _scored(line, _report_intervals(run, line["round"])) for line in on_validation}
    curve = _curve(rounds, on_validation, validation)
    kept = finish.best_round if finish else max(validation, default=None)
    totals = Totals.of(rounds)
    rows = totals.rows
    on_test = _test(run, evaluations, rounds)
    contrast = None if kept is None else _contrast(validation.get(0), validation.get(kept), rounds)
    best = on_test or contrast
    return RunFigures(
        name=config["name"],
        path=str(run.root),
        state=find_state(run, run.holders()),
        stopped=finish and finish.reason,
        kept_round=kept,
        created_at=manifest.created_at,
        method=config["strategy"]["type"],
        seed=config["seed"],
        teacher=" + ".join(Path(teacher["model"]).name for teacher in (config["teacher"], *config.get("teachers", ()))),
        teacher_revision=teacher_revision(manifest),
        encoder=config["student"]["encoder"],
        rounds=totals.rounds,
        rows=rows,
        yield_share=rows.accepted / rows.requested if rows.requested else None,
        calls=totals.calls,
        prompt_tokens=totals.prompt_tokens,
        completion_tokens=totals.completion_tokens,
        generation_s=totals.generation_s,
        train_s=sum(point.train_s for point in curve),
        wall_s=manifest.wall_s,
        validation=contrast,
        test=on_test,
        curve=curve,
        cost=reckon(
            read_shifts(run),
            CostConfig.model_validate(config.get("cost", {})),
            rows=rows.accepted,
            tokens=totals.tokens,
            gain=best and best.gain,
        ),
    )


def _curve(rounds: Sequence[RoundRecord], evaluations: Sequence[Mapping[str, Any]], scored: Mapping[int, Scored]) -> tuple[Point, ...]:
    up_to = [Totals.of([record for record in rounds if record.round <= line["round"]]) for line in evaluations]
    trained_s = accumulate(line["train_s"] for line in evaluations)
    return tuple(
        Point(
            round=line["round"],
            macro_f1=line["macro_f1"],
            interval=scored[line["round"]].interval,
            loss=line["loss"],
            train_rows=line["num_train_rows"],
            accepted=totals.rows.accepted,
            tokens=totals.tokens,
            busy_s=round(totals.generation_s + train_s, 3),
            train_s=line["train_s"],
        )
        for line, totals, train_s in zip(evaluations, up_to, trained_s, strict=True)
    )


def _test(run: RunDir, evaluations: Sequence[Mapping[str, Any]], rounds: Sequence[RoundRecord]) -> Contrast | None:
    """From the student's last word; the table has the same scores without intervals."""
    if run.final_report.exists():
        final = read_json(run.final_report, FinalReport)
        sides = [Scored(side.round, side.scores, side.intervals, side.classes) for side in (final.before, final.after)]
    else:
        sides = [_scored(line, None) for line in evaluations if line["split"] == "test"]
    return _contrast(sides[0], sides[-1], rounds) if sides else None


def _contrast(before: Scored | None, after: Scored | None, rounds: Sequence[RoundRecord]) -> Contrast | None:
    if before is None or after is None:
        return None
    tokens = sum(_tokens(record) for record in rounds if record.round <= after.round)
    gain = after.scores.macro_f1 - before.scores.macro_f1
    return Contrast(before, after, gain, 1000 * gain / tokens if tokens else None)


def _scored(line: Mapping[str, Any], intervals: Intervals | None) -> Scored:
    scores = Scores(*(line[name] for name in ("accuracy", "macro_f1", "weighted_f1", "num_rows", "mcc")))
    measures = ("precision", "recall", "f1", "support")
    classes = tuple(ClassScore(unescape(found["label"]), *(found[name] for name in measures)) for found in line["classes"])
    return Scored(line["round"], scores, intervals, classes)


def _report_intervals(run: RunDir, round: int) -> Intervals | None:
    path = run.report(round)
    return read_json(path, WeaknessReport).intervals if path.exists() else None


def _tokens(record: RoundRecord) -> int:
    return record.prompt_tokens + record.completion_tokens
