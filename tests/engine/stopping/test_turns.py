from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.reports import WeaknessReport
from engine.rundir import RunDir
from engine.stopping.stopping import Patience
from engine.stopping.turns import Ask, Asking, Stop, Turn, Wait, next_turn, note_asking, read_asking
from tests.engine.builders import make_report


def turn(
    last: int, reported: list[int], staleness: int, *, rounds: int = 9, reason: str | None = None, asking: Asking | None = None
) -> Turn:
    return next_turn(last, [make_report(round) for round in reported], staleness, rounds, lambda: reason, asking)


@pytest.mark.parametrize(
    ("last", "reported", "staleness", "expected"),
    [
        (0, [0], 0, Ask(1, 0)),
        (1, [0], 0, Wait()),
        (1, [0, 1], 0, Ask(2, 1)),
        (1, [0], 1, Ask(2, 0)),
        (2, [0], 1, Wait()),
        (2, [0, 1], 1, Ask(3, 1)),
        (2, [0, 2], 1, Ask(3, 2)),
        (2, [0], 2, Ask(3, 0)),
        (3, [0], 2, Wait()),
    ],
)
def test_so_many_rounds_may_wait_for_a_report(last: int, reported: list[int], staleness: int, expected: Turn) -> None:
    assert turn(last, reported, staleness) == expected


def test_no_more_rounds_are_asked_than_are_wanted() -> None:
    assert turn(3, [0, 2], 2, rounds=3) == Wait()
    assert turn(2, [0, 2], 2, rounds=3) == Ask(3, 2)


def test_what_a_report_says_ends_the_asking_only_when_it_is_about_all_that_was_asked() -> None:
    assert turn(3, [0, 2], 2, reason="enough") == Wait()
    assert turn(3, [0, 2, 3], 2, reason="enough") == Stop("enough")


def test_a_round_that_was_begun_is_asked_to_its_end_against_the_same_report() -> None:
    begun = Asking(4, 2)
    assert turn(3, [0, 2, 3], 2, reason="enough", asking=begun) == Ask(4, 2)
    assert turn(4, [0, 2, 4], 2, asking=begun) == Ask(5, 4)


def test_what_is_noted_is_read_back(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert read_asking(run) is None
    note_asking(run, Ask(4, 2))
    assert read_asking(run) == Asking(4, 2)


@given(
    staleness=st.integers(0, 3),
    rounds=st.integers(1, 8),
    patience=st.none() | st.integers(1, 3),
    losses=st.lists(st.floats(0.1, 2), min_size=9, max_size=9),
    moves=st.lists(st.sampled_from(["engine", "student", "engine killed", "student killed"]), max_size=80),
)
def test_however_the_two_take_turns_each_round_is_asked_and_learned_once(
    staleness: int, rounds: int, patience: int | None, losses: list[float], moves: list[str]
) -> None:
    """The run directory, as far as it tells whose turn it is: complete rounds, reports, asking.json, finish.json. Kills forget all else."""
    judge = Patience(rounds, patience, resets=True)
    answered: list[int] = []
    """By round, from 1 on: the report it answers."""
    reports = [make_report(0, loss=losses[0])]
    learned: list[int] = []
    asking: Asking | None = None
    begun: Ask | None = None
    taken: list[int] = []
    reason: str | None = None

    def engine() -> None:
        nonlocal asking, begun, reason
        if begun is None:
            match next_turn(len(answered), reports, staleness, rounds, lambda: judge.reason_to_stop(reports), asking):
                case Ask() as begun:
                    asking = Asking(begun.round, begun.report)
                case Stop(reason):
                    pass
                case Wait():
                    assert reports[-1].round < len(answered), "both wait for each other"
            return
        assert begun.round == len(answered) + 1
        assert len(answered) - begun.report <= staleness
        answered.append(begun.report)
        begun = None

    def student() -> None:
        nonlocal taken
        last = reports[-1].round
        if not taken:
            newest = len(answered) if staleness else min(last + 1, len(answered))
            taken = list(range(last + 1, newest + 1))
            return
        learned.extend(taken)
        reports.append(make_report(taken[-1], loss=losses[taken[-1]]))
        taken = []

    for move in [*moves, *["engine", "student"] * 40]:
        if reason is not None:
            break
        match move:
            case "engine":
                engine()
            case "student":
                student()
            case "engine killed":
                begun = None
            case _:
                taken = []
    assert reason is not None
    assert learned == list(range(1, len(answered) + 1))
    assert reports[-1].round == len(answered) <= rounds
    assert answered == sorted(answered)
    if staleness == 0:
        assert answered == list(range(len(answered)))


def test_patience_counts_the_rounds_that_a_report_is_about() -> None:
    def reports(*told: tuple[int, float]) -> list[WeaknessReport]:
        return [make_report(round, loss=loss) for round, loss in told]

    patience = Patience(rounds=10, patience=3, resets=True)
    assert patience.reason_to_stop(reports((0, 1.0), (1, 0.9), (3, 0.9))) is None
    assert patience.reason_to_stop(reports((0, 1.0), (1, 0.9), (4, 0.9))) == "no lower validation loss in 3 rounds"
    assert patience.reason_to_stop(reports((0, 1.0), (4, 0.9), (7, 0.8))) is None
    assert patience.reason_to_stop(reports((0, 1.0), (10, 0.9))) == "all 10 rounds done"
