from io import StringIO

import pytest
from rich.console import Console

from engine.config import CostConfig
from engine.cost.cost import Shift, reckon
from engine.cost.predictions import SECONDS, Inputs, PredictionCost, Quality, Timing, break_even, set_beside
from engine.views.prediction_cost import prediction_cost_view

TEACHER, STUDENT, GPU = "teacher zero-shot", "onnx int8 cpu", "torch bfloat16 cuda"
INPUTS = (Inputs("long", 64, 1010.0, joined=True),)
TIMINGS = (
    Timing(TEACHER, "long", 64, (64.0, 70.0, 60.0), gpus=2, cut_share=0.0, failed=3, tokens_per_row=1500.0),
    Timing(STUDENT, "long", 64, (3.2, 3.2), gpus=0, cut_share=1.0, most_tokens=64),
    Timing(GPU, "long", 64, (0.64,), gpus=1, cut_share=1.0, most_tokens=64),
)
QUALITY = (Quality(TEACHER, 100, 0.7, 0.65, 2), Quality(STUDENT, 100, 0.9, 0.88))


def beside(prices: CostConfig, shift: Shift | None = None) -> PredictionCost:
    run = reckon((shift,), prices) if shift else None
    return set_beside(TEACHER, TIMINGS, QUALITY, INPUTS, prices, run, 950.0, ["a remark"])


@pytest.mark.parametrize(
    ("spent", "saved", "after"), [(10.0, 0.1, 100), (10.0, 3.0, 4), (0.0, 1.0, 0), (1.0, 0.0, None), (1.0, -1.0, None)]
)
def test_it_pays_from_the_first_prediction_that_makes_up_for_what_was_spent(spent: float, saved: float, after: int | None) -> None:
    assert break_even(spent, saved) == after


def test_without_prices_seconds_are_compared() -> None:
    found = beside(CostConfig())
    teacher, student, gpu = found.lines
    assert found.pays_in == SECONDS
    assert (teacher.times_faster, teacher.pays_after, teacher.per_1000) == (None, None, None)
    assert (teacher.ms_per_batch, teacher.spread_ms, teacher.rows_per_s) == (64_000, (60_000, 70_000), 1.0)
    assert (student.times_faster, student.times_cheaper) == (pytest.approx(20), None)
    # 950 s, and 1 - 0.05 s saved by each.
    assert student.pays_after == 1000
    assert gpu.times_faster == pytest.approx(100)


def test_with_prices_each_is_paid_for_what_it_uses() -> None:
    prices = CostConfig(gpu_hour_price=3.6, machine_hour_price=0.36)
    found = beside(prices, Shift(0.0, wall_s=1000.0, reserved_s=900.0, busy_s=500.0, gpus=2))
    teacher, student, gpu = found.lines
    # A second of the teacher: two GPUs at 0.001 and the machine at 0.0001.
    assert teacher.per_1000 == pytest.approx(2.1)
    assert student.per_1000 == pytest.approx(0.005)
    assert gpu.per_1000 == pytest.approx(0.011)
    assert student.times_cheaper == pytest.approx(420)
    assert gpu.times_cheaper == pytest.approx(2.1 / 0.011)
    assert found.run_money == pytest.approx(1800 * 0.001 + 1000 * 0.0001)
    assert found.pays_in == "USD"
    assert student.pays_after == 907  # 1.9 / (0.0021 - 0.000005)


def test_a_price_that_one_side_lacks_leaves_seconds() -> None:
    found = beside(CostConfig(gpu_hour_price=3.6), Shift(0.0, wall_s=1000.0, reserved_s=900.0, busy_s=500.0, gpus=2))
    teacher, student, _ = found.lines
    assert teacher.per_1000 == pytest.approx(2.0)
    assert (student.per_1000, student.times_cheaper, found.pays_in) == (None, None, SECONDS)


def test_scores_stand_with_the_way_that_has_them() -> None:
    teacher, student, gpu = beside(CostConfig()).lines
    assert (teacher.macro_f1, student.macro_f1, gpu.macro_f1) == (0.65, 0.88, None)


def test_a_student_that_saves_nothing_never_pays() -> None:
    slow = Timing(STUDENT, "long", 64, (100.0,), gpus=0, cut_share=0.0)
    found = set_beside(TEACHER, (TIMINGS[0], slow), (), INPUTS, CostConfig(), None, 950.0)
    console = Console(width=200, file=(file := StringIO()))
    console.print(prediction_cost_view(found))
    assert found.lines[1].pays_after is None
    assert file.getvalue().count("never") == 1


def test_the_view_has_all_of_it() -> None:
    console = Console(width=200, file=(file := StringIO()))
    console.print(prediction_cost_view(beside(CostConfig(gpu_hour_price=3.6, machine_hour_price=0.36, currency="EUR"))))
    shown = file.getvalue()
    for words in ("64 inputs of 1,010 tokens", "EUR for 1,000", "(3 unanswered)", "20.00 x", "64 tokens", "100%", "a remark", "macro F1"):
        assert words in shown
