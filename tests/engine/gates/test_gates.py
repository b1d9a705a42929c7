import re
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.gates.gates import Gatekeeper, Refusal, comparable
from engine.records import Annotation, Candidate, RejectionReason, Span


def make_gatekeeper(*, known: tuple[str, ...] = (), held_out: tuple[str, ...] = ()) -> Gatekeeper:
    return Gatekeeper(("a", 'la/bel "b"'), max_text_chars=20, known=known, held_out=held_out)


def judge(gatekeeper: Gatekeeper, row: Candidate) -> Refusal | None:
    (refusal,) = gatekeeper.judge([row])
    return refusal


def make_near_gatekeeper(*, known: tuple[str, ...] = (), held_out: tuple[str, ...] = ()) -> Gatekeeper:
    return Gatekeeper(("a",), max_text_chars=200, known=known, held_out=held_out, similarity=0.7, remembered_rows=1000)


def make_row(text: str = "a text", label: str = "a", problem: str | None = None) -> Candidate:
    return Candidate(raw=text, text=text, label=label, problem=problem)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (make_row(), None),
        (make_row(label='la/bel "b"'), None),
        (make_row(text="x" * 20), None),
        (make_row(problem="cut off"), RejectionReason.SCHEMA),
        (make_row(label="A"), RejectionReason.UNKNOWN_LABEL),
        (make_row(label="c"), RejectionReason.UNKNOWN_LABEL),
        (make_row(text=""), RejectionReason.EMPTY),
        (make_row(text="x" * 21), RejectionReason.TOO_LONG),
        (make_row(text="Seed  ROW!"), RejectionReason.DUPLICATE),
        (make_row(text="test row."), RejectionReason.LEAKAGE),
        (make_row(text="test rows"), None),
    ],
)
def test_each_gate(row: Candidate, reason: RejectionReason | None) -> None:
    refusal = judge(make_gatekeeper(known=("seed row",), held_out=("Test row",)), row)
    assert (refusal.reason if refusal else None) == reason


def test_the_second_of_two_copies_is_refused() -> None:
    gatekeeper = make_gatekeeper()
    assert judge(gatekeeper, make_row("Where is it?")) is None
    refusal = judge(gatekeeper, make_row("where is it"))
    assert refusal is not None
    assert refusal.reason is RejectionReason.DUPLICATE


def test_a_refused_row_is_not_remembered() -> None:
    gatekeeper = make_gatekeeper()
    assert judge(gatekeeper, make_row("text", label="nope")) is not None
    assert judge(gatekeeper, make_row("text")) is None


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("Straße 1", "STRASSE 1", True),
        ("ﬁne", "fine", True),
        ("a_b", "a b", True),
        ("?!", "!?", False),
        ("你好", "你好。", True),
        ("no. 1", "no. 2", False),
    ],
)
def test_comparable(left: str, right: str, same: bool) -> None:
    assert (comparable(left) == comparable(right)) is same


@given(st.text(st.characters(max_codepoint=127)))
@example("_under_score_")
@example("\x1fA\x00b\x7f")
def test_ascii_is_compared_as_all_text_is(text: str) -> None:
    folded = unicodedata.normalize("NFKC", text).casefold()
    assert comparable(text) == (re.sub(r"[\W_]+", " ", folded).strip() or folded.strip())


def test_hostile_texts_are_judged() -> None:
    gatekeeper = make_near_gatekeeper(known=("\ud800",), held_out=("x\udfff",))
    for text, admitted in (
        ("\ud800", False),
        ("x \udfff", False),
        ("y \udfff", True),
        ("\0", True),
        ("'); drop table rows; --", True),
        ("<b>", True),
    ):
        assert (judge(gatekeeper, make_row(text)) is None) is admitted, text


