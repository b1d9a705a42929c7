from __future__ import annotations

import io
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace
from rich.console import Console

from engine.errors import UserError
from engine.records import Annotation, Completion, FinishReason, Message, Request, RowCounts, SamplingParams, Span
from engine.reports import Confusion
from engine.rundir import RunDir, write_json
from engine.runs.manifest import Manifest
from engine.runs.provenance import tell
from engine.store import Store
from engine.views.display import story_view
from tests.engine.builders import make_report
from tests.engine.store.builders import add_row, make_call, make_completion, make_origin, make_rejection, make_round, make_run, make_sample

FIRST, SECOND, LATER = "a1" + "0" * 30, "a2" + "0" * 30, "b1" + "0" * 30
HOSTILE = "half \ud83d, NUL \0, \x1b[2J"


@pytest.fixture
async def run(tmp_path: Path) -> RunDir:
    """Two calls of one assignment, the second cut off; one row of the first was judged again in round 2, which is not complete."""
    run = make_run(tmp_path)
    server = {"command": ["python", "-m", "vllm", "--model", "teacher"], "environment": {}, "device": "cpu"}
    write_json(run.run_json, Manifest({"teacher": {"model": "/models/teacher"}}, {"python": "3.11"}, "2026-01-01", servers=(server,)))
    report = make_report(0, f1={"refund": 0.25, "cancel": 0.5}, confusions=(Confusion("refund", "cancel", 7),))
    write_json(run.report(0), report)
    async with Store(run) as store:
        await store.record(make_completion(SECOND, HOSTILE))
        add_row(store, make_sample(f"{SECOND}-0", HOSTILE))
        add_row(store, make_rejection(f"{SECOND}-1"))
        cut_off = replace(make_completion(FIRST), finish_reason=FinishReason.LENGTH)
        await store.record(cut_off)
        await store.add_call(make_call(FIRST, rows=RowCounts(), outcome=cut_off))
        await store.add_call(make_call(SECOND, rows=RowCounts(2, accepted=1, rejected=1), outcome=make_completion(SECOND, HOSTILE)))
        await store.complete_round(make_round(1, RowCounts(2, accepted=1, rejected=1), calls=2))
        await store.record(make_completion(LATER))
        origin = replace(make_origin(LATER, 2), replays=f"{SECOND}-1")
        add_row(store, replace(make_sample(f"{LATER}-1", round=2), origin=origin))
        call = make_call(LATER, 2, rows=RowCounts(1, accepted=1))
        await store.add_call(replace(call, origin=origin))
    return run


def test_the_story_of_a_row(run: RunDir) -> None:
    story = tell(run, f"{SECOND}-0")
    assert story.row is not None
    assert (story.id, story.row.ending, story.row.text, story.row.label) == (f"{SECOND}-0", "accepted", HOSTILE, "refund")
    assert story.is_complete
    assert (story.answers.weakness, story.answers.report) == ("class:refund", 0)
    assert [score.f1 for score in story.answers.classes] == [0.25]
    assert story.prompt == (Message("user", "write"),)
    assert (story.teacher.model, story.teacher.configured) == ("teacher", "/models/teacher")
    assert story.teacher.servers[0]["device"] == "cpu"
    assert story.call is not None
    assert story.call.sampling == SamplingParams(1.0, 0.95, 64, 0, '{"type": "array"}')
    assert isinstance(story.call.outcome, Completion)
    assert (story.call.outcome.text, story.call.outcome.usage.completion_tokens) == (HOSTILE, 20)
    assert [(sibling.id, sibling.ending, sibling.detail) for sibling in story.siblings] == [(f"{SECOND}-1", "duplicate", "of the seed")]
    assert [call.request_id for call in story.calls] == [FIRST]
    assert story.replayed_by == ()


def test_a_row_that_was_replayed_and_the_row_that_replays_it(run: RunDir) -> None:
    assert tell(run, f"{SECOND}-1").replayed_by == (f"{LATER}-1", LATER)
    later = tell(run, f"{LATER}-1")
    assert later.origin.replays == f"{SECOND}-1"
    assert not later.is_complete


