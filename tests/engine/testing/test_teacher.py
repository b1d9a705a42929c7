from __future__ import annotations

import json

import pytest

from engine.parsing import parse_marked_rows, parse_marks
from engine.prompting import (
    label_schema,
    labels_schema,
    mark_schema,
    marked_rows_schema,
    marks_schema,
    rows_schema,
    strings_schema,
    texts_schema,
)
from engine.records import Marking, Span
from engine.teacher.teacher import TeacherError
from engine.testing.teacher import ScriptedTeacher, rows_for, write_rows
from tests.engine.asking import LABELS, make_completion, make_request, refused


async def test_a_list_is_answered_in_order() -> None:
    request = make_request()
    known = make_completion(request)
    teacher = ScriptedTeacher(["one two", known, refused()])
    (first,) = await teacher.complete([request])
    assert (first.text, first.usage.completion_tokens, first.request_id) == ("one two", 2, request.id)
    assert (await teacher.complete([request]))[0] is known
    with pytest.raises(TeacherError):
        await teacher.complete([request])
    assert len(teacher.requests) == 3
    assert teacher.in_flight == 0


async def test_a_list_that_has_run_out_says_so() -> None:
    with pytest.raises(AssertionError, match="no reply left for request 1"):
        await ScriptedTeacher([]).complete([make_request()])


async def test_a_function_sees_the_request() -> None:
    teacher = ScriptedTeacher(lambda request: str(request.sampling.seed))
    assert [completion.text for completion in await teacher.complete([make_request(7), make_request(8)])] == ["7", "8"]


async def test_rows_are_valid_different_and_repeatable() -> None:
    teacher = ScriptedTeacher(write_rows)
    texts = [(await teacher.complete([make_request(seed, num_rows=5)]))[0].text for seed in (1, 2, 1)]
    assert texts[0] == texts[2]
    rows = [row for text in texts[:2] for row in json.loads(text)]
    assert len({row["text"] for row in rows}) == len(rows) == 10
    assert {row["label"] for row in rows} == set(LABELS)


def test_rows_for_one_label_and_for_a_label_alone() -> None:
    assert {row["label"] for row in json.loads(rows_for(rows_schema(("only",), 2), seed="a"))} == {"only"}
    assert json.loads(rows_for(label_schema(("only",)), seed="a")) == {"label": "only"}


def test_without_a_schema_there_are_rows_all_the_same() -> None:
    assert len(json.loads(rows_for("{}", seed="a"))) == 4


def test_whatever_else_a_schema_asks_for_is_written_too() -> None:
    texts = json.loads(rows_for(texts_schema(3, ("hard", "easy")), seed="0"))
    assert [row["kind"] for row in texts] == ["hard", "easy", "hard"]
    assert len({row["text"] for row in texts}) == 3
    labels = json.loads(rows_for(labels_schema(("a", "b"), 3), seed="1"))
    assert labels == [{"number": 1, "label": "b"}, {"number": 2, "label": "a"}, {"number": 3, "label": "b"}]
    assert len(json.loads(rows_for(strings_schema(4), seed="0"))) == 4


@pytest.mark.parametrize("marking", ["inline", "json"])
def test_entities_are_marked_as_they_are_asked_for(marking: Marking) -> None:
    types = ("a", 'the "b"')
    for start in ("0", "1"):
        rows = parse_marked_rows(rows_for(marked_rows_schema(types, marking, 3), seed=start), types, marking)
        found = [row.annotation.spans for row in rows if row.annotation is not None]
        assert [(row.text[span.start : span.end], span.type) for row, (span,) in zip(rows, found, strict=True)] == [
            ("scripted", types[(int(start) + place) % 2]) for place in range(3)
        ]
    texts = ["scripted one", "scripted two"]
    several = parse_marks(rows_for(marks_schema(types, marking, 2), seed="0"), texts, types, marking)
    assert several == [(Span(0, 8, types[0]),), (Span(0, 8, types[1]),)]
    assert parse_marks(rows_for(mark_schema(types, marking), seed="1"), texts[:1], types, marking) == [(Span(0, 8, types[1]),)]