def test_near_duplicates_are_admitted_unless_asked_for() -> None:
    gatekeeper = Gatekeeper(("a",), max_text_chars=200, known=("where is the parcel that i ordered",), held_out=())
    assert judge(gatekeeper, make_row("where is the parcel that I ordered, please")) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Where is the parcel that I ordered, please?", RejectionReason.NEAR_DUPLICATE),
        ("Please, cancel my order before it is sent out!", RejectionReason.LEAKAGE),
        ("Where is the parcel that I ordered?", RejectionReason.DUPLICATE),
        ("I want my money back.", None),
    ],
)
def test_near_gate(text: str, reason: RejectionReason | None) -> None:
    known, held_out = ("where is the parcel that i ordered",), ("cancel my order before it is sent out",)
    refusal = judge(make_near_gatekeeper(known=known, held_out=held_out), make_row(text))
    assert (refusal.reason if refusal else None) == reason
    if reason in (RejectionReason.NEAR_DUPLICATE, RejectionReason.LEAKAGE):
        assert refusal is not None
        assert re.match(r"0\.[789]\d like a row ", refusal.detail)


def test_what_is_like_a_refused_row_is_admitted() -> None:
    gatekeeper = make_near_gatekeeper()
    assert judge(gatekeeper, make_row("where is the parcel that i ordered", label="nope")) is not None
    assert judge(gatekeeper, make_row("where is the parcel that i ordered now")) is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["where is my parcel", "cancel my order", "i want my money back"]), st.sampled_from("abc!?"))))
def test_a_gatekeeper_built_from_its_admitted_rows_goes_on_the_same(parts: list[tuple[str, str]]) -> None:
    rows = [make_row(f"{text} {end}") for text, end in parts]
    half = len(rows) // 2
    whole = make_near_gatekeeper(known=("seed row",))
    expected = [judge(whole, row) for row in rows]
    admitted = [row.text for row, refusal in zip(rows[:half], expected[:half], strict=True) if refusal is None]
    rebuilt = make_near_gatekeeper(known=("seed row", *admitted))
    assert [judge(rebuilt, row) for row in rows[half:]] == expected[half:]


def test_known_rows_may_come_from_a_generator() -> None:
    gatekeeper = Gatekeeper(("a",), 200, known=(f"row number {number}" for number in range(3)), held_out=iter(["held out"]), similarity=1.0)
    assert judge(gatekeeper, make_row("Row number 2")) is not None
    assert judge(gatekeeper, make_row("held out")) is not None
    assert judge(gatekeeper, make_row("row number 3")) is None


ROWS_OF_A_REPLY = st.lists(
    st.tuples(
        st.sampled_from(["where is my parcel", "cancel my order", "i want my money back", ""]), st.sampled_from(["", " a", " b", "!"])
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(ROWS_OF_A_REPLY)
def test_rows_of_one_reply_are_judged_as_each_alone(parts: list[tuple[str, str]]) -> None:
    rows = [make_row(f"{text}{end}", label="nope" if end == " b" else "a") for text, end in parts]
    together, alone = (make_near_gatekeeper(known=("where is my dog",), held_out=("cancel my orders",)) for _ in range(2))
    assert together.judge(rows) == [judge(alone, row) for row in rows]
    assert together.judge(rows) == [judge(alone, row) for row in rows]


# Entities.


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        ((), None),
        ((Span(0, 2, "a"), Span(3, 7, "b")), None),
        ((Span(0, 2, "c"),), RejectionReason.SPANS),
        ((Span(0, 4, "a"), Span(3, 7, "b")), RejectionReason.SPANS),
        ((Span(3, 7, "b"), Span(0, 2, "a")), RejectionReason.SPANS),
        ((Span(2, 3, "a"),), RejectionReason.SPANS),
        ((Span(3, 8, "a"),), RejectionReason.SPANS),
        (None, RejectionReason.UNLABELLED),
    ],
)
def test_a_row_with_entities_needs_no_label(spans: tuple[Span, ...] | None, reason: RejectionReason | None) -> None:
    gatekeeper = Gatekeeper(("a", "b"), 20, known=("known row",), held_out=("test row",), kind="ner")
    row = Candidate("raw", text="Al Rome", annotation=None if spans is None else Annotation(spans))
    refusal = judge(gatekeeper, row)
    assert (refusal and refusal.reason) == reason
    for text, other in (
        ("Known row.", RejectionReason.DUPLICATE),
        ("TEST row", RejectionReason.LEAKAGE),
        ("x" * 21, RejectionReason.TOO_LONG),
    ):
        refusal = judge(gatekeeper, Candidate("raw", text=text, annotation=Annotation()))
        assert refusal is not None
        assert refusal.reason == other


