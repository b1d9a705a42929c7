from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.reports import MinedRow
from student.diagnosis import Mined
from student.mined import MinedLog


def make_mined(round: int, number: int, is_right: bool = True, learned: int = 10) -> Mined:
    return Mined(round, MinedRow(f"row {number} of {round}", "a", "a" if is_right else "b", 0.5), 0.5, learned)


def by_text(predictions: list[Mined]) -> list[Mined]:
    return sorted(predictions, key=lambda mined: mined.row.text)


def test_a_prediction_that_is_made_again_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    log = MinedLog(tmp_path / "mined", 10, 10)
    log.add(0, [make_mined(0, 1, is_right=False), make_mined(0, 2)])
    again = make_mined(0, 1, is_right=True, learned=99)
    log.add(1, [again, make_mined(1, 1)])
    assert by_text(log.newest) == [again, make_mined(1, 1), make_mined(0, 2)]
    assert by_text(log.read(1, 100)) == [again, make_mined(1, 1), make_mined(0, 2)]
    assert by_text(log.read(0, 100)) == [make_mined(0, 1, is_right=False), make_mined(0, 2)]
    assert len(log.read(1, 1)) == 1


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_who_goes_on_knows_what_who_stayed_knows(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Rounds of new rows, with some older ones predicted again."""
    folder = tmp_path_factory.mktemp("mined")
    wanted = data.draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    log = MinedLog(folder, *wanted)
    rows: list[tuple[int, int]] = []
    for round in range(data.draw(st.integers(1, 5))):
        again = data.draw(st.lists(st.sampled_from(rows), unique=True)) if rows else []
        new = [(round, number) for number in range(data.draw(st.integers(0, 4)))]
        log.add(round, [make_mined(*row, is_right=data.draw(st.booleans()), learned=round) for row in (*again, *new)])
        rows += new
        restored = MinedLog(folder, *wanted)
        restored.restore(round)
        assert restored.newest == log.newest
        everything = log.read(round, 1000)
        assert sorted((mined.round, mined.row.text) for mined in everything) == sorted((one, f"row {two} of {one}") for one, two in rows)
