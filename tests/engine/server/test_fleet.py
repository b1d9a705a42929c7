from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.config import EngineConfig, TeacherConfig
from engine.errors import ServerError, UserError
from engine.progress import Silent
from engine.records import Completion
from engine.rundir import RunDir
from engine.server.fleet import Fleet, open_fleet
from engine.server.server import VllmServer
from engine.server.supervisor import MAX_RESTARTS
from engine.teacher.batcher import Batcher
from engine.teacher.concurrency.controller import FIRST
from engine.teacher.endpoint import Endpoint
from engine.teacher.switchboard import Switchboard
from engine.teacher.teacher import HttpTeacher
from engine.testing.server import ScriptedServer
from tests.engine.asking import Records, make_lane, make_request
from tests.engine.servers import PROGRAM, make_model

NOWHERE = "http://127.0.0.1:9/v1"


def ignore(_note: dict[str, Any]) -> None:
    pass


class Notices(Silent):
    def __init__(self) -> None:
        self.notices: list[str] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)


def make_config(*endpoints: str) -> TeacherConfig:
    return TeacherConfig(model="scripted", endpoint=endpoints)


def make_batcher(fleet: Fleet) -> Batcher:
    return Batcher(fleet.lanes, attempts=4, random=Random(0), record=Records().record)


async def test_each_server_of_the_user_is_a_lane(tmp_path: Path) -> None:
    notes: list[dict[str, Any]] = []
    async with ScriptedServer() as one, ScriptedServer() as other:
        config = make_config(one.base_url, other.base_url)
        async with open_fleet(config, EngineConfig(), RunDir(tmp_path), Silent(), notes.append) as fleet:
            assert [lane.name for lane in fleet.lanes] == [one.base_url, other.base_url]
            assert not any(lane.is_supervised for lane in fleet.lanes)
            assert fleet.model == "scripted"
            async with make_batcher(fleet) as batcher:
                asking = [batcher.ask(make_request(10 * number)) for number in range(100)]
                outcomes = await asyncio.gather(*asking)
                await fleet.watch(batcher)  # not ours to mend: returns
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert min(one.num_requests, other.num_requests) > 20
    assert notes == [{"endpoint": server.base_url, "model": "scripted"} for server in (one, other)]


@pytest.mark.parametrize(("concurrency", "limits"), [(7, {7}), (None, {FIRST})])
async def test_the_users_number_is_the_limit_of_each_server(tmp_path: Path, concurrency: int | None, limits: set[int]) -> None:
    async with ScriptedServer() as one, ScriptedServer() as other:
        config = make_config(one.base_url, other.base_url)
        async with open_fleet(config, EngineConfig(concurrency=concurrency), RunDir(tmp_path), Silent(), ignore) as fleet:
            assert {lane.limit for lane in fleet.lanes} == limits


async def test_teachers_of_ours_get_a_server_and_a_log_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.server.fleet.VllmServer", partial(VllmServer, program=PROGRAM, device="cpu"))
    models = [str(make_model(tmp_path / name)) for name in ("big", "small")]
    big, small = (TeacherConfig(model=model, extra_args=("--fake", "serve")) for model in models)
    run, notes = RunDir(tmp_path / "run"), list[dict[str, Any]]()
    run.create()
    async with open_fleet(big, EngineConfig(), run, Silent(), notes.append, (small,)) as fleet:
        assert [each.model for each in fleet.all] == ["big", "small"]
        assert [lane.is_supervised for lane in fleet.all_lanes] == [True, True]
        batchers = {each.model: Batcher(each.lanes, attempts=4, random=Random(0), record=Records().record) for each in fleet.all}
        async with Switchboard(batchers) as switchboard:
            watching = asyncio.create_task(fleet.watch(switchboard))
            outcomes = await asyncio.gather(*(switchboard.ask(make_request(model=model)) for model in batchers))
            watching.cancel()
            await asyncio.wait([watching])
    assert all(isinstance(outcome, Completion) for outcome in outcomes)
    assert [path.name for path in sorted(run.logs.iterdir())] == ["server-2.log", "server.log"]
    assert [(note.get("other_teacher"), "revision" in note) for note in notes] == [(None, True), (models[1], False)]


