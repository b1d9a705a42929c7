"""From what a strategy wants to say to a Request: renders templates and fixes how the teacher shall answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast

from engine.config import SamplingConfig
from engine.records import Message, Request, SamplingParams
from prompts import PromptLibrary


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt with the JSON schema its answer should have."""

    template: str
    messages: tuple[Message, ...]
    schema: str


class Prompter:
    """Renders prompts of one task and turns them into requests to one model."""

    def __init__(self, library: PromptLibrary, model: str, sampling: SamplingConfig, seed: int) -> None:
        self._library = library
        self._model = model
        self._sampling = sampling
        self._seed = seed

    def render(self, template: str, values: Mapping[str, Any], schema: str) -> Prompt:
        rendered = self._library.render(template, values)
        messages = tuple(Message(cast(Literal["system", "user"], role), content) for role, content in rendered.messages)
        return Prompt(rendered.template, messages, schema)

    def request(self, prompt: Prompt, draw: str) -> Request:
        """The request for one draw of a prompt; the same run seed and draw name give the same request."""
        digest = hashlib.blake2b(f"{self._seed} {draw}".encode(), digest_size=4).digest()
        sampling = SamplingParams(
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            max_tokens=self._sampling.max_tokens,
            seed=int.from_bytes(digest) >> 1,
            json_schema=prompt.schema if self._sampling.constrained else None,
        )
        return Request(self._model, prompt.messages, sampling)


@lru_cache
def rows_schema(labels: tuple[str, ...], num_rows: int) -> str:
    """JSON schema of a list of exactly `num_rows` objects with a text and one of the labels."""
    row = {
        "type": "object",
        "properties": {"text": {"type": "string", "minLength": 1}, "label": {"type": "string", "enum": list(labels)}},
        "required": ["text", "label"],
        "additionalProperties": False,
    }
    return json.dumps({"type": "array", "items": row, "minItems": num_rows, "maxItems": num_rows})


@lru_cache
def label_schema(labels: tuple[str, ...]) -> str:
    """JSON schema of an object with one of the labels."""
    answer = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(labels)}},
        "required": ["label"],
        "additionalProperties": False,
    }
    return json.dumps(answer)
