from __future__ import annotations

import pytest
from aiohttp.test_utils import unused_port

from engine.errors import ServerError, UserError
from engine.teacher.discovery import find_model, find_models
from engine.testing.server import ScriptedServer
from tests.engine.handlers import answering, make_endpoint, serving


async def test_finding_the_model_needs_somebody_there() -> None:
    with pytest.raises(ServerError, match="no server answers at"):
        await find_model(make_endpoint(f"http://127.0.0.1:{unused_port()}/v1"))


@pytest.mark.parametrize(("api_key", "said"), [(None, "none was given"), ("wrong", "the one given is not accepted")])
async def test_finding_the_model_says_that_a_key_is_wanted(api_key: str | None, said: str) -> None:
    async with ScriptedServer(api_key="secret") as server:
        with pytest.raises(UserError, match=said):
            await find_model(make_endpoint(server.base_url, api_key=api_key))
        assert (await find_model(make_endpoint(server.base_url, api_key="secret"))).model == "scripted"


@pytest.mark.parametrize(("status", "kind"), [(404, UserError), (500, ServerError), (200, UserError)])
async def test_finding_the_model_where_there_is_no_list(status: int, kind: type[Exception]) -> None:
    async with serving(answering(text="hello", status=status)) as endpoint:
        with pytest.raises(kind, match=f"/models answered status {status}"):
            await find_model(endpoint)


async def test_finding_a_model_that_is_not_served_lists_those_that_are() -> None:
    async with ScriptedServer(model="org/served") as server:
        with pytest.raises(UserError, match="does not serve 'org/wanted'; it serves: org/served"):
            await find_model(make_endpoint(server.base_url, model="org/wanted"))


async def test_a_folder_is_found_under_the_name_its_server_gives_it() -> None:
    async with ScriptedServer(model="teacher-v2", root="/models/tiny") as server:
        assert (await find_model(make_endpoint(server.base_url, model="/models/tiny"))).model == "teacher-v2"


async def test_of_two_endpoints_one_may_be_missing() -> None:
    notices: list[str] = []
    gone = make_endpoint(f"http://127.0.0.1:{unused_port()}/v1")
    async with ScriptedServer() as server:
        there = make_endpoint(server.base_url)
        assert await find_models([gone, there], notices.append) == [there]
    (notice,) = notices
    assert notice.startswith(f"no server answers at {gone.base_url} (")
    assert notice.endswith("; going on without it")
    with pytest.raises(ServerError, match="no server answers at"):
        await find_models([gone, gone], notices.append)
    assert len(notices) == 1


async def test_an_endpoint_that_serves_something_else_is_a_mistake_not_a_loss() -> None:
    async with ScriptedServer() as server, ScriptedServer(model="org/other") as other:
        with pytest.raises(UserError, match="does not serve 'scripted'; it serves: org/other"):
            await find_models([make_endpoint(server.base_url), make_endpoint(other.base_url)], pytest.fail)
