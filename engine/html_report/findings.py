"""What the page about a run tells, gathered once. Of large tables only counts and a few rows leave the store, however long the run was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.html_report.timeline import Timeline, read_timeline
from engine.records import RoundRecord
from engine.reports import Audit, ClassScore, Confusion, FinalReport, WeaknessReport
from engine.rundir import RunDir, read_json
from engine.runs.figures import RunFigures, read_figures
from engine.runs.manifest import Manifest
from engine.runs.retention import freed_parts
from engine.runs.round_times import RoundTimes, read_round_times
from engine.store import read_rounds, run_query, unescape
from engine.text import BETWEEN
from engine.views.display import inert, label_words

MOST_WEAKNESSES = 12
ROWS_A_WEAKNESS = 2
MAX_CHARS = 600
"""Of a text on the page; the tables have it whole."""

_REASONS = "select round, reason, count(*) as rows from rejections group by 1, 2 order by 1, 3 desc, 2"
_EXAMPLES = """
select reason, count(*) as rows, min_by(detail, id) as detail, min_by(raw, id) as raw from rejections group by 1 order by 2 desc, 1
"""
_WEAKNESSES = "select weakness, count(*) as rows from samples group by 1 order by 2 desc, 1 limit $most"
_SAMPLES = """
with largest as (select weakness, count(*) as rows from samples group by 1 order by 2 desc, 1 limit $most)
select id, text, text_pair, label, labels, spans, samples.weakness, round
from samples join largest on largest.weakness = samples.weakness
qualify row_number() over (partition by samples.weakness order by md5(id)) <= $each
order by largest.rows desc, samples.weakness, round, id
"""


@dataclass(frozen=True, slots=True)
class ReasonExample:
    reason: str
    rows: int
    detail: str
    raw: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text, ready to be shown; of an entity with its type."""

    text: str
    type: str | None


@dataclass(frozen=True, slots=True)
class SampleRow:
    id: str
    pieces: tuple[Piece, ...]
    """The text, in order."""
    label: str
    weakness: str
    round: int


@dataclass(frozen=True, slots=True)
class ClassPair:
    """F1 of a label, of the student before and of the one after."""

    label: str
    support: int
    before: float | None
    """None where only one student has been scored."""
    after: float


@dataclass(frozen=True, slots=True)
class ConfusionPair:
    """How many rows of `label` were taken for `predicted`."""

    label: str
    predicted: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class ByClass:
    """Two students on the same rows, label by label."""

    split: str
    before_round: int
    after_round: int
    classes: tuple[ClassPair, ...]
    """The weakest after first; labels without rows last."""
    confusions: tuple[ConfusionPair, ...]
    """The most frequent of both together first."""


@dataclass(frozen=True, slots=True)
class Findings:
    figures: RunFigures
    manifest: Manifest
    rounds: tuple[RoundRecord, ...]
    newest: WeaknessReport | None
    """The report on the student that is kept, or the newest where none is yet."""
    by_class: ByClass | None
    final: FinalReport | None
    audit: Audit | None
    reasons: tuple[tuple[int, str, int], ...]
    """Round, reason and number of rejected rows."""
    examples: tuple[ReasonExample, ...]
    weaknesses: tuple[tuple[str, int], ...]
    """What most accepted rows answer, and how many."""
    samples: tuple[SampleRow, ...]
    timeline: Timeline | None
    round_times: tuple[RoundTimes, ...]
    freed: frozenset[str]
    missing: tuple[str, ...]
    """Sentences on what this run has not, or has no more."""


def gather(run: RunDir) -> Findings:
    """StoreError if what lies there cannot be read."""
    figures = read_figures(run)
    rounds = tuple(read_rounds(run))
    final = read_json(run.final_report, FinalReport) if run.final_report.exists() else None
    audit = read_json(run.audit, Audit) if run.audit.exists() else None
    freed = frozenset(map(str, freed_parts(run)))
    newest = None if figures.kept_round is None else _report(run, figures.kept_round)
    return Findings(
        figures=figures,
        manifest=read_json(run.run_json, Manifest),
        rounds=rounds,
        newest=newest,
        by_class=_by_class(figures, final, _report(run, 0), newest),
        final=final,
        audit=audit,
        reasons=tuple((row["round"], row["reason"], row["rows"]) for row in run_query(run, _REASONS).to_pylist()),
        examples=tuple(
            ReasonExample(row["reason"], row["rows"], shown(unescape(row["detail"])), shown(unescape(row["raw"]), 200))
            for row in run_query(run, _EXAMPLES).to_pylist()
        ),
        weaknesses=tuple(
            (unescape(row["weakness"]), row["rows"]) for row in run_query(run, _WEAKNESSES, {"most": MOST_WEAKNESSES}).to_pylist()
        ),
        samples=tuple(_sample(row) for row in run_query(run, _SAMPLES, {"most": MOST_WEAKNESSES, "each": ROWS_A_WEAKNESS}).to_pylist()),
        timeline=read_timeline(run),
        round_times=read_round_times(run),
        freed=freed,
        missing=tuple(_missing(figures, final, audit, freed)),
    )


