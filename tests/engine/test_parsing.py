import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.labels.marking import MarkingError
from engine.parsing import parse_labels, parse_marked_rows, parse_marks, parse_rows, parse_strings, parse_texts
from engine.records import RejectionReason, Span

ROWS = [{"text": "one", "label": "a"}, {"text": 'two "quoted" {braces} [x]', "label": "b"}]


def texts(reply: str) -> list[str]:
    return [candidate.text for candidate in parse_rows(reply) if candidate.problem is None]


@pytest.mark.parametrize(
    "reply",
    [
        json.dumps(ROWS),
        json.dumps({"rows": ROWS}),
        "Sure, here you are:\n```json\n" + json.dumps(ROWS, indent=2) + "\n```\nAnything else?",
        "\n".join(map(json.dumps, ROWS)),
        json.dumps(ROWS)[:-1],
    ],
)
def test_rows_are_found_in_any_wrapping(reply: str) -> None:
    assert texts(reply) == ["one", 'two "quoted" {braces} [x]']


def test_a_broken_row_costs_only_itself() -> None:
    pieces = ('{"text": "one", "label": "a"}', '{"text": "tw" "label": "a"}', '{"text": 3, "label": "a"}', '{"label": "a"}')
    reply = f'[{", ".join(pieces)}, {{"text": "four", "label": "a"}}]'
    assert texts(reply) == ["one", "four"]
    assert [candidate.problem is None for candidate in parse_rows(reply)] == [True, False, False, False, True]


def test_a_cut_off_reply_keeps_what_came_before() -> None:
    reply = json.dumps(ROWS)
    candidates = parse_rows(reply[:-8])
    assert [candidate.problem for candidate in candidates] == [None, "cut off"]


def test_no_rows_at_all() -> None:
    assert parse_rows("  \n") == []
    (candidate,) = parse_rows("I cannot help with that.")
    assert candidate.problem == "no JSON object in the reply"
    assert candidate.raw == "I cannot help with that."


def test_deep_nesting_is_a_broken_row() -> None:
    candidates = parse_rows('{"text":' + "[" * 200_000)
    assert [candidate.problem is None for candidate in candidates] == [False]


@given(st.text())
def test_any_text_gives_candidates(reply: str) -> None:
    candidates = parse_rows(reply)
    assert bool(candidates) == bool(reply.strip())


@given(st.lists(st.fixed_dictionaries({"text": st.text(), "label": st.text()}), min_size=1), st.booleans())
def test_every_row_written_is_a_candidate(rows: list[dict[str, str]], ascii_only: bool) -> None:
    candidates = parse_rows(json.dumps(rows, ensure_ascii=ascii_only))
    assert [(candidate.text, candidate.label) for candidate in candidates] == [(row["text"].strip(), row["label"]) for row in rows]


@pytest.mark.parametrize(
    "reply", ['{"text": 1' + "0" * 5000 + "}", '[{"text": "a", "label": "b"}, {"a": ' + "[" * 100_000 + "]" * 100_000 + "}]"]
)
def test_numbers_without_end_and_lists_within_lists(reply: str) -> None:
    candidates = parse_rows(reply)
    assert [candidate.problem is None for candidate in candidates] == [False] * (len(candidates) == 1) + [True, False] * (
        len(candidates) == 2
    )


@pytest.mark.parametrize("reply", ['{"a":' * 13_000, '{"{"' * 20_000, '"\\' * 40_000, '"' * 80_000, '{"text": "x ' * 8_000])
def test_a_teacher_caught_in_a_loop_holds_nothing_up(reply: str) -> None:
    started = time.process_time()
    assert len(parse_rows(reply)) <= 200
    parse_strings(reply, 5)
    parse_labels(reply, 5)
    assert time.process_time() - started < 1.0  # without bounds these take up to 45 s


@pytest.mark.parametrize(
    "reply",
    [
        '[{"text": "one", "kind": "hard"}, {"text": "two"}]',
        '{"texts": [{"text": "one", "kind": "hard"}, {"text": "two", "kind": "weird"}]}',
        'Here:\n{"kind": "hard", "text": " one "}\n{"kind": ["hard"], "text": "two", "label": "ignored"}',
    ],
)
def test_texts_without_labels(reply: str) -> None:
    found = [(candidate.text, candidate.label, candidate.weakness) for candidate in parse_texts(reply, ("hard", "easy"))]
    assert found == [("one", "", "hard"), ("two", "", "")]


def test_texts_may_be_a_list_of_strings() -> None:
    assert [candidate.text for candidate in parse_texts('["one", "two"]')] == ["one", "two"]
    assert [candidate.problem for candidate in parse_texts('["one", 2]')] == ["no JSON object in the reply"]


@pytest.mark.parametrize(
    ("reply", "labels"),
    [
        ('[{"number": 2, "label": "b"}, {"number": 1, "label": "a"}]', ["a", "b", None]),
        ('[{"number": 1, "label": "a"}, {"number": 1, "label": "b"}]', [None, None, None]),
        ('[{"number": 1, "label": "a"}, {"number": 1, "label": "a"}]', ["a", None, None]),
        ('[{"number": 7, "label": "a"}, {"number": true, "label": "b"}]', [None, None, None]),
        ('[{"label": "a"}, {"label": "b"}, {"label": 3}]', ["a", "b", None]),
        ('["a", "b", "c"]', ["a", "b", "c"]),
        ('["a", "b"]', [None, None, None]),
        ("a, b and c", [None, None, None]),
        ("", [None, None, None]),
    ],
)
def test_each_text_gets_its_own_label_or_none(reply: str, labels: list[str | None]) -> None:
    assert parse_labels(reply, 3) == labels


