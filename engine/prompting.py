"""From what a strategy wants to say to a Request: renders templates and fixes how the teacher shall answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias, cast

import prompts
from engine.config import SamplingConfig
from engine.records import Message, Request, SamplingParams, hash_messages

MAX_SEED = 2**31

Role: TypeAlias = Literal["system", "user"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt with the JSON schema its answer should have."""

    template: str
    messages: tuple[Message, ...]
    schema: str
    hash: str
    """Of the messages."""


class Opening:
    """The part that many prompts share, rendered once."""

    def __init__(self, opening: prompts.Opening) -> None:
        self._opening = opening

    def finish(self, values: Mapping[str, Any], schema: str) -> Prompt:
        """The prompt that ends with what `values` say in the template's last block."""
        rendered = self._opening.finish(values)
        messages = tuple([Message(cast(Role, role), content) for role, content in rendered.messages])
        return Prompt(rendered.template, messages, schema, hash_messages(messages))


class Prompter:
    """Renders prompts of one task and turns them into requests to one model."""

    def __init__(self, library: prompts.PromptLibrary, model: str, sampling: SamplingConfig, seed: int) -> None:
        self._library = library
        self._model = model
        self._sampling = sampling
        self._seed = seed

    def render(self, template: str, values: Mapping[str, Any], schema: str) -> Prompt:
        return self.open(template, values).finish(values, schema)

    def open(self, template: str, values: Mapping[str, Any]) -> Opening:
        return Opening(self._library.open(template, values))

    def request(self, prompt: Prompt, series: str, draw: int) -> Request:
        """The request for one draw of a prompt.

        The same run seed, series and draw give the same request. Draws of one series have consecutive seeds, so that equal prompts may
        travel together (`engine.batcher`): give equal prompts neighbouring draws.
        """
        sampling = SamplingParams(
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            max_tokens=self._sampling.max_tokens,
            seed=(_seed(self._seed, series) + draw) % MAX_SEED,
            json_schema=prompt.schema if self._sampling.constrained else None,
        )
        return Request(self._model, prompt.messages, sampling, prompt.hash)


@lru_cache
def _seed(run_seed: int, series: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{run_seed} {series}".encode(), digest_size=4).digest()) % MAX_SEED


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
