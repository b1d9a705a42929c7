from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UserError
from engine.labels.label_codes import label_codes, matching, starts
from engine.testing.scores import codes_of


@given(st.integers(2, 125), st.integers(5, 26))
def test_codes_are_told_apart_and_no_place_has_more_characters_than_a_server_tells_of(num_labels: int, most: int) -> None:
    codes = label_codes(num_labels, most)
    assert len(set(codes)) == len(codes) == num_labels
    assert list(codes) == sorted(codes)
    assert len({len(code) for code in codes}) == 1
    for place in zip(*codes, strict=True):
        assert len(set(place)) <= most
    # A tokenizer that splits between letters and digits writes one token a character.
    assert all(re.fullmatch("[A-Z]([0-9]([A-Z])?)?", code) for code in codes)


@pytest.mark.parametrize(("num_labels", "length"), [(2, 1), (20, 1), (21, 2), (150, 2), (200, 2), (201, 3), (4000, 3)])
def test_how_many_labels_so_many_tokens_tell_apart(num_labels: int, length: int) -> None:
    assert len(label_codes(num_labels, 20)[0]) == length


def test_more_labels_than_codes_are_the_users_to_mend() -> None:
    with pytest.raises(UserError, match=r"4001 labels are too many .* 4000 codes; raise labelling\.top_logprobs"):
        label_codes(4001, 20)


@given(st.integers(2, 450), st.data())
def test_the_expression_matches_the_codes_and_nothing_else(num_labels: int, data: st.DataObject) -> None:
    codes = label_codes(num_labels, 20)
    start = data.draw(st.sampled_from(sorted(starts(codes))))
    chosen = codes[starts(codes)[start].start : starts(codes)[start].stop]
    assert chosen == tuple(code for code in codes if code.startswith(start))
    others = label_codes(4000, 20) if len(codes[0]) == 3 else label_codes(200 if len(codes[0]) == 2 else 20, 20)
    assert tuple(code for code in others if re.fullmatch(matching(chosen), code)) == chosen
    assert codes_of(matching(chosen)) == chosen


def test_the_expression_is_short() -> None:
    assert matching(label_codes(2, 20)) == "[A-B]"
    assert matching(label_codes(150, 20)) == "[A-O][0-9]"
    assert matching(label_codes(155, 20)) == "([A-O][0-9]|P[0-4])"
