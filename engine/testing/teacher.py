"""A teacher in this process that answers from a script, and the rows a well-behaved teacher would write."""

from __future__ import annotations

import inspect
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from engine.records import Completion, FinishReason, Request, Timings, Usage
from engine.teacher.teacher import TeacherError
from engine.testing.scores import score

Reply: TypeAlias = str | Completion | TeacherError
Script: TypeAlias = Iterable[Reply] | Callable[[Request], Reply | Awaitable[Reply]]

_FIRST_WORD = re.compile(r"\w+")
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


def answer(request: Request) -> str | Completion:
    """As `write_rows`, or where a code is asked for, one of those that are allowed, with log-probabilities."""
    if request.sampling.regex is None:
        return write_rows(request)
    code, logprobs = score(request.sampling.regex, request.sampling.top_logprobs, request.id)
    usage = Usage(sum(len(message.content.split()) for message in request.messages), len(code))
    return Completion(request.id, code, FinishReason.LENGTH, usage, Timings(time.time(), 0.0, attempts=1), logprobs)


def write_rows(request: Request) -> str:
    """What a request asks for by its JSON schema: as many rows as it wants, all different, the same for an equal request."""
    return rows_for(request.sampling.json_schema or "{}", seed=request.id)


def rows_for(schema: str, *, seed: str) -> str:
    """A JSON list of rows that go through the labels of a JSON schema in turn; where it asks for something else, that."""
    start = int(seed, 16) if seed else 0
    if _asks_for_something_else(schema):
        return json.dumps(fill(json.loads(schema), lambda place: f"scripted message {seed[:16]} {place}", start=start))
    labels, count = _wanted(schema)
    if count is None:
        return f'{{"label": "{labels[start % len(labels)]}"}}'
    drawn = [labels[(start + index) % len(labels)] for index in range(count)]
    rows = [f'{{"text": "scripted message {seed[:16]} {index} about {label}", "label": "{label}"}}' for index, label in enumerate(drawn)]
    return f"[{', '.join(rows)}]"


def fill(schema: Mapping[str, Any], say: Callable[[int], str], place: int = 0, start: int = 0) -> Any:
    """A value of a JSON schema, as far as this project writes them. `say` gives the text at a place of a list; lists are as long as they
    may be, numbers are those of places, and of values to choose from the places take one after another, beginning at `start`. Where
    entities are to be marked, the first word is one.
    """
    match schema:
        case {"enum": [*values]}:
            return values[(start + place) % len(values)]
        case {"type": "string", "examples": [*tags]}:
            # The tags that entities stand between; the first word of a text is one.
            tag = str(tags[(start + place) % len(tags)])
            return _FIRST_WORD.sub(lambda word: tag.replace(">x<", f">{word[0]}<"), say(place), count=1)
        case {"properties": {"entities": {"items": {"properties": {"type": types}}}, **others}}:
            word = _FIRST_WORD.search(say(place))
            entity = {"text": word[0] if word else "", "type": fill(types, say, place, start)}
            return {**fill({"type": "object", "properties": others}, say, place, start), "entities": [entity]}
        case {"type": "array", "items": {"enum": [*values]}}:
            # Labels of a text: one, two, or as many as there are, and now and then none.
            count = min((start + place) % 3 if schema.get("minItems") == 0 else 1 + (start + place) % 2, len(values))
            return [values[(start + place + number) % len(values)] for number in range(count)]
        case {"type": "array", "items": items}:
            return [fill(items, say, number, start) for number in range(schema.get("maxItems", schema.get("minItems", DEFAULT_ROWS)))]
        case {"type": "object"}:
            return {name: fill(value, say, place, start) for name, value in schema.get("properties", {}).items()}
        case {"type": "integer"}:
            return place + 1
        case _:
            return say(place)


@lru_cache
def _asks_for_something_else(schema: str) -> bool:
    content = json.loads(schema)
    fields: dict[str, Any] | None = content.get("items", content).get("properties")
    if content.get("type") == "array":
        return fields is None or set(fields) != {"text", "label"} or "examples" in fields["text"]
    return fields is not None and "label" not in fields


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
