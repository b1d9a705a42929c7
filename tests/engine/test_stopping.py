import pytest

from engine.reports import WeaknessReport
from engine.stopping import Patience, best_round
from tests.engine.builders import make_report


def reports(*losses: float) -> list[WeaknessReport]:
    return [make_report(round, loss=loss) for round, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "resets", "stops"),
    [
        ((1.0,), True, False),
        ((1.0, 1.1), True, False),
        ((1.0, 1.1, 1.0), True, True),
        ((1.0, 1.1, 0.9, 1.0), True, False),
        ((1.0, 1.1, 0.9, 1.0), False, True),
        ((1.0, 1.1, 0.9, 1.0, 0.8), False, True),
        ((1.0, 0.9, 0.8, 0.7, 0.6), True, False),
    ],
)
def test_patience(losses: tuple[float, ...], resets: bool, stops: bool) -> None:
    reason = Patience(rounds=10, patience=2, resets=resets).reason_to_stop(reports(*losses))
    assert (reason == "no lower validation loss in 2 rounds") is stops


def test_rounds_are_counted_without_the_seed_student() -> None:
    patience = Patience(rounds=2, patience=5, resets=True)
    assert patience.reason_to_stop(reports(1.0, 0.9)) is None
    assert patience.reason_to_stop(reports(1.0, 0.9, 0.8)) == "all 2 rounds done"


def test_the_kept_round_is_the_first_with_the_lowest_loss() -> None:
    assert best_round(reports(1.0, 0.5, 0.7, 0.5)) == 1
    assert best_round(reports(0.4, 0.5)) == 0


def test_without_patience_all_rounds_are_done() -> None:
    patience = Patience(rounds=4, patience=None, resets=True)
    assert patience.reason_to_stop(reports(1.0, 1.1, 1.2, 1.3)) is None
    assert patience.reason_to_stop(reports(1.0, 1.1, 1.2, 1.3, 1.4)) == "all 4 rounds done"
    assert Patience(rounds=0, patience=None, resets=True).reason_to_stop(reports(1.0)) == "all 0 rounds done"