async def test_of_several_servers_one_may_be_missing(tmp_path: Path) -> None:
    notices = Notices()
    async with (
        ScriptedServer() as server,
        open_fleet(make_config(NOWHERE, server.base_url), EngineConfig(), RunDir(tmp_path), notices, ignore) as fleet,
    ):
        assert [lane.name for lane in fleet.lanes] == [server.base_url]
    assert len(notices.notices) == 1
    assert NOWHERE in notices.notices[0]


async def test_no_server_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no server answers"):
        async with open_fleet(make_config(NOWHERE), EngineConfig(), RunDir(tmp_path), Silent(), ignore):
            pass


async def test_a_server_with_another_model_is_the_users_to_mend(tmp_path: Path) -> None:
    async with ScriptedServer(model="other") as server:
        with pytest.raises(UserError, match="other"):
            async with open_fleet(make_config(server.base_url), EngineConfig(), RunDir(tmp_path), Silent(), ignore):
                pass


async def test_leaving_closes_all_connections(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        async with (
            open_fleet(make_config(server.base_url), EngineConfig(), RunDir(tmp_path), Silent(), ignore) as fleet,
            make_batcher(fleet) as batcher,
        ):
            await asyncio.gather(*(batcher.ask(make_request(10 * number)) for number in range(20)))
            assert server.num_connections > 0
        for _ in range(100):
            await asyncio.sleep(0.001)
            if server.num_connections == 0:
                break
        assert server.num_connections == 0


class Dying(ScriptedServer):
    """Says when it is dead."""

    def __init__(self, *behaviours: str) -> None:
        super().__init__(behaviours or ("instant",))
        self.died = asyncio.Event()

    def _vanish(self) -> None:
        super()._vanish()
        self.died.set()


class Mortal:
    """Stands in for a vLLM of ours: a new scripted server after each death."""

    start_s = 0.5

    def __init__(self, *servers: Dying) -> None:
        self._servers = servers
        self._num_deaths = 0

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self._servers[self._num_deaths].base_url, "scripted")

    async def ended(self) -> str:
        await self._servers[self._num_deaths].died.wait()
        return "exit status 1"

    async def restart(self) -> None:
        self._num_deaths += 1

    def last_words(self) -> str:
        return ""


async def test_a_server_of_ours_that_dies_is_brought_back_and_nothing_answered_is_asked_again() -> None:
    notes: list[dict[str, Any]] = []
    records = Records()
    first, second, third = Dying("die:10"), Dying("latency:0.01", "die:10"), Dying()
    async with first, second, third:
        server = Mortal(first, second, third)
        async with HttpTeacher(server.endpoint, timeout_s=10, stall_s=10) as teacher:
            lane = make_lane(teacher, 4, is_supervised=True)
            fleet = Fleet((lane,), "scripted", cast(VllmServer, server), 300.0, Silent(), notes.append)
            async with Batcher(fleet.lanes, attempts=4, random=Random(0), record=records.record, patience_s=0.0) as batcher:
                watching = asyncio.create_task(fleet.watch(batcher))
                outcomes = await asyncio.gather(*(batcher.ask(make_request(10 * number)) for number in range(60)))
                statistics = batcher.statistics()
                watching.cancel()
                await asyncio.wait([watching])
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert statistics.sent <= 60 + 2 * 4 + 8
        assert len(notes) == 2
        assert all("ended (exit status 1)" in note["restart"]["reason"] for note in notes)


async def test_a_server_of_ours_beyond_help_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ended() -> str:
        await asyncio.sleep(0)
        return "exit status 1"

    async def restart() -> None:
        pass

    server: Any = SimpleNamespace(
        endpoint=Endpoint(NOWHERE, "scripted"), ended=ended, restart=restart, start_s=0.1, last_words=lambda: ": out of memory"
    )
    async with HttpTeacher(server.endpoint, timeout_s=1, stall_s=1) as teacher:
        lane = make_lane(teacher, is_supervised=True)
        fleet = Fleet((lane,), "scripted", server, 300.0, Silent(), ignore)
        async with make_batcher(fleet) as batcher:
            with pytest.raises(ServerError, match=f"{MAX_RESTARTS} restarts.*out of memory"):
                await fleet.watch(batcher)
