"""Whether a server answers at an endpoint, which models it serves, and under which names: asked before the work begins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from engine.errors import ServerError, UserError
from engine.teacher.endpoint import Endpoint, match_served
from engine.teacher.http import HttpClient, HttpError, Limits, Reply
from engine.teacher.teacher import PROBE_TIMEOUT_S, server_message


class _Served(msgspec.Struct):
    id: str
    root: str | None = None


class _Models(msgspec.Struct):
    data: list[_Served]


def read_models(reply: Reply) -> dict[str, str] | None:
    """What a server answered to /models: its names for models, each with where it was loaded from. None if that is no such list."""
    try:
        served = msgspec.json.decode(reply.body, type=_Models).data if reply.status == 200 else None
    except (ValueError, RecursionError):
        return None
    return None if served is None else {model.id: model.root or model.id for model in served}


async def find_model(endpoint: Endpoint) -> Endpoint:
    """`endpoint` under the name by which its server knows the model (see `match_served`).

    ServerError if nobody answers there, UserError if it wants another key or serves another model.
    """
    try:
        async with HttpClient(endpoint.base_url, Limits(PROBE_TIMEOUT_S, PROBE_TIMEOUT_S), endpoint.authorization) as client:
            reply = await client.get("/models")
    except HttpError as error:
        raise ServerError(f"no server answers at {endpoint.base_url} ({error}); start it, or correct the endpoint") from error
    if reply.status in (401, 403):
        given = "the one given is not accepted" if endpoint.api_key else "none was given"
        raise UserError(f"{endpoint.base_url} wants an API key; {given}: set the environment variable named by teacher.api_key_env")
    if reply.status >= 500:
        raise ServerError(f"{endpoint.base_url}/models answered status {reply.status}: {server_message(reply.body)}")
    served = read_models(reply)
    if served is None:
        raise UserError(
            f"{endpoint.base_url}/models answered status {reply.status} and no list of models; "
            "is this the base URL of a server that speaks the OpenAI protocol (http://host:8000/v1)?"
        )
    return match_served(endpoint, served)


async def find_models(endpoints: Sequence[Endpoint], on_notice: Callable[[str], None]) -> list[Endpoint]:
    """Those that answer, as `find_model` finds them. One that is not there is only worth a notice as long as another is."""
    found = await asyncio.gather(*(find_model(endpoint) for endpoint in endpoints), return_exceptions=True)
    there = [endpoint for endpoint in found if isinstance(endpoint, Endpoint)]
    for error in found:
        if isinstance(error, BaseException):
            if not there or not isinstance(error, ServerError):
                raise error
            on_notice(f"{error}; going on without it")
    return there
