"""What a scripted server speaks: HTTP/1.1 (`Connection`, `Exchange`) and, in its bodies, OpenAI's chat completions (`Question`, `write_*`).

Invariants: of one connection, requests are handed over one at a time and in order, however many were sent ahead and in whatever pieces
they came; nothing is handed over that its client can no longer get an answer to. Nothing here knows how a server behaves.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, cast

import httptools
import msgspec

from engine.records import Alternative

MAX_AHEAD = 64
"""Requests that a connection may have sent ahead before it is read no further."""
MAX_CHOICES = 1024
MAX_LOGPROBS = 20
"""As vLLM has it unless told otherwise."""

_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    404: b"Not Found",
    429: b"Too Many Requests",
    503: b"Service Unavailable",
}
_JSON = b"application/json"


class Exchange:
    """One request, and the way back to who asked. Exactly one of `reply`, the last `send` and `drop` ends it."""

    __slots__ = ("_connection", "authorization", "body", "is_kept_alive", "method", "path", "timer")

    def __init__(self, connection: Connection, method: bytes, path: bytes, authorization: bytes, body: bytes, is_kept_alive: bool) -> None:
        self._connection = connection
        self.method = method
        """Empty if what came was no HTTP: the connection ends after the answer."""
        self.path = path
        """Without a query."""
        self.authorization = authorization
        self.body = body
        self.is_kept_alive = is_kept_alive
        self.timer: asyncio.TimerHandle | None = None
        """Whatever goes on with it later; cancelled when the client is gone."""

    def reply(self, status: int, body: bytes, *, content_type: bytes = _JSON, retry_after_s: int | None = None) -> None:
        self.send(self.head(status, len(body), content_type=content_type, retry_after_s=retry_after_s) + body, is_last=True)

    def head(self, status: int, length: int, *, content_type: bytes = _JSON, retry_after_s: int | None = None) -> bytes:
        """Everything before a body of so many bytes, for those who send it in pieces."""
        return b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n" % (
            status,
            _REASONS.get(status, b"Scripted"),
            content_type,
            length,
            b"" if retry_after_s is None else b"Retry-After: %d\r\n" % retry_after_s,
            b"" if self.is_kept_alive else b"Connection: close\r\n",
        )

    def send(self, data: bytes, *, is_last: bool) -> None:
        self._connection.send(self, data, is_last=is_last)

    def drop(self) -> None:
        """Close the connection at once, whatever was sent; the handler is not told that it closed in this exchange."""
        self._connection.drop()


class Handler(Protocol):
    """What serves the requests of many connections."""

    def connected(self, connection: Connection) -> None: ...

    def handle(self, exchange: Exchange) -> None:
        """End the exchange now or later, without waiting here."""
        ...

    def disconnected(self, connection: Connection, exchange: Exchange | None) -> None:
        """The connection is over; `exchange` is what its client left unanswered."""
        ...


class Connection(asyncio.Protocol):
    """One client's connection."""

    _transport: asyncio.Transport

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._ahead: deque[Exchange] = deque()
        self._current: Exchange | None = None
        self._is_serving = False
        self._is_writable = True
        self._is_paused = False

    def drop(self) -> None:
        self._current = None
        self._transport.abort()

    def send(self, exchange: Exchange, data: bytes, *, is_last: bool) -> None:
        self._transport.write(data)
        if is_last:
            self._current = None
            if not exchange.is_kept_alive:
                self._transport.close()
            self._serve()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._handler.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        # The parser knows the connection: without this, each would live until the garbage collector finds the two.
        self._parser = None
        self._ahead.clear()
        exchange, self._current = self._current, None
        if exchange is not None and exchange.timer is not None:
            exchange.timer.cancel()
        self._handler.disconnected(self, exchange)

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserError:
            self._parser = None
            self._ahead.append(Exchange(self, b"", b"", b"", b"", is_kept_alive=False))
        if len(self._ahead) > MAX_AHEAD and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._serve()

    def pause_writing(self) -> None:
        self._is_writable = False

    def resume_writing(self) -> None:
        self._is_writable = True
        self._serve()

    # httptools

    def on_message_begin(self) -> None:
        self._url = b""
        self._authorization = b""
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 13 and name.lower() == b"authorization":
            self._authorization = value
        elif len(name) == 6 and name.lower() == b"expect":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        path = self._url.partition(b"?")[0]
        self._ahead.append(Exchange(self, self._parser.get_method(), path, self._authorization, body, self._parser.should_keep_alive()))

    def _serve(self) -> None:
        if self._is_serving:  # the handler answered at once: the loop below goes on
            return
        self._is_serving = True
        try:
            while self._ahead and self._current is None and self._is_writable and not self._transport.is_closing():
                self._current = self._ahead.popleft()
                self._handler.handle(self._current)
        finally:
            self._is_serving = False
        if self._is_paused and not self._ahead and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None


