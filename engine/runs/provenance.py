"""The story of a row, or of a request: everything that the run directory knows about how it came to be.

It is told of what is committed, while the run goes on too. No table knows which of several servers answered a call, so the story gives what
run.json has of all of them: how each was started, and the revision of its model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from engine.errors import UserError
from engine.records import Annotation, Call, Message, Origin, Outcome, Rejection, RowCounts, Sample, SamplingParams, Span
from engine.reports import ClassScore, Confusion, Scores, WeaknessReport
from engine.rundir import RunDir, read_json
from engine.runs.manifest import Manifest
from engine.store import read_calls, read_prompt, read_rejections, read_rounds, read_samples, run_query
from engine.strategies.focus import BOUNDARY, CLASS, TYPE
from engine.teacher.endpoint import served_name
from engine.text import Content

_ID = re.compile(r"([0-9a-f]{1,32})(?:-(\d+))?")
_MAX_NEAR = 4
_MAX_EDITS = 6
"""An id of so many other characters is still taken for a slip of the hand."""
_HOW = """`reflux query RUN "select id, text from samples"` lists rows, and what a run is writing is there some seconds later"""

_BEGIN_SO = """
with requests as (
    select request_id from calls union all select request_id from samples union all select request_id from rejections
)
select distinct request_id from requests where starts_with(request_id, $prefix) order by 1 limit 5
"""
_ALIKE = """
with requests as (select distinct request_id, levenshtein(request_id[:len($prefix)], $prefix) as edits from calls)
select request_id from requests where edits <= $edits order by edits, 1 limit 4
"""
_REPLAYING = """
select id from samples where replays = $id
union all select id from rejections where replays = $id
union all select request_id from calls where replays = $id
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the call, as it ended."""

    id: str
    ending: str
    """`accepted`, or the reason of the rejection."""
    text: str
    label: str
    origin: Origin
    detail: str | None = None
    """Why it was refused."""
    raw: str | None = None
    """What stood in the reply, of a rejected row."""
    spans: tuple[Span, ...] = ()
    """Its entities, for tasks that mark them."""
    labels: tuple[str, ...] | None = None
    """Its labels, where it may have several; None where they are not known, or it has one."""
    text_pair: str | None = None
    """Its second text, where it is a pair."""

    @property
    def content(self) -> Content:
        return self.text if self.text_pair is None else (self.text, self.text_pair)


@dataclass(frozen=True, slots=True)
class Answers:
    """The weakness that was answered, with what the report said of it. Without scores where the report is not there (yet)."""

    weakness: str
    report: int
    """The round it reports on."""
    scores: Scores | None = None
    """Of the student, on validation."""
    classes: tuple[ClassScore, ...] = ()
    """Scores of the labels that the weakness names."""
    confusions: tuple[Confusion, ...] = ()
    """Among them."""


@dataclass(frozen=True, slots=True)
class CallStory:
    """One request and what came of it."""

    request_id: str
    sampling: SamplingParams
    template: str
    outcome: Outcome
    rows: RowCounts


@dataclass(frozen=True, slots=True)
class TeacherStory:
    """Who was asked."""

    model: str
    """In requests."""
    configured: str
    """The folder or id that the run was given."""
    servers: tuple[dict[str, Any], ...]
    """As they were started or found, with their flags, by all processes that worked on the run."""
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Story:
    """Of a row, or, where `row` is None, of a request."""

    id: str
    row: Row | None
    origin: Origin
    is_complete: bool
    """Whether its round is."""
    answers: Answers
    prompt: tuple[Message, ...]
    teacher: TeacherStory
    call: CallStory | None
    """None for a row that was committed just before its call."""
    siblings: tuple[Row, ...]
    """The other rows of the call, by their place in the reply."""
    calls: tuple[CallStory, ...]
    """The other calls of the assignment, in their order."""
    replayed_by: tuple[str, ...]
    """Rows and requests of later rounds that replay it."""


def tell(run: RunDir, id: str) -> Story:
    """`id` of a row or a request, or the first characters of one; UserError if there is none, or more than one, and what to do then."""
    request_id, place = _find(run, id)
    of_request = pc.field("request_id") == request_id
    rows = _rows(read_samples(run, of_request), read_rejections(run, of_request))
    row = None if place is None else next((row for row in rows if row.id == f"{request_id}-{place}"), None)
    if place is not None and row is None:
        places = ", ".join(row.id.rpartition("-")[2] for row in rows)
        there = f"it has {places}" if rows else "no row came of it"
        raise UserError(f"request {request_id} has no row {place}; {there}")
    found = read_calls(run, of_request)
    origin = row.origin if row else found[0].origin if found else rows[0].origin
    beside = (pc.field("round") == origin.round) & (pc.field("assignment") == origin.assignment)
    manifest = read_json(run.run_json, Manifest)
    return Story(
        id=row.id if row else request_id,
        row=row,
        origin=origin,
        is_complete=origin.round in {record.round for record in read_rounds(run)},
        answers=_answers(run, origin),
        prompt=read_prompt(run, origin.prompt_hash),
        teacher=TeacherStory(origin.teacher, _configured(manifest.config, origin.teacher), manifest.servers, manifest.versions),
        call=_call_story(found[0]) if found else None,
        siblings=tuple(sibling for sibling in rows if sibling is not row),
        calls=tuple(_call_story(call) for call in read_calls(run, beside) if call.outcome.request_id != request_id),
        replayed_by=tuple(_column(run, _REPLAYING, id=row.id if row else request_id)),
    )


def _find(run: RunDir, id: str) -> tuple[str, int | None]:
    """The whole id of the request, and the place of the row."""
    match = _ID.fullmatch(id.strip().lower())
    if match is None:
        raise UserError(f"{id!r} is no id of a row (like 3f2a91c0…-4) or of a request (like 3f2a91c0…), nor the beginning of one; {_HOW}")
    prefix, place = match[1], None if match[2] is None else int(match[2])
    found = _column(run, _BEGIN_SO, prefix=prefix)
    if prefix in found or len(found) == 1:
        return (prefix if prefix in found else found[0]), place
    if found:
        shown = ", ".join(found[:_MAX_NEAR]) + (", …" if len(found) > _MAX_NEAR else "")
        raise UserError(f"{id!r} is the beginning of several ids: {shown}; give more of its characters")
    alike = _column(run, _ALIKE, prefix=prefix, edits=min(_MAX_EDITS, len(prefix) // 3))
    hint = f"near it: {', '.join(alike[:_MAX_NEAR])}; " if alike else ""
    raise UserError(f"no committed row or request has an id that begins with {id!r}; {hint}{_HOW}")


def _column(run: RunDir, sql: str, **parameters: object) -> list[str]:
    return run_query(run, sql, parameters).column(0).to_pylist()


def _rows(samples: Sequence[Sample], rejections: Sequence[Rejection]) -> list[Row]:
    accepted = [Row(row.id, "accepted", row.text, row.label, row.origin, None, None, *_known(row)) for row in samples]
    rejected = [Row(row.id, row.reason, row.text, row.label, row.origin, row.detail, row.raw, *_known(row)) for row in rejections]
    return sorted([*accepted, *rejected], key=lambda row: int(row.id.rpartition("-")[2]))


def _known(row: Sample | Rejection) -> tuple[tuple[Span, ...], tuple[str, ...] | None, str | None]:
    """The last three fields of a Row."""
    annotation = row.annotation or Annotation()
    return annotation.spans, annotation.labels, annotation.text_pair


def _call_story(call: Call) -> CallStory:
    return CallStory(call.origin.request_id, call.request.sampling, call.origin.template, call.outcome, call.rows)


def _configured(config: dict[str, Any], name: str) -> str:
    """The configuration's model of this name in requests; the first where none has it, as servers may use names of their own."""
    models = [str(teacher["model"]) for teacher in (config["teacher"], *config.get("teachers", ()))]
    return next((model for model in models if served_name(model) == name), models[0])


def _answers(run: RunDir, origin: Origin) -> Answers:
    path = run.report(origin.report)
    if not path.exists():
        return Answers(origin.weakness, origin.report)
    report = read_json(path, WeaknessReport)
    # By comparing, as labels may hold any characters, those of the notation too.
    pairs = [item for item in report.confusions if origin.weakness == f"pair:{item.label}>{item.predicted}"]
    labels = {label for item in pairs for label in (item.label, item.predicted)}
    classes = [
        score
        for score in report.classes
        if score.label in labels or origin.weakness in [f"{kind}:{score.label}" for kind in (CLASS, TYPE, BOUNDARY)]
    ]
    return Answers(origin.weakness, origin.report, report.scores, tuple(classes), tuple(pairs))
