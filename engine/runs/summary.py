"""The figures of a finished run, as `summary.json` holds them and the command line shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config import RunConfig
from engine.cost.cost import Cost, Shift, reckon
from engine.records import Finish, RoundRecord, RowCounts, Totals
from engine.reports import FinalReport, Scores, WeaknessReport
from engine.runs.manifest import Manifest
from engine.watching.bottleneck import combine


@dataclass(frozen=True, slots=True)
class StudentSide:
    """One student's scores; `validation` steered the run, `test` was read once at its end."""

    round: int
    validation: Scores
    test: Scores


@dataclass(frozen=True, slots=True)
class StudentSummary:
    before: StudentSide
    """Trained on the seed rows alone."""
    after: StudentSide
    """The kept one."""
    encoder: str
    num_parameters: int
    precision: str
    train_s: float


@dataclass(frozen=True, slots=True)
class TeacherSummary:
    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    generation_s: float
    tokens_per_s: float
    """Output tokens, while the teacher wrote."""
    roofline_share: float
    """Of what the servers did in their best two seconds."""
    limited_s: dict[str, float]
    """Seconds for which each thing was what was short (`engine.watching.bottleneck`), the most important first."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The run by report; index 0 is the seed student. In lock-step that is by round."""

    loss: tuple[float, ...]
    macro_f1: tuple[float, ...]
    """On validation."""
    train_rows: tuple[int, ...]
    rounds: tuple[int, ...] = ()
    """On which each report was; none in runs of earlier versions, where each round had one."""

    def rows_by(self, round: int) -> int:
        """That the student of a report on that round had learned."""
        return self.train_rows[self.rounds.index(round) if self.rounds else round]


@dataclass(frozen=True, slots=True)
class Summary:
    name: str
    strategy: str
    seed: int
    wall_s: float
    """Time that processes worked on this run, of all of them together where it was resumed."""
    rounds: int
    stopped: str
    """Why no further round was asked."""
    student: StudentSummary
    rows: RowCounts
    teacher: TeacherSummary
    curve: Curve
    leaks: tuple[str, ...]
    """What of validation or test reached the teacher or the student, by an option of the method; empty when nothing did."""
    files: dict[str, str]
    cost: Cost | None = None
    """None in runs of earlier versions."""


def summarize(
    config: RunConfig,
    manifest: Manifest,
    finish: Finish,
    final: FinalReport,
    reports: Sequence[WeaknessReport],
    rounds: Sequence[RoundRecord],
    root: Path,
    shifts: Sequence[Shift] = (),
) -> Summary:
    """`reports`: all there are, from round 0 on; `rounds` from round 1 on."""
    flow, totals = combine(rounds), Totals.of(rounds)
    on_validation = {report.round: report.scores for report in reports}
    before, after = (StudentSide(side.round, on_validation[side.round], side.scores) for side in (final.before, final.after))
    return Summary(
        name=config.name,
        strategy=config.strategy.type,
        seed=config.seed,
        wall_s=round(manifest.wall_s, 1),
        rounds=finish.rounds,
        stopped=finish.reason,
        student=StudentSummary(
            before, after, final.encoder, final.num_parameters, final.precision, round(sum(report.train_s for report in reports), 1)
        ),
        rows=totals.rows,
        teacher=TeacherSummary(
            model=" + ".join(teacher.model for teacher in (config.teacher, *config.teachers)),
            calls=totals.calls,
            prompt_tokens=totals.prompt_tokens,
            completion_tokens=totals.completion_tokens,
            generation_s=round(totals.generation_s, 1),
            tokens_per_s=round(flow.tokens_per_s, 1),
            roofline_share=round(flow.roofline_share, 3),
            limited_s=flow.limited_s,
        ),
        curve=Curve(
            loss=tuple(report.loss for report in reports),
            macro_f1=tuple(report.scores.macro_f1 for report in reports),
            train_rows=tuple(report.num_train_rows for report in reports),
            rounds=tuple(report.round for report in reports),
        ),
        leaks=manifest.leaks,
        files={
            "student": str(root / "student" / "final"),
            "tables": str(root / "tables"),
            "reports": str(root / "reports"),
            "logs": str(root / "logs"),
            "summary": str(root / "summary.json"),
        },
        cost=reckon(shifts, config.cost, rows=totals.rows.accepted, tokens=totals.tokens, gain=after.test.macro_f1 - before.test.macro_f1),
    )