def shown(value: object, max_chars: int = MAX_CHARS) -> str:
    """Text of anybody, with what is invisible or turns the line round made visible. It still has to be escaped for HTML."""
    # Two characters that no XML may hold, and plots are XML.
    return inert(value, max_chars).plain.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def _missing(figures: RunFigures, final: FinalReport | None, audit: Audit | None, freed: frozenset[str]) -> list[str]:
    found: list[str] = []
    if figures.state != "finished":
        found.append(f"The run is {figures.state}, not finished: this is how far it has come.")
    if not figures.curve:
        found.append("No student has been scored yet.")
    elif figures.rounds == 0:
        found.append("No round is complete: all there is is the student of the seed rows.")
    if final is None and figures.test is None:
        found.append("There are no test scores: the test rows are read once, at the end of a run.")
    if audit is None:
        found.append("There is no audit of the training rows: it is made at the end of a run.")
    if freed:
        found.append(f"The run was pruned and has no {', '.join(sorted(freed))} any more.")
    return found


def _report(run: RunDir, round: int) -> WeaknessReport | None:
    path = run.report(round)
    return read_json(path, WeaknessReport) if path.exists() else None


def _by_class(figures: RunFigures, final: FinalReport | None, seed: WeaknessReport | None, newest: WeaknessReport | None) -> ByClass | None:
    """On test where it was read, else on validation; confusions only where a report has them."""
    contrast = figures.test or figures.validation
    if contrast is None:
        return None
    split = "test" if figures.test else "validation"
    sides = (final and final.before, final and final.after) if figures.test else (seed, newest)
    before = None if contrast.before.round == contrast.after.round else {score.label: score.f1 for score in contrast.before.classes}
    return ByClass(
        split=split,
        before_round=contrast.before.round,
        after_round=contrast.after.round,
        classes=_class_pairs(before, contrast.after.classes),
        confusions=_confusion_pairs(*(side.confusions if side else () for side in sides)),
    )


def _class_pairs(before: dict[str, float] | None, after: Sequence[ClassScore]) -> tuple[ClassPair, ...]:
    pairs = [ClassPair(score.label, score.support, None if before is None else before.get(score.label), score.f1) for score in after]
    return tuple(sorted(pairs, key=lambda pair: (pair.support == 0, pair.after, pair.label)))


def _confusion_pairs(before: Sequence[Confusion], after: Sequence[Confusion]) -> tuple[ConfusionPair, ...]:
    first, second = ({(found.label, found.predicted): found.count for found in side} for side in (before, after))
    pairs = [ConfusionPair(*key, first.get(key, 0), second.get(key, 0)) for key in {**first, **second}]
    return tuple(sorted(pairs, key=lambda pair: (-pair.before - pair.after, pair.label, pair.predicted)))


def _sample(row: dict[str, Any]) -> SampleRow:
    second = () if row["text_pair"] is None else (unescape(row["text_pair"]),)
    pieces = tuple(_pieces(BETWEEN.join([unescape(row["text"]), *second]), row["spans"] or ()))
    label = unescape(row["label"]) if row["labels"] is None else label_words("", [unescape(label) for label in row["labels"]])
    return SampleRow(row["id"], pieces, shown(label), shown(unescape(row["weakness"])), row["round"])


def _pieces(text: str, spans: Sequence[dict[str, Any]]) -> list[Piece]:
    """Cut before anything is made visible: offsets are those of the text as it is."""
    pieces: list[Piece] = []
    place = 0
    for span in spans:
        if span["start"] >= MAX_CHARS:
            break
        pieces += [
            Piece(shown(text[place : span["start"]]), None),
            Piece(shown(text[span["start"] : span["end"]]), shown(unescape(span["type"]))),
        ]
        place = span["end"]
    pieces.append(Piece(shown(text[place:], max(1, MAX_CHARS - place)), None))
    return [piece for piece in pieces if piece.text]
