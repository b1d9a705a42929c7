from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from engine.endpoint import Endpoint
from engine.errors import ServerError, UserError
from engine.records import Completion, FailureReason, FinishReason, Request
from engine.teacher import MAX_DETAIL_CHARS, HttpTeacher, TeacherError, find_model
from engine.testing.server import ScriptedServer
from tests.engine.asking import LABELS, make_request

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
GOOD: dict[str, Any] = {
    "choices": [{"message": {"content": "[]"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


def make_endpoint(base_url: str, *, model: str = "scripted", api_key: str | None = None) -> Endpoint:
    return Endpoint(base_url, model, api_key)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncGenerator[Endpoint]:
    """A server with one handler for whatever is asked."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    async with TestServer(app) as server:
        yield make_endpoint(str(server.make_url("/v1")))


def answering(body: object = None, *, text: str | None = None, status: int = 200, headers: dict[str, str] | None = None) -> Handler:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(text=json.dumps(body) if text is None else text, status=status, headers=headers)

    return handler


async def complete(endpoint: Endpoint, request: Request | None = None, *, timeout_s: float = 10) -> Completion:
    async with HttpTeacher(endpoint, timeout_s=timeout_s, concurrency=1) as teacher:
        return await teacher.complete(request or make_request())


async def error_of(handler: Handler) -> TeacherError:
    async with serving(handler) as endpoint:
        with pytest.raises(TeacherError) as caught:
            await complete(endpoint)
    return caught.value


async def test_asks_in_the_words_of_the_protocol() -> None:
    async with ScriptedServer(api_key="secret") as server:
        request = make_request(5)
        schema = json.loads(request.sampling.json_schema or "")
        completion = await complete(make_endpoint(server.base_url, api_key="secret"), request)
        assert server.last_body == {
            "model": "scripted",
            "messages": [{"role": "system", "content": "You write rows."}, {"role": "user", "content": "Write some."}],
            "temperature": 1.0,
            "top_p": 0.95,
            "max_tokens": 64,
            "seed": 5,
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        }
    assert completion.request_id == request.id
    assert completion.finish_reason is FinishReason.STOP
    assert completion.usage.prompt_tokens == 5
    assert completion.timings.attempts == 1
    assert completion.timings.latency_s > 0
    assert abs(completion.timings.started_at - time.time()) < 60
    assert {row["label"] for row in json.loads(completion.text)} == set(LABELS)


async def test_a_free_answer_has_no_response_format() -> None:
    async with ScriptedServer() as server:
        await complete(make_endpoint(server.base_url), make_request(num_rows=None))
        assert "response_format" not in server.last_body


async def test_an_answer_cut_off_is_a_completion() -> None:
    async with ScriptedServer(["truncated:1"]) as server:
        completion = await complete(make_endpoint(server.base_url))
    assert completion.finish_reason is FinishReason.LENGTH
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(completion.text)


async def test_as_many_are_in_flight_as_were_ordered() -> None:
    concurrency = 150  # the connector's own limit would be 100
    arrived = 0
    everybody = asyncio.Event()

    async def handler(_request: web.Request) -> web.StreamResponse:
        nonlocal arrived
        arrived += 1
        if arrived == concurrency:
            everybody.set()
        await everybody.wait()
        return web.json_response(GOOD)

    async with serving(handler) as endpoint, HttpTeacher(endpoint, timeout_s=30, concurrency=concurrency) as teacher:
        await asyncio.gather(*(teacher.complete(make_request(seed)) for seed in range(concurrency)))


@pytest.mark.parametrize(
    ("status", "reason", "retryable"),
    [
        (302, FailureReason.BAD_REPLY, True),
        (400, FailureReason.REFUSED, False),
        (408, FailureReason.TIMEOUT, True),
        (422, FailureReason.REFUSED, False),
        (429, FailureReason.OVERLOADED, True),
        (500, FailureReason.SERVER_ERROR, True),
        (502, FailureReason.SERVER_ERROR, True),
        (503, FailureReason.OVERLOADED, True),
    ],
)
async def test_a_status_is_classified_once(status: int, reason: FailureReason, retryable: bool) -> None:
    error = await error_of(answering({"error": {"message": "what was wrong"}}, status=status, headers={"Location": "/elsewhere"}))
    assert error.reason is reason
    assert error.retryable is retryable
    assert error.retry_after_s is None
    assert error.detail == f"status {status}: what was wrong"


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_every_request_would_meet_stops_the_run(status: int) -> None:
    async with serving(answering({"error": "Unauthorized"}, status=status)) as endpoint:
        with pytest.raises(ServerError, match=rf"no longer serves 'scripted' to us \(status {status}: Unauthorized\)"):
            await complete(endpoint)


@pytest.mark.parametrize(("text", "said"), [("<h1>Bad\n gateway</h1>", "<h1>Bad gateway</h1>"), ("", "(no message)"), ("x" * 999, "…")])
async def test_a_servers_words_are_kept_short_whatever_they_are(text: str, said: str) -> None:
    error = await error_of(answering(text=text, status=502))
    assert error.detail.endswith(said)
    assert len(error.detail) <= MAX_DETAIL_CHARS + len("status 502: ")


@pytest.mark.parametrize(
    ("value", "expected_s"), [("2.5", 2.5), ("-1", 0.0), ("86400", 120.0), ("nan", 0.0), ("soon", None), (formatdate(0, usegmt=True), 0.0)]
)
async def test_how_long_the_server_wants_to_be_left_alone(value: str, expected_s: float | None) -> None:
    error = await error_of(answering(status=503, headers={"Retry-After": value}))
    assert error.retry_after_s == expected_s


async def test_a_date_to_come_back_is_a_duration() -> None:
    error = await error_of(answering(status=429, headers={"Retry-After": formatdate(time.time() + 60, usegmt=True)}))
    assert error.retry_after_s == pytest.approx(60, abs=20)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {"choices": [], "usage": GOOD["usage"]},
        {"choices": GOOD["choices"]},
        {"choices": [{"message": {"content": "[]"}, "finish_reason": "abort"}], "usage": GOOD["usage"]},
        {"choices": [{"message": {"content": "[]"}}], "usage": GOOD["usage"]},
        {"choices": [{"message": {"content": 5}, "finish_reason": "stop"}], "usage": GOOD["usage"]},
    ],
)
async def test_a_reply_that_breaks_the_protocol(body: object) -> None:
    error = await error_of(answering(body))
    assert error.reason is FailureReason.BAD_REPLY
    assert error.retryable


async def test_a_reply_that_is_no_json() -> None:
    async with ScriptedServer(["malformed:1"]) as server:
        with pytest.raises(TeacherError) as caught:
            await complete(make_endpoint(server.base_url))
    assert caught.value.reason is FailureReason.BAD_REPLY


async def test_no_words_at_all_are_an_empty_completion() -> None:
    async with serving(answering(GOOD | {"choices": [{"message": {"content": None}, "finish_reason": "length"}]})) as endpoint:
        assert (await complete(endpoint)).text == ""


async def test_a_connection_that_drops() -> None:
    async with ScriptedServer(["reset:1"]) as server:
        with pytest.raises(TeacherError) as caught:
            await complete(make_endpoint(server.base_url))
    assert caught.value.reason is FailureReason.CONNECTION
    assert caught.value.retryable


async def test_a_connection_that_is_refused() -> None:
    with pytest.raises(TeacherError) as caught:
        await complete(make_endpoint(f"http://127.0.0.1:{unused_port()}/v1"))
    assert caught.value.reason is FailureReason.CONNECTION


async def test_no_answer_in_time_and_the_server_is_told() -> None:
    gone = asyncio.Event()

    async def handler(_request: web.Request) -> web.StreamResponse:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    async with TestServer(app, handler_cancellation=True) as server:
        with pytest.raises(TeacherError) as caught:
            await complete(make_endpoint(str(server.make_url("/v1"))), timeout_s=0.05)
        await gone.wait()
    assert caught.value.reason is FailureReason.TIMEOUT
    assert caught.value.retryable


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
