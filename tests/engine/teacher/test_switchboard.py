from __future__ import annotations

import asyncio
from random import Random

import pytest

from engine.records import Completion
from engine.teacher.batcher import Batcher
from engine.teacher.lane import Lane, Reach
from engine.teacher.switchboard import Switchboard
from engine.testing.teacher import ScriptedTeacher
from tests.engine.asking import Records, make_lane, make_request


def make_switchboard(**lanes: Lane) -> Switchboard:
    records = Records()
    return Switchboard({model: Batcher([lane], attempts=2, random=Random(0), record=records.record) for model, lane in lanes.items()})


async def test_a_request_goes_to_the_servers_of_its_model() -> None:
    big, small = ScriptedTeacher(lambda _: "big"), ScriptedTeacher(lambda _: "small")
    async with make_switchboard(big=make_lane(big, 4), small=make_lane(small, 8)) as switchboard:
        assert switchboard.limit == 12
        asking = [switchboard.ask(make_request(seed, model=model)) for seed in range(5) for model in ("big", "small")]
        outcomes = await asyncio.gather(*asking)
        assert [outcome.text for outcome in outcomes if isinstance(outcome, Completion)] == ["big", "small"] * 5
        statistics = switchboard.statistics()
    assert (statistics.asked, statistics.completed, statistics.limit) == (10, 10, 12)
    assert ({request.model for request in big.requests}, {request.model for request in small.requests}) == ({"big"}, {"small"})


async def test_a_server_that_is_brought_back_is_that_of_one_teacher() -> None:
    big, small = make_lane(ScriptedTeacher(lambda _: "")), make_lane(ScriptedTeacher(lambda _: ""))
    async with make_switchboard(big=big, small=small) as switchboard:
        switchboard.suspend(small)
        assert (big.reach, small.reach) == (Reach.OPEN, Reach.SUSPENDED)
        waiting = asyncio.ensure_future(switchboard.ask(make_request(model="small")))
        assert isinstance(await switchboard.ask(make_request(model="big")), Completion)
        assert not waiting.done()
        switchboard.resume(small)
        assert isinstance(await waiting, Completion)


async def test_nobody_is_asked_outside_the_block() -> None:
    async with make_switchboard(big=make_lane(ScriptedTeacher(lambda _: ""))) as switchboard:
        pass
    with pytest.raises(RuntimeError, match="outside"):
        await switchboard.ask(make_request(model="big"))
