"""Asks a teacher one request over HTTP, once. Knows the protocol; knows nothing of retries, journals or how many are in flight.

What goes wrong is classified here, by type and status, and nowhere else: a TeacherError is about this request or this moment (`retryable`
says whether the same request may fare better later), a RefluxError about everything that would be asked after it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Protocol

import aiohttp
import msgspec

from engine.endpoint import Endpoint, match_served
from engine.errors import ServerError, UserError
from engine.records import Completion, FailureReason, FinishReason, Request, Timings, Usage

CONNECT_TIMEOUT_S = 10.0
KEEPALIVE_S = 4.0
"""Below the 5 s after which uvicorn, and so vLLM, closes an idle connection: a request sent at that moment would be lost."""
MAX_DETAIL_CHARS = 300
MAX_RETRY_AFTER_S = 120.0


class TeacherError(Exception):
    """One attempt that brought no completion."""

    def __init__(self, reason: FailureReason, detail: str, *, retryable: bool | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.retryable = reason is not FailureReason.REFUSED if retryable is None else retryable
        self.retry_after_s = retry_after_s
        """How long the server asks to be left alone; None if it did not say."""


class Teacher(Protocol):
    """Answers requests; many at once. The seam where tests and other back-ends stand in."""

    async def complete(self, request: Request) -> Completion:
        """One attempt, as the only one (`timings.attempts` is 1). TeacherError, or a RefluxError that stops the run."""
        ...


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice]
    usage: Usage


class _Served(msgspec.Struct):
    id: str
    root: str | None = None


class _Models(msgspec.Struct):
    data: list[_Served]


class _ErrorBody(msgspec.Struct):
    message: str = ""


class _ErrorReply(msgspec.Struct):
    error: _ErrorBody | str = ""


_reply_decoder = msgspec.json.Decoder(_Reply)


class HttpTeacher:
    """A server that speaks the OpenAI protocol. One pooled session, sized for `concurrency` requests; leaving the block closes it."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float, concurrency: int) -> None:
        self._url = f"{endpoint.base_url}/chat/completions"
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._concurrency = concurrency

    async def __aenter__(self) -> HttpTeacher:
        self._session = aiohttp.ClientSession(
            # The connector's own default would silently hold back all but 100.
            connector=aiohttp.TCPConnector(limit=self._concurrency, keepalive_timeout=KEEPALIVE_S),
            headers={"Content-Type": "application/json", **_authorization(self._endpoint)},
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def complete(self, request: Request) -> Completion:
        """When cancelled, or out of time, the connection is closed, which makes the server stop working on it."""
        body = msgspec.json.encode(_body(request))
        started_at, started = time.time(), time.perf_counter()
        try:
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                content = await response.read()
        except aiohttp.ConnectionTimeoutError as error:
            raise TeacherError(FailureReason.CONNECTION, f"no connection within {CONNECT_TIMEOUT_S:g} s") from error
        except TimeoutError as error:
            raise TeacherError(FailureReason.TIMEOUT, f"no answer within {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise TeacherError(FailureReason.CONNECTION, _shorten(str(error) or type(error).__name__)) from error
        latency_s = time.perf_counter() - started
        if response.status != 200:
            raise self._refusal(response.status, response.headers, content)
        return _completion(request, content, Timings(started_at, latency_s, attempts=1))

    def _refusal(self, status: int, headers: Mapping[str, str], content: bytes) -> Exception:
        said = f"status {status}: {_server_message(content)}"
        if status in (401, 403, 404):
            # Not about this request: every other one would meet the same, and a run would end with nothing but failures.
            return ServerError(f"{self._endpoint.base_url} no longer serves {self._endpoint.model!r} to us ({said})")
        if status in (429, 503):
            return TeacherError(FailureReason.OVERLOADED, said, retry_after_s=_retry_after_s(headers.get("Retry-After")))
        if status == 408:
            return TeacherError(FailureReason.TIMEOUT, said)
        if status >= 500:
            return TeacherError(FailureReason.SERVER_ERROR, said)
        if status >= 400:
            return TeacherError(FailureReason.REFUSED, said)
        return TeacherError(FailureReason.BAD_REPLY, said)


async def find_model(endpoint: Endpoint) -> Endpoint:
    """`endpoint` under the name by which its server knows the model (see `match_served`).

    ServerError if nobody answers there, UserError if it wants another key or serves another model.
    """
    timeout = aiohttp.ClientTimeout(total=CONNECT_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(headers=_authorization(endpoint), timeout=timeout) as session,
            session.get(f"{endpoint.base_url}/models") as response,
        ):
            content = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        why = str(error) or f"no answer within {CONNECT_TIMEOUT_S:g} s"
        raise ServerError(f"no server answers at {endpoint.base_url} ({why}); start it, or correct the endpoint") from error
    if response.status in (401, 403):
        given = "the one given is not accepted" if endpoint.api_key else "none was given"
        raise UserError(f"{endpoint.base_url} wants an API key; {given}: set the environment variable named by teacher.api_key_env")
    if response.status >= 500:
        raise ServerError(f"{endpoint.base_url}/models answered status {response.status}: {_server_message(content)}")
    try:
        served = msgspec.json.decode(content, type=_Models).data if response.status == 200 else None
    except msgspec.MsgspecError:
        served = None
    if served is None:
        raise UserError(
            f"{endpoint.base_url}/models answered status {response.status} and no list of models; "
            "is this the base URL of a server that speaks the OpenAI protocol (http://host:8000/v1)?"
        )
    return match_served(endpoint, {model.id: model.root or model.id for model in served})


def _authorization(endpoint: Endpoint) -> dict[str, str]:
    return {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}


def _body(request: Request) -> dict[str, Any]:
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": request.model,
        "messages": request.messages,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
    }
    if sampling.json_schema is not None:
        schema = {"name": "answer", "schema": msgspec.Raw(sampling.json_schema.encode())}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _completion(request: Request, content: bytes, timings: Timings) -> Completion:
    try:
        reply = _reply_decoder.decode(content)
        choice = reply.choices[0]
        finish_reason = FinishReason(choice.finish_reason or "")
    except (msgspec.MsgspecError, IndexError, ValueError) as error:
        raise TeacherError(FailureReason.BAD_REPLY, _shorten(f"{error}, in: {content.decode(errors='replace')}")) from error
    return Completion(request.id, choice.message.content or "", finish_reason, reply.usage, timings)


def _server_message(content: bytes) -> str:
    """What the server says in the ways in which servers say it, or the beginning of what it sent."""
    try:
        error = msgspec.json.decode(content, type=_ErrorReply).error
        message = error if isinstance(error, str) else error.message
    except msgspec.MsgspecError:
        message = ""
    return _shorten(message or content.decode(errors="replace") or "(no message)")


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_DETAIL_CHARS else line[: MAX_DETAIL_CHARS - 1] + "…"


def _retry_after_s(value: str | None) -> float | None:
    """Seconds, or a date, as HTTP allows both; bounded, so that a wrong clock does not stop a run for hours."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_S)  # 0 first: max(nan, 0) is nan