class _Schema(msgspec.Struct):
    schema: msgspec.Raw = msgspec.Raw(b"{}")


class _ResponseFormat(msgspec.Struct):
    json_schema: _Schema | None = None


class _Constraint(msgspec.Struct):
    regex: str | None = None


class Question(msgspec.Struct):
    """What a request for completions asks, as far as it matters here."""

    model: str
    messages: list[_Message]
    n: int = 1
    seed: int | None = None
    max_tokens: int | None = None
    ignore_eos: bool = False
    stream: bool = False
    response_format: _ResponseFormat | None = None
    structured_outputs: _Constraint | None = None
    logprobs: bool = False
    top_logprobs: int = 0

    @property
    def regex(self) -> str | None:
        return self.structured_outputs and self.structured_outputs.regex

    @property
    def schema(self) -> str:
        """JSON text; `{}` if the answer's form is free."""
        if self.response_format is None or self.response_format.json_schema is None:
            return "{}"
        return bytes(self.response_format.json_schema.schema).decode()

    def count_prompt_tokens(self) -> int:
        """Four characters are one, roughly as tokenizers have it for English."""
        return sum([len(message.content) // 4 for message in self.messages if isinstance(message.content, str)])


class _Said(msgspec.Struct):
    content: str
    role: str = "assistant"


class _Token(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[_Token] | msgspec.UnsetType = msgspec.UNSET


class _Logprobs(msgspec.Struct):
    content: list[_Token]


class _Choice(msgspec.Struct):
    index: int
    message: _Said
    finish_reason: str
    logprobs: _Logprobs | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _Completion(msgspec.Struct):
    id: str
    model: str
    choices: list[_Choice]
    usage: _Usage
    object: str = "chat.completion"


_question_decoder = msgspec.json.Decoder(Question)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()


def read_question(body: bytes) -> Question:
    """ValueError, in words for who asked, if it is none."""
    try:
        question = _question_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    if not 1 <= question.n <= MAX_CHOICES:
        raise ValueError(f"n is from 1 to {MAX_CHOICES}, not {question.n}")
    if question.stream:
        raise ValueError("this server does not stream")
    if question.top_logprobs and not question.logprobs:
        raise ValueError("when using `top_logprobs`, `logprobs` must be set to true.")
    if question.top_logprobs > MAX_LOGPROBS:
        raise ValueError(f"Requested sample logprobs of {question.top_logprobs}, which is greater than max allowed: {MAX_LOGPROBS}")
    return question


def name_draws(body: bytes, question: Question) -> list[str]:
    """For each choice the hex digits that its rows are made from: of all that was asked, of the seed, and of the choice's place.

    Choice i of a request has those that it would have alone, with the seed plus i: so vLLM does it, and so an engine that merges draws
    gets the same rows as one that does not.
    """
    fields = _fields_decoder.decode(body)
    fields.pop("seed", None)
    fields.pop("n", None)
    # Of the sound digests the quickest on processors that compute it themselves: a benchmark's request spends its time here.
    prompt = hashlib.sha256(b",".join([",".join(fields).encode(), *fields.values()]))
    first = question.seed or 0
    names: list[str] = []
    for seed in range(first, first + question.n):
        draw = prompt.copy()
        draw.update(b" %d" % seed)
        names.append(draw.hexdigest()[:32])
    return names


def write_completion(
    question: Question,
    name: str,
    texts: Sequence[str],
    *,
    finish_reason: str,
    prompt_tokens: int,
    completion_tokens: int,
    logprobs: Sequence[Sequence[Sequence[Alternative]]] = (),
) -> bytes:
    """`logprobs` of each choice, as `Completion` has them; none where they were not asked for."""
    usage = _Usage(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens)
    choices = [_Choice(index, _Said(text), finish_reason) for index, text in enumerate(texts)]
    for choice, places in zip(choices, logprobs, strict=False):
        choice.logprobs = _Logprobs([_token(place[0], [_token(other) for other in place]) for place in places])
    return _encoder.encode(_Completion(f"chatcmpl-{name}", question.model, choices, usage))


def _token(alternative: Alternative, others: list[_Token] | msgspec.UnsetType = msgspec.UNSET) -> _Token:
    token, logprob = alternative
    return _Token(token, logprob, list(token.encode()), others)


def write_error(status: int, message: str) -> bytes:
    kind = {400: "BadRequestError", 401: "AuthenticationError", 404: "NotFoundError", 503: "ServiceUnavailableError"}.get(
        status, "ScriptedError"
    )
    return _encoder.encode({"error": {"message": message, "type": kind, "param": None, "code": status}})
