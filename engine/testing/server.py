"""A teacher behind real sockets that answers at once, or like a vLLM, and misbehaves on demand.

    python -m engine.testing.server --port 0 --behaviour latency:0.05 --behaviour status:503:10

prints one line of JSON when it listens (`{"port": …, "base_url": …}`) and serves until it is ended. The behaviours are those of
`engine.testing.behaviours`. Rows come from the JSON schema in the request: all different, and the same for an equal request.

    POST /v1/chat/completions    without streaming
    GET  /v1/models, /health, /metrics
    GET  /scripted/statistics    what it has seen, as `Statistics` says it
    POST /scripted/capacity      {"factor": 2.0}: the token-rate model has twice the capacity that it was made with

Invariants: every request that is begun leaves `_under_way` once, answered, dropped or left by its client, and leaves the model with it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Any, Protocol

import msgspec
import uvloop

from engine.teacher.metrics import ServerGauges
from engine.testing.behaviours import Behaviours, Ending, Generation, Treatment, garble
from engine.testing.protocol import Connection, Exchange, Question, name_draws, read_question, write_completion, write_error
from engine.testing.scores import score
from engine.testing.teacher import rows_for
from engine.testing.token_rate import format_gauges

BACKLOG = 4096
"""Connections that may wait to be accepted: a client that opens thousands at once is not refused by the kernel."""
DRIP_PIECES = 20
_METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a scripted server has seen so far, and sees now."""

    num_requests: int
    """For completions, whatever became of them."""
    num_sequences: int
    """Choices asked for in them."""
    num_aborted: int
    """Requests whose client closed before they were answered."""
    in_flight: int
    peak_in_flight: int
    num_connections: int
    peak_connections: int
    prompt_tokens: int
    """Of answers, as their usage says."""
    completion_tokens: int
    statuses: dict[int, int]
    """How many requests for completions were answered with which."""


class Ledger(Protocol):
    """Is told of every request for completions, by its body as it was sent, so that what a client has can be compared with it."""

    def asked(self, body: bytes) -> None: ...

    def answered(self, body: bytes, texts: Sequence[str]) -> None:
        """All of the answer is on its way; `texts` are those of its choices."""
        ...


@dataclass(slots=True, eq=False)
class _Job:
    """A request for completions that is under way."""

    exchange: Exchange
    question: Question
    treatment: Treatment
    names: list[str]
    """Of its choices (see `name_draws`)."""
    prompt_tokens: int
    completion_tokens: int = 0
    """As the model has it; 0 without one."""
    texts: Sequence[str] = ()
    """Of its answer."""


