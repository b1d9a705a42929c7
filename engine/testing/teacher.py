"""A teacher in this process that answers from a script, and the rows a well-behaved teacher would write."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from engine.records import Completion, FinishReason, Request, Timings, Usage
from engine.teacher import TeacherError

Reply: TypeAlias = str | Completion | TeacherError
Script: TypeAlias = Iterable[Reply] | Callable[[Request], Reply | Awaitable[Reply]]

DEFAULT_ROWS = 4


class ScriptedTeacher:
    """Answers with the script's next reply, or with what the script makes of the request; a TeacherError is raised.

    An asynchronous script decides when each answer comes. A list that has run out is a mistake in the test, and says so.
    """

    def __init__(self, script: Script) -> None:
        self._script = script if callable(script) else iter(script)
        self.requests: list[Request] = []
        """In the order in which they came, every attempt of them."""
        self.alive = True
        """What a probe is told."""
        self.in_flight = 0
        self.peak_in_flight = 0

    async def complete(self, draws: Sequence[Request]) -> list[Completion]:
        """The script is asked for each draw by itself, in order; the first error is that of all."""
        self.requests += draws
        self.in_flight += len(draws)
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            return [await self._complete(request) for request in draws]
        finally:
            self.in_flight -= len(draws)

    async def is_alive(self) -> bool:
        return self.alive

    async def metrics(self) -> str | None:
        return None

    async def _complete(self, request: Request) -> Completion:
        started_at, started = time.time(), time.perf_counter()
        reply = await self._reply(request)
        if isinstance(reply, TeacherError):
            raise reply
        if isinstance(reply, Completion):
            return reply
        usage = Usage(sum(len(message.content.split()) for message in request.messages), len(reply.split()))
        return Completion(request.id, reply, FinishReason.STOP, usage, Timings(started_at, time.perf_counter() - started, attempts=1))

    async def _reply(self, request: Request) -> Reply:
        if not callable(self._script):
            try:
                return next(self._script)
            except StopIteration:
                raise AssertionError(f"the script has no reply left for request {len(self.requests)}") from None
        reply = self._script(request)
        return await reply if inspect.isawaitable(reply) else reply


def write_rows(request: Request) -> str:
    """Valid rows for a request that asks for rows by its JSON schema: as many as it wants, all different, the same for an equal request."""
    return rows_for(request.sampling.json_schema or "{}", seed=request.id)


def rows_for(schema: str, *, seed: str) -> str:
    """A JSON list of rows that go through the labels of a JSON schema in turn; where it asks for one object with a label, that alone."""
    labels, count = _wanted(schema)
    start = int(seed, 16) if seed else 0
    if count is None:
        return f'{{"label": "{labels[start % len(labels)]}"}}'
    drawn = [labels[(start + index) % len(labels)] for index in range(count)]
    rows = [f'{{"text": "scripted message {seed[:16]} {index} about {label}", "label": "{label}"}}' for index, label in enumerate(drawn)]
    return f"[{', '.join(rows)}]"


@lru_cache
def _wanted(schema: str) -> tuple[list[str], int | None]:
    """Labels as they stand between the quotes of JSON, and how many rows; None for one object."""
    content = json.loads(schema)
    count = None if content.get("type") == "object" else content.get("maxItems", content.get("minItems", DEFAULT_ROWS))
    return [json.dumps(label, ensure_ascii=False)[1:-1] for label in _labels(content) or ["other"]], count


def _labels(schema: object) -> list[str]:
    """The values allowed for `label`, wherever in the schema it stands."""
    if isinstance(schema, Mapping):
        label: Any = schema.get("label")
        if isinstance(label, Mapping) and ("enum" in label or "const" in label):
            return list(label["enum"]) if "enum" in label else [label["const"]]
        return next((found for value in schema.values() if (found := _labels(value))), [])
    if isinstance(schema, (list, tuple)):
        return next((found for value in schema if (found := _labels(value))), [])
    return []