def test_one_label() -> None:
    assert parse_labels('Well: {"label": "a"}.', 1) == ["a"]


def test_strings_are_found_in_any_wrapping() -> None:
    assert parse_strings('Sure: {"topics": ["late parcels", " late parcels ", "\\u00e9", ""]} "and', 9) == ["late parcels", "é"]
    assert parse_strings('["a", "b", "c"]', 2) == ["a", "b"]


# Entities.

TYPES = ("PER", "LOC")
MARKED = [{"text": "<PER>Al</PER> is in <LOC>Rome</LOC>"}, {"text": " nobody "}]
LISTED = [
    {"text": "Al is in Rome", "entities": [{"text": "Rome", "type": "LOC"}, {"text": "Al", "type": "PER"}]},
    {"text": "x", "entities": []},
]
AL_IN_ROME = (Span(0, 2, "PER"), Span(9, 13, "LOC"))


@pytest.mark.parametrize(
    "reply", [json.dumps(MARKED), "Here:\n" + "\n".join(map(json.dumps, MARKED)), json.dumps([row["text"] for row in MARKED])]
)
def test_marked_rows_are_found_in_any_wrapping(reply: str) -> None:
    one, other = parse_marked_rows(reply, TYPES, "inline")
    assert (one.text, one.annotation and one.annotation.spans, one.label, one.problem) == ("Al is in Rome", AL_IN_ROME, "", None)
    assert (other.text, other.annotation and other.annotation.spans) == ("nobody", ())


def test_a_list_of_entities_is_read_however_they_were_to_be_marked() -> None:
    for marking in ("json", "inline"):
        one, other = parse_marked_rows(json.dumps(LISTED), TYPES, marking)
        assert (one.text, one.annotation and one.annotation.spans) == ("Al is in Rome", AL_IN_ROME)
        assert (other.text, other.annotation and other.annotation.spans) == ("x", ())


@pytest.mark.parametrize(
    ("row", "reason", "problem"),
    [
        ({"text": "Al"}, RejectionReason.SCHEMA, 'no list "entities"'),
        ({"text": "Al", "entities": "Al"}, RejectionReason.SCHEMA, 'no list "entities"'),
        ({"text": "Al", "entities": ["Al"]}, RejectionReason.SCHEMA, 'an entity without a string "text" or "type"'),
        ({"entities": [{"text": "Al", "type": "PER"}]}, RejectionReason.SCHEMA, 'no string "text"'),
        ({"text": "Al", "entities": [{"text": "Bo", "type": "PER"}]}, RejectionReason.SPANS, "'Bo' does not stand in the text"),
        ({"text": "Al", "entities": [{"text": "Al", "type": "per"}]}, RejectionReason.SPANS, "unknown type 'per'"),
    ],
)
def test_a_row_with_wrong_entities_says_what_is_wrong(row: object, reason: RejectionReason, problem: str) -> None:
    good, bad = parse_marked_rows(json.dumps([LISTED[0], row]), TYPES, "json")
    assert good.problem is None
    assert (bad.reason, bad.problem) == (reason, problem)


def test_marks_of_given_texts_go_by_number_and_are_looked_for_in_them() -> None:
    texts = ["Al is in Rome", "nobody", "Al, Al"]
    listed = [
        {"number": 3, "entities": [{"text": "Al", "type": "PER"}, {"text": "Al", "type": "LOC"}]},
        {"number": 1, "entities": [{"text": "Al", "type": "PER"}]},
        {"number": 2, "entities": [{"text": "Bo", "type": "PER"}]},
    ]
    one, two, three = parse_marks(json.dumps(listed), texts, TYPES, "json")
    assert (one, three) == ((Span(0, 2, "PER"),), (Span(0, 2, "PER"), Span(4, 6, "LOC")))
    assert isinstance(two, MarkingError)
    inline = ["<PER>Al</PER> is in <LOC>Rome</LOC>.", "nobody", "Al, <PER>Al</PER>"]  # the first repeats the text with one character more
    assert parse_marks(json.dumps(inline), texts, TYPES, "inline") == [AL_IN_ROME, (), (Span(4, 6, "PER"),)]
    assert parse_marks(json.dumps(inline[:2]), texts, TYPES, "inline") == [None, None, None]


def test_marks_of_one_text_are_an_object_by_itself() -> None:
    assert parse_marks('{"entities": []}', ["Al"], TYPES, "json") == [()]
    assert parse_marks('{"entities": [{"text": "Al", "type": "PER"}]}', ["Al"], TYPES, "json") == [(Span(0, 2, "PER"),)]
    assert parse_marks('{"text": "<PER>Al</PER>"}', ["Al"], TYPES, "inline") == [(Span(0, 2, "PER"),)]
    twice = '{"number": 1, "entities": []} {"number": 1, "entities": [{"text": "Al", "type": "PER"}]}'
    assert parse_marks(twice, ["Al"], TYPES, "json") == [None]
