import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.parsing import parse_rows

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
