from __future__ import annotations

import pytest
from msgspec.structs import replace

from engine.config import BudgetConfig
from engine.records import Call, Completion, RowCounts, Usage
from engine.stopping.budget import Budget
from tests.engine.store.builders import make_call, make_completion, make_round


def make_calls(tokens: int, accepted: int = 0) -> list[Call]:
    completion = make_completion("a1")
    assert isinstance(completion, Completion)
    outcome = replace(completion, usage=Usage(prompt_tokens=tokens // 2, completion_tokens=tokens - tokens // 2))
    return [make_call(outcome=outcome, rows=RowCounts(requested=accepted, accepted=accepted))]


def test_without_a_limit_everything_may_begin() -> None:
    budget = Budget(BudgetConfig(), [])
    assert all(budget.begin() for _ in range(1000))
    assert budget.reason_to_stop() is None


def test_what_is_under_way_counts_for_what_others_took() -> None:
    budget = Budget(BudgetConfig(teacher_tokens=1000), [])
    assert budget.begin()
    budget.spend(make_calls(200))
    assert [budget.begin() for _ in range(6)] == [True] * 4 + [False] * 2


def test_of_a_first_round_nothing_is_known_and_all_may_begin() -> None:
    budget = Budget(BudgetConfig(teacher_tokens=100), [])
    assert all(budget.begin() for _ in range(50))
    budget.spend(make_calls(60))
    assert not budget.begin()


def test_the_reason_names_the_limit_and_what_was_used() -> None:
    budget = Budget(BudgetConfig(teacher_tokens=1000), [])
    assert budget.begin()
    budget.spend(make_calls(990))
    assert budget.reason_to_stop() == "the budget of 1,000 teacher tokens is used up (990)"


def test_rows_are_a_budget_too() -> None:
    budget = Budget(BudgetConfig(accepted_rows=10), [])
    for _ in range(2):
        assert budget.begin()
        budget.spend(make_calls(100, accepted=4))
    assert budget.reason_to_stop() == "the budget of 10 accepted rows is used up (8)"


def test_rounds_of_earlier_processes_are_used_up() -> None:
    earlier = make_round(calls=5)
    spent = earlier.prompt_tokens + earlier.completion_tokens
    assert Budget(BudgetConfig(teacher_tokens=spent), [earlier]).reason_to_stop() is not None
    assert Budget(BudgetConfig(teacher_tokens=spent * 2), [earlier]).begin()


@pytest.mark.parametrize(("now", "may_begin"), [(5.0, True), (10.0, False)])
def test_seconds_count_from_the_first_process(now: float, may_begin: bool) -> None:
    times = iter([0.0, now])
    assert Budget(BudgetConfig(seconds=40), [], worked_s=30.0, clock=lambda: next(times)).begin() is may_begin


def test_gpu_seconds_and_money_are_used_up_by_the_second() -> None:
    def reason(now: float, **limits: float) -> str | None:
        return Budget(BudgetConfig(**limits), [], 30.0, clock=iter([0.0, now]).__next__, gpus=2, money_per_s=0.01).reason_to_stop()  # pyright: ignore[reportArgumentType]

    assert reason(9.0, gpu_seconds=80) is None
    assert reason(10.0, gpu_seconds=80) == "the budget of 80 GPU seconds is used up"
    assert reason(9.0, money=0.4) is None
    assert reason(10.0, money=0.4) == "the budget of 0.40 in money is used up"
