from __future__ import annotations

import pytest

from engine.config import CostConfig, RunConfig, TeacherConfig, change_config
from engine.cost import prices
from engine.cost.prices import money_per_s, num_gpus, reserved_gpus
from engine.errors import UserError
from tests.engine.scripted_runs import make_config


def with_teachers(first: TeacherConfig, *others: TeacherConfig) -> RunConfig:
    return make_config("http://a:1/v1").model_copy(update={"teacher": first, "teachers": others})


def test_gpus_are_those_of_our_servers_and_one_for_each_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = TeacherConfig(model="a", extra_args=("--tensor_parallel_size=4", "-pp", "2"))
    elsewhere = TeacherConfig(model="b", endpoint=("http://a:1/v1", "http://b:1/v1"))
    monkeypatch.setattr(prices, "vllm_build", lambda: "gpu")
    assert reserved_gpus(with_teachers(ours, elsewhere)) == 10
    monkeypatch.setattr(prices, "vllm_build", lambda: "cpu")
    assert reserved_gpus(with_teachers(ours, elsewhere)) == 2
    stated = with_teachers(ours).model_copy(update={"cost": CostConfig(gpus=0.5)})
    assert reserved_gpus(stated) == 0.5


def test_what_vllm_will_not_understand_counts_as_one() -> None:
    assert num_gpus(("-tp", "many")) == 1
    assert num_gpus(("-tp", "2", "-tp", "3")) == 3


def test_money_is_rent_and_power() -> None:
    cost = CostConfig(gpu_hour_price=3.0, machine_hour_price=0.6, kwh_price=0.5, watts=1000)
    assert 3600 * money_per_s(cost, 2) == pytest.approx(6.0 + 0.6 + 0.5)
    assert money_per_s(CostConfig(kwh_price=0.5), 2) == 0


def test_a_budget_of_money_wants_a_price() -> None:
    config = make_config("http://a:1/v1")
    with pytest.raises(UserError, match="nothing costs anything by the second"):
        change_config(config, {"budget.money": 5, "cost.kwh_price": 0.3})
    assert change_config(config, {"budget.money": 5, "cost.gpu_hour_price": 2}).budget.money == 5
