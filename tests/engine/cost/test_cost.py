import pytest

from engine.config import CostConfig
from engine.cost.cost import Shift, at_end, reckon
from engine.cost.words import COST_COLUMNS, amount, cost_glance, cost_line, cost_rows

HOUR = 3600.0
FIRST = Shift(0.0, wall_s=2 * HOUR, reserved_s=HOUR, busy_s=HOUR / 2, gpus=2)
SECOND = Shift(9e4, wall_s=HOUR, reserved_s=HOUR, busy_s=HOUR / 4, gpus=2)


def test_processes_add_up() -> None:
    cost = reckon((FIRST, SECOND), CostConfig(gpu_hour_price=3, machine_hour_price=1), rows=500, tokens=20_000, gain=0.05)
    assert cost is not None
    assert (cost.processes, cost.wall_s, cost.reserved_s, cost.busy_s) == (2, 3 * HOUR, 2 * HOUR, 0.75 * HOUR)
    assert (cost.reserved_gpu_s, cost.busy_gpu_s, cost.busy_share) == (4 * HOUR, 1.5 * HOUR, 0.375)
    assert cost.money == pytest.approx(4 * 3 + 3 * 1)
    assert cost.busy_money == pytest.approx(1.5 * 3 + 0.75 * 1)
    assert cost.per_row is not None
    assert cost.per_1000_rows is not None
    assert cost.per_f1_point is not None
    assert cost.per_1000_tokens is not None
    assert cost.per_row.money == pytest.approx(15 / 500)
    assert cost.per_1000_rows.gpu_s == pytest.approx(4 * HOUR / 0.5)
    assert cost.per_f1_point.money == pytest.approx(15 / 5)
    assert cost.per_1000_tokens.busy_gpu_s == pytest.approx(1.5 * HOUR / 20)


@pytest.mark.parametrize("gain", [None, 0.0, -0.1])
def test_what_gained_nothing_has_no_price_by_point(gain: float | None) -> None:
    cost = reckon((FIRST,), CostConfig(gpu_hour_price=3), gain=gain)
    assert cost is not None
    assert cost.per_f1_point is None
    assert cost.per_row is None


def test_a_run_that_noted_nothing_has_no_cost() -> None:
    assert reckon((), CostConfig(gpu_hour_price=3)) is None


def test_measured_energy_and_given_watts_add_up() -> None:
    measured = Shift(0.0, wall_s=HOUR, joules=3.6e6, joules_from=("rapl",))
    given = Shift(0.0, wall_s=2 * HOUR)
    cost = reckon((measured, given), CostConfig(kwh_price=0.5, watts=250))
    assert cost is not None
    assert cost.kwh == pytest.approx(1.5)
    assert cost.kwh_from == ("given", "rapl")
    assert cost.money == pytest.approx(0.75)


def test_energy_that_nobody_measures_is_unknown_and_said_so() -> None:
    cost = reckon((FIRST,), CostConfig(kwh_price=0.5))
    assert cost is not None
    assert (cost.kwh, cost.money) == (None, None)
    assert any("cost.watts" in note for note in cost.notes)


def test_notes_say_what_is_not_in_it() -> None:
    def notes(shift: Shift, prices: CostConfig) -> str:
        cost = reckon((shift,), prices)
        assert cost is not None
        return "; ".join(cost.notes)

    counted = Shift(0.0, HOUR, HOUR, HOUR, gpus=1, joules=1.0, joules_from=("rapl",))
    assert "without that of the GPUs" in notes(counted, CostConfig())
    assert "GPUs alone" in notes(Shift(0.0, HOUR, HOUR, HOUR, gpus=1, joules=1.0, joules_from=("nvml",)), CostConfig())
    assert notes(Shift(0.0, HOUR, HOUR, HOUR, gpus=1, joules=1.0, joules_from=("nvml", "rapl")), CostConfig()) == ""
    assert "assumed" in notes(Shift(0.0, HOUR, HOUR, HOUR, gpus=1, gpus_from="assumed"), CostConfig())
    assert "machine_hour_price" in notes(Shift(0.0, HOUR), CostConfig(gpu_hour_price=2))


def test_the_end_is_told_in_money_or_in_gpu_hours() -> None:
    prices = CostConfig(gpu_hour_price=3)
    cost = reckon((FIRST,), prices)
    assert cost is not None
    end = at_end(cost, FIRST, prices, (HOUR, 2 * HOUR))
    assert end is not None
    assert (end.low, end.high, end.unit) == (pytest.approx(6 + 6), pytest.approx(6 + 12), "USD")
    free = reckon((FIRST,), CostConfig())
    assert free is not None
    end = at_end(free, FIRST, CostConfig(), (HOUR, 2 * HOUR))
    assert end is not None
    assert (end.low, end.high, end.unit) == (4, 6, "GPU-hours")
    assert at_end(free, Shift(0.0, HOUR), CostConfig(), (1, 2)) is None


def test_energy_goes_on_as_it_was() -> None:
    prices = CostConfig(kwh_price=1)
    shift = Shift(0.0, HOUR, joules=3.6e6, joules_from=("rapl",))
    cost = reckon((shift,), prices)
    assert cost is not None
    end = at_end(cost, shift, prices, (HOUR, HOUR))
    assert end is not None
    assert end.low == pytest.approx(2)


@pytest.mark.parametrize(
    ("value", "words"), [(None, ""), (0.0, "0"), (1234.5, "1,234"), (1.5, "1.50"), (0.012345, "0.0123"), (0.00000004567, "0.0000000457")]
)
def test_amounts_have_three_digits_and_no_power_of_ten(value: float | None, words: str) -> None:
    assert amount(value) == words


def test_the_table_has_a_value_or_a_gap_under_each_heading() -> None:
    for shifts in ((FIRST, SECOND), (Shift(0.0, HOUR, HOUR, 1.0),)):
        cost = reckon(shifts, CostConfig(gpu_hour_price=3, kwh_price=1, watts=100, currency="EUR"), rows=10, tokens=10, gain=0.1)
        assert cost is not None
        lines = cost_rows(cost)
        assert {len(line) for line in lines} == {len(COST_COLUMNS)}
        assert any(line[0] == "EUR" and all(line) for line in lines)


def test_the_line_says_what_is_known() -> None:
    cost = reckon((FIRST, SECOND), CostConfig(gpu_hour_price=3))
    assert cost is not None
    assert cost_line(cost) == "12.00 USD (4.50 for the busy time alone), 4.00 GPU-hours reserved, 1.50 busy"
    bare = reckon((Shift(0.0, HOUR, 1000.0, 250.0),), CostConfig())
    assert bare is not None
    assert cost_line(bare) == "no GPU; the server was busy for 25% of 1,000 s"


def test_a_glance_tells_where_it_will_end() -> None:
    prices = CostConfig(gpu_hour_price=3)
    cost = reckon((FIRST,), prices)
    assert cost is not None
    end = at_end(cost, FIRST, prices, (HOUR, 2 * HOUR))
    assert cost_glance(cost, end) == "6.00 USD, 2.00 GPU-hours; at the end 12.00 to 18.00 USD; servers busy 50%"
    bare = reckon((Shift(0.0, HOUR, 1000.0, 250.0),), CostConfig())
    assert bare is not None
    assert cost_glance(bare, None) == "servers busy 25%"
