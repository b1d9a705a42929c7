"""Asks a teacher over HTTP, once. Knows the protocol; knows nothing of retries, journals or how many are in flight.

What goes wrong is classified here, by type and status, and nowhere else: a TeacherError is about this request or this moment (`retryable`
says whether the same request may fare better later), a RefluxError about everything that would be asked after it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Protocol

import msgspec

from engine.errors import ServerError
from engine.records import Alternative, Completion, FailureReason, FinishReason, Request, Timings, Usage
from engine.teacher.endpoint import Endpoint
from engine.teacher.http import HttpClient, HttpError, Limits, Reply, TimedOutError

MAX_DETAIL_CHARS = 300
MAX_RETRY_AFTER_S = 120.0
PROBE_TIMEOUT_S = 10.0
"""For questions that take a server no work."""


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

    async def complete(self, draws: Sequence[Request]) -> list[Completion]:
        """One attempt at one or several draws of one prompt; completions in the same order, each as of a first attempt.

        Draws are equal but for their seeds, which are consecutive. TeacherError for all of them, or a RefluxError that stops the run.
        """
        ...

    async def is_alive(self) -> bool:
        """Whether the server says that it is ready for requests."""
        ...

    async def metrics(self) -> str | None:
        """What the server tells of its own state, in Prometheus' format; None if it tells nothing."""
        ...


class _Message(msgspec.Struct):
    content: str | None = None


class _Alternative(msgspec.Struct):
    token: str
    logprob: float


class _Token(_Alternative):
    top_logprobs: list[_Alternative] = []


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    index: int = 0
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice]
    usage: Usage


class _ErrorBody(msgspec.Struct):
    message: str = ""


class _ErrorReply(msgspec.Struct):
    error: _ErrorBody | str = ""


_ENCODER = msgspec.json.Encoder()
_reply_decoder = msgspec.json.Decoder(_Reply)


