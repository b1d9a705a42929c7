import pytest

from engine.gates import Gatekeeper, comparable
from engine.records import Candidate, RejectionReason


def make_gatekeeper(*, known: tuple[str, ...] = (), held_out: tuple[str, ...] = ()) -> Gatekeeper:
    return Gatekeeper(("a", 'la/bel "b"'), max_text_chars=20, known=known, held_out=held_out)


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
    refusal = make_gatekeeper(known=("seed row",), held_out=("Test row",)).judge(row)
    assert (refusal.reason if refusal else None) == reason


def test_the_second_of_two_copies_is_refused() -> None:
    gatekeeper = make_gatekeeper()
    assert gatekeeper.judge(make_row("Where is it?")) is None
    refusal = gatekeeper.judge(make_row("where is it"))
    assert refusal is not None
    assert refusal.reason is RejectionReason.DUPLICATE


def test_a_refused_row_is_not_remembered() -> None:
    gatekeeper = make_gatekeeper()
    assert gatekeeper.judge(make_row("text", label="nope")) is not None
    assert gatekeeper.judge(make_row("text")) is None


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
