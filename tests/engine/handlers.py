"""Servers that answer in one way, whatever they are asked."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer

from engine.teacher.endpoint import Endpoint

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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
