from __future__ import annotations

from engine.records import Example, Span
from student.span_comparison import compare_spans
from tests.student.test_span_evaluation import TYPES, predicted

TEXT = "a b c d e f"
NAME, PLACE = Span(0, 3, "PER"), Span(4, 5, "LOC")


def test_what_the_second_finds_and_the_first_does_not() -> None:
    rows = [Example(TEXT, "", (NAME, PLACE))] * 12 + [Example(TEXT, "", ())] * 4
    first = predicted([(NAME,)] * 12 + [()] * 4)
    second = predicted([(NAME, PLACE)] * 11 + [()] + [()] * 4)
    found, macro = compare_spans(rows, first, second, num_draws=200, num_examples=5)
    assert (found.agreed, found.fixed, found.broken) == (4, 11, 0)
    assert (macro.name, macro.first < macro.second, macro.is_real) == ("macro F1", True, True)
    place, name = found.classes
    assert (place.label, place.support, place.fixed, place.broken) == ("LOC", 12, 11, 0)
    assert (name.label, name.fixed, name.broken, name.is_real) == ("PER", 0, 1, False)
    assert set(TYPES) > {row.label for row in found.classes}, "a type that no text has is not compared"
    assert len(found.gained) == 5
    assert (found.gained[0].label, found.gained[0].first) == ("a b (PER), c (LOC)", "a b (PER)")


def test_students_that_say_the_same() -> None:
    rows = [Example(TEXT, "", (NAME,))] * 3
    found, macro = compare_spans(rows, predicted([(NAME,), (), ()]), predicted([(NAME,), (), ()]), num_draws=50, num_examples=5)
    assert (found.agreed, found.p_value, macro.p_value) == (3, 1.0, 1.0)
    assert (found.gained, found.lost) == ((), ())
