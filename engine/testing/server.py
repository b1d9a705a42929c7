"""A teacher behind real sockets that answers at once and misbehaves on demand.

    python -m engine.testing.server --port 0 --behaviour latency:0.05 --behaviour status:503:10

prints one line of JSON when it listens (`{"port": …, "base_url": …}`) and serves until it is ended. Speaks as much of the OpenAI protocol
as Reflux does; rows come from the JSON schema in the request. Behaviours, EVERY counting requests (3: every third):

    instant               answers at once
    latency:SECONDS       answers after that time
    status:CODE:EVERY     refuses with this status; 429 and 503 say Retry-After: 1
    reset:EVERY           drops the connection
    malformed:EVERY       answers with something that is no JSON
    truncated:EVERY       ends in the middle of the rows, as if max_tokens had run out
    die:AFTER             vanishes, with all connections, at the first request after so many
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from aiohttp import web

from engine.testing.teacher import rows_for

NUM_ARGUMENTS = {"instant": 0, "latency": 1, "status": 2, "reset": 1, "malformed": 1, "truncated": 1, "die": 1}


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One way to behave, with its numbers as in the module's table."""

    name: str
    numbers: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Behaviour:
        """ValueError if there is no such behaviour."""
        name, *numbers = text.split(":")
        try:
            behaviour = cls(name, tuple(map(float, numbers)))
        except ValueError:
            behaviour = cls("")
        # Times and counts may be nothing; every how many may not.
        least = 1 if name in ("status", "reset", "malformed", "truncated") else 0
        if NUM_ARGUMENTS.get(behaviour.name) != len(numbers) or any(number < least for number in behaviour.numbers):
            raise ValueError(f"{text!r} is no behaviour; there are: {', '.join(NUM_ARGUMENTS)}")
        return behaviour

    def strikes(self, number: int) -> bool:
        """Whether request `number`, counted from 1, is one of every so many."""
        return number % self.numbers[-1] == 0


class ScriptedServer:
    """Listens on 127.0.0.1 inside the block. What it saw is counted here, for tests that look from the server's side."""

    def __init__(
        self,
        behaviours: Sequence[str] = ("instant",),
        *,
        port: int = 0,
        model: str = "scripted",
        root: str | None = None,
        api_key: str | None = None,
        die_hard: bool = False,
    ) -> None:
        self.num_requests = 0
        self.in_flight = 0
        self.peak_in_flight = 0
        self.last_body: dict[str, Any] = {}
        self.port = port
        self._behaviours = [Behaviour.parse(text) for text in behaviours]
        self._model = model
        self._root = root or model
        self._api_key = api_key
        self._die_hard = die_hard
        """End the whole process at `die`; otherwise only stop listening, and drop what is open."""
        self._is_dead = False

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> ScriptedServer:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await self._site.start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, request: web.Request) -> web.Response:
        if not self._knows(request):
            return _error(401, "Unauthorized")
        return web.json_response({"object": "list", "data": [{"id": self._model, "object": "model", "root": self._root}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.num_requests += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        number = self.num_requests
        try:
            if not self._knows(request):
                return _error(401, "Unauthorized")
            raw = await request.read()
            self.last_body = json.loads(raw)
            if self.last_body.get("model") != self._model:
                return _error(404, f"The model `{self.last_body.get('model')}` does not exist.")
            return await self._behave(request, number, self.last_body, hashlib.blake2b(raw, digest_size=16).hexdigest())
        finally:
            self.in_flight -= 1

    async def _behave(self, request: web.Request, number: int, body: dict[str, Any], digest: str) -> web.StreamResponse:
        is_truncated = False
        for behaviour in self._behaviours:
            match behaviour.name:
                case "latency":
                    await asyncio.sleep(behaviour.numbers[0])
                case "status" if behaviour.strikes(number):
                    status = int(behaviour.numbers[0])
                    return _error(status, f"scripted status {status}", {"Retry-After": "1"} if status in (429, 503) else {})
                case "reset" if behaviour.strikes(number):
                    return _drop(request)
                case "malformed" if behaviour.strikes(number):
                    return web.Response(text='{"choices": [', content_type="application/json")
                case "truncated":
                    is_truncated = is_truncated or behaviour.strikes(number)
                case "die" if number > behaviour.numbers[0]:
                    return await self._die(request)
                case _:
                    pass
        return _answer(body, digest, is_truncated=is_truncated)

    async def _die(self, request: web.Request) -> web.StreamResponse:
        if self._die_hard:
            os._exit(1)
        if not self._is_dead:
            self._is_dead = True
            await self._site.stop()
        return _drop(request)

    def _knows(self, request: web.Request) -> bool:
        return self._api_key is None or request.headers.get("Authorization") == f"Bearer {self._api_key}"


def _answer(body: dict[str, Any], digest: str, *, is_truncated: bool) -> web.Response:
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    text = rows_for(json.dumps(schema), seed=digest)
    if is_truncated:
        text = text[: len(text) // 2]
    prompt_tokens = sum(len(str(message["content"]).split()) for message in body["messages"])
    completion_tokens = len(text.split())
    return web.json_response(
        {
            "id": f"chatcmpl-{digest}",
            "object": "chat.completion",
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "length" if is_truncated else "stop",
                }
            ],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
        }
    )


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"message": message, "code": status}}, status=status, headers=headers)


def _drop(request: web.Request) -> web.StreamResponse:
    """Nothing that is returned after this reaches the client."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.testing.server", description="A scripted teacher behind an OpenAI endpoint.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--model", default="scripted")
    parser.add_argument("--behaviour", action="append", default=[], metavar="NAME:NUMBERS", help="may be given several times")
    options = parser.parse_args(arguments)
    try:
        server = ScriptedServer(options.behaviour or ("instant",), port=options.port, model=options.model, die_hard=True)
    except ValueError as error:
        parser.error(str(error))
    try:
        asyncio.run(_serve(server))
    except KeyboardInterrupt:
        return


async def _serve(server: ScriptedServer) -> None:
    async with server:
        print(json.dumps({"port": server.port, "base_url": server.base_url}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    main()