def test_the_story_of_a_request(run: RunDir) -> None:
    story = tell(run, FIRST)
    assert story.row is None
    assert story.siblings == ()
    assert story.call is not None
    assert story.call.outcome == replace(make_completion(FIRST), finish_reason=FinishReason.LENGTH)
    assert [row.id for row in tell(run, SECOND).siblings] == [f"{SECOND}-0", f"{SECOND}-1"]


@pytest.mark.parametrize(("given", "meant"), [("a2", SECOND), ("A2-1", f"{SECOND}-1"), (f" {SECOND} ", SECOND), ("a200-0", f"{SECOND}-0")])
def test_the_first_characters_are_enough(run: RunDir, given: str, meant: str) -> None:
    assert tell(run, given).id == meant


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a", f"'a' is the beginning of several ids: {FIRST}, {SECOND}; give more of its characters"),
        ("c0ffee", "no committed row or request has an id that begins with 'c0ffee'; `reflux query RUN"),
        ("a10100", f"begins with 'a10100'; near it: {FIRST}, {SECOND}"),
        ("a2-7", f"request {SECOND} has no row 7; it has 0, 1"),
        ("a1-0", f"request {FIRST} has no row 0; no row came of it"),
        ("'; drop table samples", "is no id of a row"),
        ("\x1b[2J", "is no id of a row"),
        ("", "is no id of a row"),
    ],
)
def test_an_id_that_is_none(run: RunDir, given: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        tell(run, given)
    assert message in str(caught.value)


async def test_a_row_whose_call_is_not_committed_yet(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    write_json(run.run_json, Manifest({"teacher": {"model": "teacher"}}, {}, "2026-01-01"))
    request = Request("teacher", (Message("user", "write"),), SamplingParams(1.0, 0.95, 64, 0, None))
    origin = make_origin(FIRST, request=request)
    async with Store(run) as store:
        await store.record(make_completion(SECOND))
        await store.add_call(replace(make_call(SECOND), request=request, origin=replace(origin, request_id=SECOND, assignment="other")))
        add_row(store, replace(make_sample(f"{FIRST}-0"), origin=origin))
        await store.seal()
        story = tell(run, f"{FIRST}-0")
    assert (story.call, story.calls, story.siblings) == (None, (), ())
    assert story.answers.scores is None
    assert not story.is_complete


def test_a_pair_is_told_by_its_confusion(run: RunDir) -> None:
    from engine.runs import provenance

    origin = replace(make_origin(FIRST), weakness="pair:refund>cancel")
    answers = provenance._answers(run, origin)  # pyright: ignore[reportPrivateUsage]
    assert {score.label for score in answers.classes} == {"refund", "cancel"}
    assert [item.count for item in answers.confusions] == [7]


async def test_the_story_of_a_row_with_entities(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    write_json(run.run_json, Manifest({"teacher": {"model": "teacher"}}, {}, "2026-01-01"))
    write_json(run.report(0), make_report(0, f1={"PER": 0.25, "LOC": 0.5}))
    spans = (Span(0, 3, "PER"), Span(7, 11, "LOC"))
    async with Store(run) as store:
        await store.record(make_completion(FIRST))
        sample = make_sample(f"{FIRST}-0", "Ana in Bern")
        origin = replace(sample.origin, weakness="boundary:LOC")
        add_row(store, replace(sample, label="", origin=origin, annotation=Annotation(spans)))
        await store.add_call(make_call(FIRST, rows=RowCounts(1, accepted=1), outcome=make_completion(FIRST)))
    story = tell(run, f"{FIRST}-0")
    assert story.row is not None
    assert story.row.spans == spans
    assert [score.label for score in story.answers.classes] == ["LOC"]
    console = Console(width=200, file=io.StringIO())
    console.print(story_view(story))
    shown = cast(io.StringIO, console.file).getvalue()
    assert "<PER>Ana</PER> in <LOC>Bern</LOC>" in shown
    assert "Label" not in shown
