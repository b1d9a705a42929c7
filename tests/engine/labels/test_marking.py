import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.labels.marking import (
    Marked,
    MarkingError,
    Mention,
    check_spans,
    find_entities,
    list_entities,
    read_inline,
    trim,
    write_inline,
)
from engine.records import Span

TYPES = ("LOC", "person name", 'a/b "c"', "/x", "<y>", "&lt;z&gt;")
_TRAPS = [
    *("a", "a a", "<LOC>", "</LOC>", "[x](LOC)", "&lt;", "&amp;lt;", "&", "<", '"', "\\", "\n", "東京", "Also Al", "</"),
    "<b>x</b>",
    "\ud800",
]
pieces = st.text(st.characters(), min_size=1, max_size=8) | st.sampled_from(_TRAPS)


@st.composite
def marked_texts(draw: st.DrawFn) -> Marked:
    """Any text, with entities of any of the types, cut as readers cut them."""
    text, spans = "", list[Span]()
    for piece, type in draw(st.lists(st.tuples(pieces, st.none() | st.sampled_from(TYPES)), max_size=8)):
        if type is not None and piece.strip():
            spans.append(Span(len(text), len(text) + len(piece), type))
        text += piece
    return trim(Marked(text, tuple(spans)))


@given(marked_texts())
def test_what_is_marked_between_tags_is_read_again(marked: Marked) -> None:
    assert read_inline(write_inline(*marked), TYPES) == marked


@given(marked_texts())
def test_what_is_listed_is_found_again(marked: Marked) -> None:
    entities = json.loads(json.dumps(list_entities(*marked)))
    mentions = [Mention(entity["text"], entity["type"], entity.get("nth")) for entity in entities]
    assert find_entities(marked.text, mentions, TYPES) == marked.spans


@given(st.lists(pieces | st.sampled_from([f"{slash}{type}>" for slash in ("<", "</") for type in TYPES]), max_size=8).map("".join))
def test_whatever_stands_between_tags_is_read_or_refused(marked: str) -> None:
    try:
        text, spans = read_inline(marked, TYPES)
    except MarkingError:
        return
    check_spans(text, spans, TYPES)
    assert [text[span.start : span.end].strip() for span in spans] == [text[span.start : span.end] for span in spans]


def test_most_texts_are_marked_without_escapes() -> None:
    text = "From [Bern] & Köln (5 > 3) to Rome"
    assert write_inline(text, [Span(6, 10, "LOC"), Span(14, 18, "LOC")]) == "From [<LOC>Bern</LOC>] & <LOC>Köln</LOC> (5 > 3) to Rome"
    assert write_inline("if a<b", ()) == "if a&lt;b"
    assert read_inline("if a<b, I <3 <LOC>Bern</LOC>", TYPES).text == "if a<b, I <3 Bern"


def test_white_space_at_the_ends_of_an_entity_is_none_of_it() -> None:
    assert read_inline("  to < LOC > Bern </LOC>. ", TYPES) == Marked("to  Bern .", (Span(4, 8, "LOC"),))


@pytest.mark.parametrize(
    ("marked", "problem"),
    [
        ("<LOC>Bern", "the tag of 'LOC' is not closed"),
        ("Bern</LOC>", "the tag '</LOC>' closes nothing"),
        ("<LOC>a</person name>", "closes nothing"),
        ("<LOC>New <person name>York</person name></LOC>", "entities overlap: 'LOC' is not closed before 'person name'"),
        ("<CITY>Bern</CITY>", "unknown type 'CITY'"),
        ("in <LOC> </LOC>", "an entity without text: 'LOC'"),
    ],
)
def test_tags_that_cannot_be_read(marked: str, problem: str) -> None:
    with pytest.raises(MarkingError, match=problem):
        read_inline(marked, TYPES)


@pytest.mark.parametrize(
    ("text", "mentions", "starts"),
    [
        ("Bern, then Bern", [("Bern", None), ("Bern", None)], [0, 11]),
        ("Also Al", [("Al", None)], [5]),
        ("Also", [("Al", None)], [0]),
        ("Al said to Bo that Al", [("Bo", None), ("Al", None)], [11, 19]),
        ("Al said to Bo", [("Bo", None), ("Al", None)], [0, 11]),
        ("New York is not York", [("New York", None), ("York", None)], [0, 16]),
        ("a a a", [("a", 3)], [4]),
        ("東京都", [("京", None)], [1]),
    ],
)
def test_an_entity_is_found_behind_the_one_before_and_as_whole_words(
    text: str, mentions: list[tuple[str, int | None]], starts: list[int]
) -> None:
    found = find_entities(text, [Mention(wanted, "LOC", nth) for wanted, nth in mentions], TYPES)
    assert [span.start for span in found] == starts


@pytest.mark.parametrize(
    ("mentions", "problem"),
    [
        ([Mention("Rome", "LOC")], "'Rome' does not stand in the text$"),
        ([Mention("Bern", "LOC"), Mention("Bern", "LOC")], "'Bern' does not stand in the text outside the entities before it"),
        ([Mention("Bern", "LOC"), Mention("to Bern", "LOC", 1)], "entities overlap: 'Bern' begins within another"),
        ([Mention("Bern", "LOC", 2)], "'Bern' does not stand in the text that often"),
        ([Mention("Bern", "CITY")], "unknown type 'CITY'"),
        ([Mention(" ", "LOC")], "an entity without text"),
        ([Mention("e", "LOC")] * 1000, "1000 entities in one text, at most 200"),
    ],
)
def test_entities_that_cannot_be_found(mentions: list[Mention], problem: str) -> None:
    with pytest.raises(MarkingError, match=problem):
        find_entities("to Bern", mentions, TYPES)


@pytest.mark.parametrize(
    ("spans", "problem"),
    [
        ([Span(0, 2, "LOC"), Span(1, 3, "LOC")], "entities overlap: 'o ' begins within another"),
        ([Span(3, 9, "LOC")], "'LOC' from 3 to 9 is no part of a text of 7 characters"),
        ([Span(4, 4, "LOC")], "is no part of"),
        ([Span(2, 3, "LOC")], "an entity without text"),
        ([Span(3, 7, "CITY")], "unknown type 'CITY'"),
    ],
)
def test_spans_that_are_none_of_a_text(spans: list[Span], problem: str) -> None:
    with pytest.raises(MarkingError, match=problem):
        check_spans("to Bern", spans, TYPES)
