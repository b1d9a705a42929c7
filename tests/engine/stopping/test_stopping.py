import pytest

from engine.config import StopConfig
from engine.reports import WeaknessReport
from engine.stopping.stopping import Patience, Payoff, best_round
from tests.engine.builders import make_report
from tests.engine.store.builders import make_round


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


def told(*hits: str) -> list[WeaknessReport]:
    return [make_report(round, hits=row) for round, row in enumerate(hits)]


STILL, BETTER = "1" * 900 + "0" * 100, "1" * 940 + "0" * 60


def test_rounds_that_gain_nothing_end_a_run_and_it_says_by_how_little() -> None:
    payoff = Payoff(StopConfig(window=2, min_gain=0.01))
    assert payoff.reason_to_stop(told(STILL, STILL), []) is None
    assert payoff.reason_to_stop(told(STILL, BETTER, BETTER), []) is None
    reason = payoff.reason_to_stop(told(STILL, BETTER, BETTER, BETTER), [])
    assert reason == (
        "rounds 2 to 3 gained +0.000 on validation (0 of 1000 rows fixed, 0 broken), at most +0.002 (95%): less than stop.min_gain = 0.01"
    )


def test_with_few_validation_rows_a_run_goes_on() -> None:
    payoff = Payoff(StopConfig(window=2, min_gain=0.01))
    assert payoff.reason_to_stop(told("10" * 20, "10" * 20, "10" * 20), []) is None


def test_a_gain_is_held_against_the_tokens_of_its_rounds() -> None:
    payoff = Payoff(StopConfig(window=1, min_gain_per_1000_tokens=0.001))
    cheap, dear = ([make_round(round, calls=calls) for round in (1, 2)] for calls in (100, 1000))
    assert payoff.reason_to_stop(told(STILL, STILL, BETTER), cheap) is None
    reason = payoff.reason_to_stop(told(STILL, STILL, BETTER), dear)
    assert reason is not None
    assert "for 1,000 of 120,000 teacher tokens: less than stop.min_gain_per_1000_tokens = 0.001" in reason


def test_who_sets_no_threshold_is_never_stopped_by_one() -> None:
    assert Payoff(StopConfig()).reason_to_stop(told(STILL, STILL, STILL, STILL), []) is None
