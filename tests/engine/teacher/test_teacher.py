from __future__ import annotations

import asyncio
import json
import time
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import ServerError
from engine.records import Completion, FailureReason, FinishReason, Message, Request, SamplingParams
from engine.teacher.endpoint import Endpoint
from engine.teacher.http import HttpClient, Reply
from engine.teacher.teacher import MAX_DETAIL_CHARS, MAX_RETRY_AFTER_S, HttpTeacher, TeacherError
from engine.testing.server import ScriptedServer
from tests.engine.asking import LABELS, make_request
from tests.engine.handlers import Handler, answering, make_endpoint, serving

GOOD: dict[str, Any] = {
    "choices": [{"message": {"content": "[]"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


async def complete(endpoint: Endpoint, request: Request | None = None, *, timeout_s: float = 10, stall_s: float = 10) -> Completion:
    async with HttpTeacher(endpoint, timeout_s=timeout_s, stall_s=stall_s) as teacher:
        (completion,) = await teacher.complete([request or make_request()])
        return completion


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


def make_coded(seed: int = 0) -> Request:
    return Request("scripted", (Message("user", "Which?"),), SamplingParams(0.0, 1.0, 2, seed, regex="[A-C][0-9]", top_logprobs=5))


async def test_log_probabilities_are_asked_for_and_kept() -> None:
    async with ScriptedServer() as server:
        completion = await complete(make_endpoint(server.base_url), make_coded())
        asked = server.last_body
    assert {name: asked[name] for name in ("structured_outputs", "logprobs", "top_logprobs", "max_tokens")} == {
        "structured_outputs": {"regex": "[A-C][0-9]"},
        "logprobs": True,
        "top_logprobs": 5,
        "max_tokens": 2,
    }
    assert "response_format" not in asked
    first, second = completion.logprobs
    assert first[0].token + second[0].token == completion.text
    assert (len(first), len(second)) == (5, 5)
    assert all(other.logprob <= first[0].logprob < 0 for other in first)


async def test_draws_keep_their_own_log_probabilities() -> None:
    async with ScriptedServer() as server, HttpTeacher(make_endpoint(server.base_url), timeout_s=10, stall_s=10) as teacher:
        together = await teacher.complete([make_coded(0), make_coded(1)])
        alone = [(await teacher.complete([make_coded(seed)]))[0] for seed in (0, 1)]
    assert [completion.logprobs for completion in together] == [completion.logprobs for completion in alone]
    assert together[0].logprobs != together[1].logprobs


@pytest.mark.parametrize("logprobs", [None, {"content": None}, {"content": []}])
async def test_a_server_that_leaves_log_probabilities_out_is_the_users_to_change(logprobs: object) -> None:
    reply = {**GOOD, "choices": [{"message": {"content": "A1"}, "finish_reason": "length", "logprobs": logprobs}]}
    async with serving(answering(reply)) as endpoint:
        with pytest.raises(ServerError, match=r"without the log-probabilities .* labelling\.soft = false"):
            await complete(endpoint, make_coded())


async def test_the_token_that_was_written_comes_first_and_once() -> None:
    top = [{"token": "A", "logprob": -0.1}, {"token": "B", "logprob": -2.5}]
    logprobs = {"content": [{"token": "B", "logprob": -2.5, "bytes": [66], "top_logprobs": top}]}
    reply = {**GOOD, "choices": [{"message": {"content": "B"}, "finish_reason": "length", "logprobs": logprobs}]}
    async with serving(answering(reply)) as endpoint:
        completion = await complete(endpoint, make_coded())
    assert completion.logprobs == ((("B", -2.5), ("A", -0.1)),)


async def test_an_answer_cut_off_is_a_completion() -> None:
    async with ScriptedServer(["truncated:1"]) as server:
        completion = await complete(make_endpoint(server.base_url))
    assert completion.finish_reason is FinishReason.LENGTH
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(completion.text)


async def test_the_name_on_the_wire_is_the_servers_own() -> None:
    async with ScriptedServer(model="alias") as server:
        request = make_request(model="/models/tiny")
        completion = await complete(make_endpoint(server.base_url, model="alias"), request)
        assert server.last_body["model"] == "alias"
    assert completion.request_id == request.id


# Draws.


def choice(text: str | None, index: int | None = None, *, finish_reason: str = "stop") -> dict[str, Any]:
    return {"message": {"content": text}, "finish_reason": finish_reason} | ({} if index is None else {"index": index})


async def complete_draws(body: object, num_draws: int) -> tuple[list[Completion], dict[str, Any]]:
    """The completions, and what was sent."""
    sent: list[dict[str, Any]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        sent.append(await request.json())
        return web.json_response(body)

    async with serving(handler) as endpoint, HttpTeacher(endpoint, timeout_s=10, stall_s=10) as teacher:
        return await teacher.complete([make_request(seed) for seed in range(7, 7 + num_draws)]), sent[0]


async def test_several_draws_are_one_question_and_come_in_the_order_of_their_seeds() -> None:
    choices = [choice("third", 2, finish_reason="length"), choice("first", 0), choice(None, 1)]
    completions, sent = await complete_draws(GOOD | {"choices": choices}, 3)
    assert (sent["n"], sent["seed"]) == (3, 7)
    assert [completion.text for completion in completions] == ["first", "", "third"]
    assert [completion.finish_reason for completion in completions] == [FinishReason.STOP, FinishReason.STOP, FinishReason.LENGTH]
    assert [completion.request_id for completion in completions] == [make_request(seed).id for seed in (7, 8, 9)]
    assert {completion.timings.attempts for completion in completions} == {1}


async def test_one_draw_asks_for_no_number() -> None:
    _, sent = await complete_draws(GOOD, 1)
    assert "n" not in sent


async def test_what_nobody_asked_for_is_left_out() -> None:
    completions, _ = await complete_draws(GOOD | {"choices": [choice("b", 1), choice("c", 2), choice("a", 0)]}, 2)
    assert [completion.text for completion in completions] == ["a", "b"]
    assert sum(completion.usage.prompt_tokens for completion in completions) == 3


@pytest.mark.parametrize(
    "choices",
    [[], [choice("a", 0)], [choice("a", 0), choice("b", 1)], [choice("a", 0), choice("b", 1), choice("c", 2, finish_reason="error")]],
)
async def test_a_draw_without_an_answer_is_a_bad_reply_for_all(choices: list[dict[str, Any]]) -> None:
    with pytest.raises(TeacherError) as caught:
        await complete_draws(GOOD | {"choices": choices}, 3)
    assert caught.value.reason is FailureReason.BAD_REPLY
    # Fewer than asked for is what a server answers that does not know `n`: the same request would be answered so again.
    assert caught.value.retryable is (len(choices) not in (1, 2))


@settings(max_examples=50)
@given(texts=st.lists(st.text(), min_size=1, max_size=16), prompt=st.integers(0, 10**6), completion=st.integers(0, 10**6))
def test_the_shares_of_draws_add_up(texts: list[str], prompt: int, completion: int) -> None:
    requests = [make_request(seed) for seed in range(len(texts))]
    body = {"choices": [choice(text, index) for index, text in enumerate(texts)]}
    body |= {"usage": {"prompt_tokens": prompt, "completion_tokens": completion}}

    async def ask() -> list[Completion]:
        teacher = HttpTeacher(make_endpoint("http://nowhere/v1"), timeout_s=1, stall_s=1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(HttpClient, "post", post)
            return await teacher.complete(requests)

    async def post(_client: HttpClient, _path: str, _body: bytes) -> Reply:
        return Reply(200, [], json.dumps(body).encode())

    completions = asyncio.run(ask())
    shares = [answer.usage for answer in completions]
    assert [answer.text for answer in completions] == texts
    assert sum(share.prompt_tokens for share in shares) == prompt
    assert sum(share.completion_tokens for share in shares) == completion
    assert min(share.completion_tokens for share in shares) >= 0
    assert max(share.prompt_tokens for share in shares) - min(share.prompt_tokens for share in shares) <= 1


# What goes wrong.


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


@pytest.mark.parametrize(
    ("text", "said"),
    [("<h1>Bad\n gateway</h1>", "<h1>Bad gateway</h1>"), ("", "(no message)"), ("x" * 999, "…"), ('{"a":' + "[" * 9999, "…")],
)
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


@settings(max_examples=50)
@given(
    value=st.text(st.characters(max_codepoint=255))
    | st.from_regex(r"[0-9]{1,2} Jan [0-9]{1,30} [0-9]:[0-9]:[0-9] [+-][0-9]{2,9}", fullmatch=True)
)
@example("1 Jan 99999999999999999999 0:0:0")
def test_whatever_the_server_says_it_is_not_left_alone_for_long(value: str) -> None:
    teacher = HttpTeacher(make_endpoint("http://nowhere/v1"), timeout_s=1, stall_s=1)

    async def post(_client: HttpClient, _path: str, _body: bytes) -> Reply:
        return Reply(503, [(b"retry-after", value.encode("latin-1"))], b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HttpClient, "post", post)
        with pytest.raises(TeacherError) as caught:
            asyncio.run(teacher.complete([make_request()]))
    assert caught.value.retry_after_s is None or 0 <= caught.value.retry_after_s <= MAX_RETRY_AFTER_S


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


@pytest.mark.parametrize("content", [b'{"choices": [{"message": {"content": "\xff"}}]}', b'{"x":' + b"[" * 9999, b"\xff", b""])
async def test_a_reply_that_nobody_could_read(content: bytes) -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=content)

    assert (await error_of(handler)).reason is FailureReason.BAD_REPLY


async def test_an_error_in_no_known_letters_is_an_error_all_the_same() -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=b'{"error": {"message": "\xff"}}', status=500)

    error = await error_of(handler)
    assert error.reason is FailureReason.SERVER_ERROR
    assert "message" in error.detail


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


async def test_an_answer_that_stops_in_the_middle_is_out_of_time() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"choices": [')
        await asyncio.Event().wait()
        return response

    async with serving(handler) as endpoint:
        with pytest.raises(TeacherError, match="stopped in the middle") as caught:
            await complete(endpoint, stall_s=0.05)
    assert caught.value.reason is FailureReason.TIMEOUT


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


# What a server says of itself.


def routes(**statuses: int) -> tuple[Handler, list[str]]:
    """A server with these paths only; and the paths it is asked for."""
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(text=f"this is {request.path}", status=statuses.get(request.path.rpartition("/")[2], 404))

    return handler, asked


@pytest.mark.parametrize(("status", "is_alive"), [(200, True), (401, True), (500, False), (503, False)])
async def test_a_server_with_health_is_as_alive_as_it_says(status: int, is_alive: bool) -> None:
    handler, asked = routes(health=status, models=200)
    async with serving(handler) as endpoint, HttpTeacher(endpoint, timeout_s=10, stall_s=10) as teacher:
        assert await teacher.is_alive() is is_alive
    assert asked == ["/health"]


@pytest.mark.parametrize(("status", "is_alive"), [(200, True), (401, True), (503, False)])
async def test_a_server_without_health_is_alive_if_it_lists_its_models(status: int, is_alive: bool) -> None:
    handler, asked = routes(models=status)
    async with serving(handler) as endpoint, HttpTeacher(endpoint, timeout_s=10, stall_s=10) as teacher:
        assert [await teacher.is_alive() for _ in range(2)] == [is_alive] * 2
    assert asked == ["/health", "/v1/models", "/v1/models"]


async def test_metrics_stand_beside_the_protocol() -> None:
    handler, asked = routes(metrics=200)
    async with serving(handler) as endpoint, HttpTeacher(endpoint, timeout_s=10, stall_s=10) as teacher:
        assert await teacher.metrics() == "this is /metrics"
    assert asked == ["/metrics"]


async def test_a_server_without_metrics_tells_nothing() -> None:
    async with serving(routes()[0]) as endpoint, HttpTeacher(endpoint, timeout_s=10, stall_s=10) as teacher:
        assert await teacher.metrics() is None


async def test_a_server_that_is_gone_is_not_alive_and_tells_nothing() -> None:
    endpoint = make_endpoint(f"http://127.0.0.1:{unused_port()}/v1")
    async with HttpTeacher(endpoint, timeout_s=10, stall_s=10) as teacher:
        assert not await teacher.is_alive()
        assert await teacher.metrics() is None


async def test_a_server_that_moves_is_asked_where_it_is_now() -> None:
    async with ScriptedServer() as old, ScriptedServer(model="renamed", api_key="secret") as new:
        async with HttpTeacher(make_endpoint(old.base_url), timeout_s=10, stall_s=10) as teacher:
            await teacher.complete([make_request()])
            teacher.move_to(make_endpoint(new.base_url, model="renamed", api_key="secret"))
            await teacher.complete([make_request()])
            assert await teacher.is_alive()
            assert teacher.num_connections == 1
        assert old.num_requests == new.num_requests == 1


async def test_who_waits_at_the_old_place_when_a_server_moves_has_lost_the_connection() -> None:
    is_asked = asyncio.Event()

    async def handler(_request: web.Request) -> web.StreamResponse:
        is_asked.set()
        await asyncio.Event().wait()
        return web.Response()

    async with serving(handler) as old, ScriptedServer() as new, HttpTeacher(old, timeout_s=10, stall_s=10) as teacher:
        waiting = asyncio.create_task(teacher.complete([make_request()]))
        await is_asked.wait()
        teacher.move_to(make_endpoint(new.base_url))
        with pytest.raises(TeacherError) as caught:
            await waiting
        assert caught.value.reason is FailureReason.CONNECTION
        assert len(await teacher.complete([make_request()])) == 1