class ScriptedServer:
    """Listens on 127.0.0.1 inside the block. What it saw is counted here, for tests that look from the server's side.

    `die_hard` ends the whole process at `die`; otherwise it only stops listening, and drops what is open.
    """

    def __init__(
        self,
        behaviours: Sequence[str] = ("instant",),
        *,
        port: int = 0,
        model: str = "scripted",
        root: str | None = None,
        api_key: str | None = None,
        die_hard: bool = False,
        ledger: Ledger | None = None,
    ) -> None:
        self.port = port
        self.num_requests = 0
        self.num_sequences = 0
        self.num_aborted = 0
        self.peak_in_flight = 0
        self.peak_connections = 0
        self._behaviours = Behaviours.parse(behaviours)
        self._model = model
        self._models = msgspec.json.encode({"object": "list", "data": [{"id": model, "object": "model", "root": root or model}]})
        self._authorization = None if api_key is None else f"Bearer {api_key}".encode()
        self._die_hard = die_hard
        self._ledger = ledger
        self._is_dead = False
        self._generation = None if (rate := self._behaviours.token_rate) is None else Generation(rate, self._answer)
        self._connections: set[Connection] = set()
        self._under_way: dict[Exchange, _Job] = {}
        self._sequences_in_flight = 0
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._statuses: dict[int, int] = {}
        self._last_body = b"{}"
        self._routes: dict[tuple[bytes, bytes], Callable[[Exchange], None]] = {
            (b"POST", b"/v1/chat/completions"): self._complete,
            (b"GET", b"/v1/models"): self._list_models,
            (b"GET", b"/health"): self._say_health,
            (b"GET", b"/metrics"): self._say_metrics,
            (b"GET", b"/scripted/statistics"): self._say_statistics,
            (b"POST", b"/scripted/capacity"): self._set_capacity,
        }

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def in_flight(self) -> int:
        return len(self._under_way)

    @property
    def num_connections(self) -> int:
        """Open now."""
        return len(self._connections)

    @property
    def last_body(self) -> dict[str, Any]:
        """Of the last request for completions that could be read."""
        return json.loads(self._last_body)

    def statistics(self) -> Statistics:
        return Statistics(
            num_requests=self.num_requests,
            num_sequences=self.num_sequences,
            num_aborted=self.num_aborted,
            in_flight=self.in_flight,
            peak_in_flight=self.peak_in_flight,
            num_connections=self.num_connections,
            peak_connections=self.peak_connections,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            statuses=dict(self._statuses),
        )

    async def __aenter__(self) -> ScriptedServer:
        self._loop = asyncio.get_running_loop()
        self._ready_at = time.monotonic() + self._behaviours.start_s
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._listener = await self._loop.create_server(lambda: Connection(self), "127.0.0.1", self.port, backlog=BACKLOG)
        self.port = int(self._listener.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._vanish()
        await self._all_closed.wait()
        await self._listener.wait_closed()

    # Handler

    def connected(self, connection: Connection) -> None:
        self._connections.add(connection)
        self.peak_connections = max(self.peak_connections, len(self._connections))
        self._all_closed.clear()
        if self._is_dead:  # accepted before, told of only now
            connection.drop()

    def disconnected(self, connection: Connection, exchange: Exchange | None) -> None:
        self._connections.discard(connection)
        if exchange is not None and (job := self._under_way.get(exchange)) is not None:
            self.num_aborted += 1
            self._leave(job)
        if not self._connections:
            self._all_closed.set()

    def handle(self, exchange: Exchange) -> None:
        path = exchange.path
        if self._behaviours.start_s and time.monotonic() < self._ready_at and not path.startswith(b"/scripted/"):
            exchange.reply(503, write_error(503, "the server is starting"), retry_after_s=1)
        elif (route := self._routes.get((exchange.method, path))) is None:
            self._refuse_route(exchange)
        elif self._authorization is not None and path.startswith(b"/v1/") and exchange.authorization != self._authorization:
            self._refuse_stranger(exchange)
        else:
            route(exchange)

    # Completions

    def _complete(self, exchange: Exchange) -> None:
        self.num_requests += 1
        try:
            question = read_question(exchange.body)
        except ValueError as error:
            return self._reply(exchange, 400, write_error(400, str(error)))
        self._last_body = exchange.body
        if question.model != self._model:
            return self._reply(exchange, 404, write_error(404, f"The model `{question.model}` does not exist."))
        treatment = self._behaviours.treat(self.num_requests)
        job = _Job(exchange, question, treatment, name_draws(exchange.body, question), question.count_prompt_tokens())
        self._enter(job)
        longest = self._behaviours.max_context_tokens
        if (asked := job.prompt_tokens + (question.max_tokens or 0)) > longest:
            said = f"This model's maximum context length is {longest:.0f} tokens. However, you requested {asked} tokens"
            self._refuse(job, 400, f"{said} ({job.prompt_tokens} in the messages, {question.max_tokens or 0} in the completion).")
        elif self._sequences_in_flight > self._behaviours.max_in_flight:
            self._refuse(job, 503, f"more than {self._behaviours.max_in_flight:.0f} sequences are in flight")
        elif treatment.wait_s:
            exchange.timer = self._loop.call_later(treatment.wait_s, self._bring_to_its_end, job)
        else:
            self._bring_to_its_end(job)
        return None

    def _enter(self, job: _Job) -> None:
        self._under_way[job.exchange] = job
        if self._ledger is not None:
            self._ledger.asked(job.exchange.body)
        self.num_sequences += job.question.n
        self._sequences_in_flight += job.question.n
        self.peak_in_flight = max(self.peak_in_flight, len(self._under_way))

    def _leave(self, job: _Job) -> None:
        del self._under_way[job.exchange]
        self._sequences_in_flight -= job.question.n
        if self._generation is not None:
            self._generation.cancel(job)

    def _bring_to_its_end(self, job: _Job) -> None:
        match job.treatment.ending:
            case Ending.ANSWER:
                self._generate(job)
            case Ending.STATUS:
                self._refuse(job, job.treatment.status, f"scripted status {job.treatment.status}")
            case Ending.MALFORMED:
                self._leave(job)
                self._reply(job.exchange, 200, b'{"choices": [')
            case Ending.RESET:
                self._leave(job)
                job.exchange.drop()
            case Ending.DEATH:
                if self._die_hard:
                    os._exit(1)
                self._vanish()

    def _generate(self, job: _Job) -> None:
        if self._generation is None:
            return self._answer(job)
        question = job.question
        tokens = [self._behaviours.draw_tokens(name, question.max_tokens, is_exact=question.ignore_eos) for name in job.names]
        job.completion_tokens = sum(tokens)
        try:
            is_accepted = self._generation.submit(job, job.prompt_tokens, tokens)
        except ValueError as error:
            return self._refuse(job, 400, str(error))
        return None if is_accepted else self._refuse(job, 503, "too many sequences are waiting")

    def _answer(self, job: _Job) -> None:
        question, treatment = job.question, job.treatment
        schema, regex = question.schema, question.regex
        scores = [score(regex, question.top_logprobs, name, is_sure=not treatment.is_unsure) for name in job.names] if regex else []
        texts = [code for code, _ in scores] or [rows_for(schema, seed=name) for name in job.names]
        if treatment.is_garbled:
            texts = [garble(text, name) for text, name in zip(texts, job.names, strict=True)]
        if treatment.is_truncated:
            texts = [text[: len(text) // 2] for text in texts]
        job.texts = texts
        completion_tokens = job.completion_tokens or sum([max(1, len(text) // 4) for text in texts])
        self._prompt_tokens += job.prompt_tokens
        self._completion_tokens += completion_tokens
        body = write_completion(
            question,
            job.names[0],
            texts,
            finish_reason="length" if treatment.is_truncated else "stop",
            prompt_tokens=job.prompt_tokens,
            completion_tokens=completion_tokens,
            logprobs=[places for _, places in scores] if question.logprobs else (),
        )
        if treatment.is_stalled:
            job.exchange.send(job.exchange.head(200, len(body)) + body[: len(body) // 2], is_last=False)
        elif treatment.drip_s is None:
            self._leave(job)
            self._reply(job.exchange, 200, body)
            self._answered(job)
        else:
            job.exchange.send(job.exchange.head(200, len(body)), is_last=False)
            self._drip(job, body, -(-len(body) // DRIP_PIECES))

    def _drip(self, job: _Job, rest: bytes, size: int) -> None:
        """Each piece after its share of the time, so that the last one comes at the end of it."""

        def send() -> None:
            if len(rest) > size:
                job.exchange.send(rest[:size], is_last=False)
                self._drip(job, rest[size:], size)
            else:
                self._leave(job)
                self._count(200)
                job.exchange.send(rest, is_last=True)
                self._answered(job)

        job.exchange.timer = self._loop.call_later((job.treatment.drip_s or 0.0) / DRIP_PIECES, send)

    def _answered(self, job: _Job) -> None:
        if self._ledger is not None:
            self._ledger.answered(job.exchange.body, job.texts)

    def _refuse(self, job: _Job, status: int, message: str) -> None:
        self._leave(job)
        self._reply(job.exchange, status, write_error(status, message))

    def _reply(self, exchange: Exchange, status: int, body: bytes) -> None:
        self._count(status)
        exchange.reply(status, body, retry_after_s=1 if status in (429, 503) else None)

    def _count(self, status: int) -> None:
        self._statuses[status] = self._statuses.get(status, 0) + 1

    def _vanish(self) -> None:
        self._is_dead = True
        self._listener.close()
        for job in list(self._under_way.values()):
            self._leave(job)
            if job.exchange.timer is not None:
                job.exchange.timer.cancel()
        for connection in list(self._connections):
            connection.drop()

    # The other routes

    def _list_models(self, exchange: Exchange) -> None:
        exchange.reply(200, self._models)

    def _say_health(self, exchange: Exchange) -> None:
        exchange.reply(200, b"")

    def _say_metrics(self, exchange: Exchange) -> None:
        """Without a model all that is in flight runs, and what was answered was generated."""
        gauges = ServerGauges(self._sequences_in_flight, 0, 0.0, 0, self._completion_tokens, self._prompt_tokens)
        if self._generation is not None:
            gauges = self._generation.gauges()
        exchange.reply(200, format_gauges(gauges).encode(), content_type=_METRICS_TYPE)

    def _say_statistics(self, exchange: Exchange) -> None:
        exchange.reply(200, msgspec.json.encode(self.statistics()))

    def _set_capacity(self, exchange: Exchange) -> None:
        try:
            factor = msgspec.json.decode(exchange.body, type=_Capacity).factor
        except msgspec.MsgspecError as error:
            return exchange.reply(400, write_error(400, str(error)))
        if self._generation is None:
            return exchange.reply(409, write_error(409, "only a server that behaves like a vLLM has a capacity"))
        self._generation.set_capacity(factor)
        return exchange.reply(200, exchange.body)

    def _refuse_stranger(self, exchange: Exchange) -> None:
        if exchange.path == b"/v1/chat/completions":
            self.num_requests += 1
            self._count(401)
        exchange.reply(401, write_error(401, "Unauthorized"))

    def _refuse_route(self, exchange: Exchange) -> None:
        if not exchange.method:
            exchange.reply(400, write_error(400, "this is no HTTP/1.1 request"))
        elif any(path == exchange.path for _, path in self._routes):
            exchange.reply(405, write_error(405, "Method Not Allowed"))
        else:
            exchange.reply(404, write_error(404, "Not Found"))


class _Capacity(msgspec.Struct):
    factor: Annotated[float, msgspec.Meta(gt=0)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.testing.server", description="A scripted teacher behind an OpenAI endpoint.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--model", default="scripted")
    parser.add_argument(
        "--behaviour",
        action="append",
        default=[],
        metavar="NAME:NUMBERS",
        help="as in engine.testing.behaviours; may be given several times",
    )
    options = parser.parse_args(arguments)
    try:
        server = ScriptedServer(options.behaviour or ("instant",), port=options.port, model=options.model, die_hard=True)
    except ValueError as error:
        parser.error(str(error))
    with suppress(KeyboardInterrupt):
        uvloop.run(_serve(server))


async def _serve(server: ScriptedServer) -> None:
    async with server:
        print(json.dumps({"port": server.port, "base_url": server.base_url}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    main()
