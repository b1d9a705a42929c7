from engine.reports import MinedRow, PoolRow
from student.uncertainty import least_sure, unasked


def test_texts_that_were_asked_about_in_other_letters_or_twice_or_empty_are_left_out() -> None:
    texts = ["Where is it?", "new one", " ", "", "NEW ONE!", "another"]
    assert unasked(texts, ["where is it"]) == ["new one", "another"]


def test_the_least_sure_come_first_and_no_more_than_are_wanted() -> None:
    rows = [MinedRow(name, "a", "b", confidence) for name, confidence in (("sure", 0.9), ("torn", 0.4), ("unsure", 0.5))]
    assert least_sure(rows, 2) == (PoolRow("torn", "b", 0.4), PoolRow("unsure", "b", 0.5))
    assert len(least_sure(rows, 9)) == 3


def test_pairs_are_asked_about_once_by_both_texts() -> None:
    pairs = [("a question", "an answer"), ("a question", "another"), ("A question?", "Another!"), ("a question", " "), ("", "another")]
    assert unasked(pairs, [("a question", "an answer.")]) == [("a question", "another")]
    rows = [MinedRow("a", "x", "y", 0.4, text_pair="b")]
    assert [row.content for row in least_sure(rows, 1)] == [("a", "b")]