class HttpTeacher:
    """A server that speaks the OpenAI protocol. Leaving the block closes all connections to it."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float, stall_s: float) -> None:
        """`timeout_s` for an answer in all, `stall_s` between two pieces of one."""
        self._limits = Limits(timeout_s, stall_s)
        self._open(endpoint)

    async def __aenter__(self) -> HttpTeacher:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()
        self._root.close()

    @property
    def num_connections(self) -> int:
        return self._client.num_connections

    def move_to(self, endpoint: Endpoint) -> None:
        """The server is somewhere else now; connections to the old place are closed."""
        self._client.close()
        self._root.close()
        self._open(endpoint)

    def _open(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        headers = endpoint.authorization
        self._client = HttpClient(endpoint.base_url, self._limits, headers)
        self._root = HttpClient(endpoint.root_url, Limits(PROBE_TIMEOUT_S, PROBE_TIMEOUT_S), headers)
        self._has_health = True

    async def complete(self, draws: Sequence[Request]) -> list[Completion]:
        """When cancelled, or out of time, the connection is closed, which makes the server stop working on it."""
        body = write_body(draws[0], self._endpoint.model, len(draws))
        started_at, started = time.time(), time.perf_counter()
        try:
            reply = await self._client.post("/chat/completions", body)
        except TimedOutError as error:
            raise TeacherError(FailureReason.TIMEOUT, str(error)) from error
        except HttpError as error:
            raise TeacherError(FailureReason.CONNECTION, _shorten(str(error))) from error
        latency_s = time.perf_counter() - started
        if reply.status != 200:
            raise self._refusal(reply)
        completions = _completions(draws, reply.body, Timings(started_at, latency_s, attempts=1))
        if draws[0].sampling.top_logprobs and not all(completion.logprobs for completion in completions):
            # Not about this request: a server that leaves them out does so always, and every row would go without.
            raise ServerError(
                f"{self._endpoint.base_url} answers without the log-probabilities it was asked for, which soft labels are made of; "
                "use a server that gives them (vLLM does), or set labelling.soft = false"
            )
        return completions

    async def is_alive(self) -> bool:
        """A server without /health (that is vLLM's) is alive if it answers anything at all but an error of its own."""
        try:
            reply = await self._root.get("/health" if self._has_health else "/v1/models")
            if reply.status in (404, 405):
                self._has_health = False
                reply = await self._root.get("/v1/models")
        except HttpError:
            return False
        return reply.status < 500

    async def metrics(self) -> str | None:
        try:
            reply = await self._root.get("/metrics")
        except HttpError:
            return None
        return reply.body.decode(errors="replace") if reply.status == 200 else None

    def _refusal(self, reply: Reply) -> Exception:
        status = reply.status
        said = f"status {status}: {server_message(reply.body)}"
        if status in (401, 403, 404):
            # Not about this request: every other one would meet the same, and a run would end with nothing but failures.
            return ServerError(f"{self._endpoint.base_url} no longer serves {self._endpoint.model!r} to us ({said})")
        if status in (429, 503):
            return TeacherError(FailureReason.OVERLOADED, said, retry_after_s=_retry_after_s(reply.header("retry-after")))
        if status == 408:
            return TeacherError(FailureReason.TIMEOUT, said)
        if status >= 500:
            return TeacherError(FailureReason.SERVER_ERROR, said)
        if status >= 400:
            return TeacherError(FailureReason.REFUSED, said)
        return TeacherError(FailureReason.BAD_REPLY, said)


def write_body(request: Request, model: str, num_draws: int = 1) -> bytes:
    """`model` is the server's own name for it. Of `n` draws, vLLM gives the i-th the seed + i, as if it had been asked alone."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": request.messages,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
    }
    if num_draws > 1:
        body["n"] = num_draws
    if sampling.json_schema is not None:
        schema = {"name": "answer", "schema": msgspec.Raw(sampling.json_schema.encode())}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if sampling.regex is not None:
        body["structured_outputs"] = {"regex": sampling.regex}
    if sampling.top_logprobs:
        body["logprobs"] = True
        body["top_logprobs"] = sampling.top_logprobs
    return _ENCODER.encode(body)


def _completions(draws: Sequence[Request], content: bytes, timings: Timings) -> list[Completion]:
    try:
        reply = _reply_decoder.decode(content)
        choices = sorted(reply.choices, key=lambda choice: choice.index) if len(draws) > 1 else reply.choices
        if len(choices) < len(draws):
            # Not retryable: a server that does not know `n` would answer so again; one by one it may do.
            raise TeacherError(FailureReason.BAD_REPLY, f"{len(choices)} choices, asked for {len(draws)}", retryable=len(choices) == 0)
        texts = [choice.message.content or "" for choice in choices[: len(draws)]]
        finish_reasons = [FinishReason(choice.finish_reason or "") for choice in choices[: len(draws)]]
    except (ValueError, RecursionError) as error:
        raise TeacherError(FailureReason.BAD_REPLY, _shorten(f"{error}, in: {content.decode(errors='replace')}")) from error
    if not draws[0].sampling.top_logprobs:
        return [
            Completion(request.id, text, finish_reason, usage, timings)
            for request, text, finish_reason, usage in zip(draws, texts, finish_reasons, _divide(reply.usage, texts), strict=True)
        ]
    return [
        Completion(request.id, text, finish_reason, usage, timings, _alternatives(choice))
        for request, text, finish_reason, usage, choice in zip(
            draws, texts, finish_reasons, _divide(reply.usage, texts), choices[: len(draws)], strict=True
        )
    ]


def _alternatives(choice: _Choice) -> tuple[tuple[Alternative, ...], ...]:
    tokens = choice.logprobs.content if choice.logprobs is not None else None
    return tuple(
        (
            Alternative(written.token, written.logprob),
            *(Alternative(other.token, other.logprob) for other in written.top_logprobs if other.token != written.token),
        )
        for written in tokens or ()
    )


def _divide(usage: Usage, texts: Sequence[str]) -> list[Usage]:
    """A share for each draw that adds up to the whole: of the prompt an equal one, of the completion by the length of its text."""
    if len(texts) == 1:
        return [usage]
    whole = sum(map(len, texts)) + len(texts)
    shares: list[Usage] = []
    done = prompt_before = completion_before = 0
    for number, text in enumerate(texts, start=1):
        done += len(text) + 1
        prompt, completion = usage.prompt_tokens * number // len(texts), usage.completion_tokens * done // whole
        shares.append(Usage(prompt - prompt_before, completion - completion_before))
        prompt_before, completion_before = prompt, completion
    return shares


def server_message(content: bytes) -> str:
    """What the server says in the ways in which servers say it, or the beginning of what it sent."""
    try:
        error = msgspec.json.decode(content, type=_ErrorReply).error
        message = error if isinstance(error, str) else error.message
    except (ValueError, RecursionError):
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
        except (ValueError, OverflowError):
            return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_S)  # 0 first: max(nan, 0) is nan