# Pairs.

PREMISE = "a premise that is much longer than what is said about it, and that stands in many rows of one table"


def make_pair(text: str, text_pair: str | None, label: str = "a") -> Candidate:
    return Candidate(raw=text, text=text, label=label, annotation=Annotation(text_pair=text_pair))


def make_pair_gatekeeper(similarity: float | None = None) -> Gatekeeper:
    return Gatekeeper(
        ("a", "b"),
        max_text_chars=200,
        known=((PREMISE, "it is long"),),
        held_out=(("what is asked", "what is answered, and at some length"),),
        similarity=similarity,
        kind="pair",
        scripts=frozenset({"LATIN"}),
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (make_pair(PREMISE, "it is short"), None),
        (make_pair(PREMISE.upper(), "It is long!"), RejectionReason.DUPLICATE),
        (make_pair("it is long", PREMISE), None),
        (make_pair("what is asked?", "What is answered, and at some length"), RejectionReason.LEAKAGE),
        (make_pair("what is asked", "something else"), None),
        (make_pair("one text", None), RejectionReason.SCHEMA),
        (make_pair("one text", ""), RejectionReason.EMPTY),
        (make_pair("", "one text"), RejectionReason.EMPTY),
        (make_pair("one text", "x" * 201), RejectionReason.TOO_LONG),
        (make_pair("one text", "追跡はどこですか"), RejectionReason.SCRIPT),
        (make_pair("追跡はどこですか", "one text"), RejectionReason.SCRIPT),
        (make_pair("one text", "another", "c"), RejectionReason.UNKNOWN_LABEL),
        (Candidate("one text", "one text", "a"), RejectionReason.SCHEMA),
    ],
)
@pytest.mark.parametrize("similarity", [None, 0.7])
def test_each_gate_for_pairs(row: Candidate, reason: RejectionReason | None, similarity: float | None) -> None:
    refusal = judge(make_pair_gatekeeper(similarity), row)
    assert (refusal.reason if refusal else None) == reason


def test_pairs_are_near_when_both_texts_are_on_average() -> None:
    """A premise that many rows share makes none of them a copy; with the texts end to end, all of these would be."""
    gatekeeper = make_pair_gatekeeper(0.7)
    other = ["nobody has seen it", "the table is green", "forty rows were left", "prices went up again"]
    assert [judge(gatekeeper, make_pair(PREMISE, text)) for text in other] == [None] * 4
    near = judge(gatekeeper, make_pair(PREMISE.replace("much", "very much"), "nobody has seen it yet"))
    assert near is not None
    assert near.reason is RejectionReason.NEAR_DUPLICATE
    leak = judge(gatekeeper, make_pair("what is asked", "what is answered, and at great length"))
    assert leak is not None
    assert leak.reason is RejectionReason.LEAKAGE


@given(st.text(), st.text(), st.text(), st.text())
def test_pairs_are_the_same_when_both_texts_are(first: str, second: str, third: str, fourth: str) -> None:
    same = comparable(first) == comparable(third) and comparable(second) == comparable(fourth)
    bars = any("│" in text for text in (first, second, third, fourth))
    assert (comparable((first, second)) == comparable((third, fourth))) == same or bars
