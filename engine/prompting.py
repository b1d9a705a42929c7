"""From what a strategy wants to say to a Request: renders templates and fixes how the teacher shall answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import prompts
from engine.config import RunConfig, SamplingConfig
from engine.errors import UserError
from engine.records import Message, Request, SamplingParams, hash_messages
from engine.text import readable

MAX_SEED = 2**31

LOCAL = "local"
"""Stands for the model where a program of ours answers a prompt."""

Role: TypeAlias = Literal["system", "user"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt with the JSON schema its answer should have."""

    template: str
    messages: tuple[Message, ...]
    schema: str
    hash: str
    """Of the messages."""
    temperature: float | None = None
    """Instead of the configured one."""
    reply: str | None = field(default=None, repr=False)
    """What a program answers in the teacher's place; recorded like any answer, at no tokens."""


def open_library(own: Path | None) -> prompts.PromptLibrary:
    """The templates, those in the user's own folder first. UserError if one of them cannot be read, or takes no other's place."""
    library = prompts.PromptLibrary(own)
    try:
        library.check()
    except prompts.PromptError as error:
        raise UserError(f"prompts: {error}") from None
    return library


class Opening:
    """The part that many prompts share, rendered once."""

    def __init__(self, opening: prompts.Opening) -> None:
        self._opening = opening

    def finish(self, values: Mapping[str, Any], schema: str) -> Prompt:
        """The prompt that ends with what `values` say in the template's last block. UserError where the template is wrong."""
        try:
            rendered = self._opening.finish(values)
        except prompts.PromptError as error:
            raise UserError(str(error)) from None
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
        """UserError where the template is wrong."""
        try:
            return Opening(self._library.open(template, values))
        except prompts.PromptError as error:
            raise UserError(str(error)) from None

    def follow(self, before: Prompt, reply: str, template: str, values: Mapping[str, Any], schema: str) -> Prompt:
        """The next turn of a conversation: what was said, what the teacher replied, and what this template adds.

        All but the last message is in the server's prefix cache already.
        """
        added = self.render(template, values, schema)
        said = Message("assistant", readable(reply))
        messages = (*before.messages, said, *added.messages)
        return Prompt(added.template, messages, schema, hash_messages(messages))

    def request(self, prompt: Prompt, series: str, draw: int) -> Request:
        """The request for one draw of a prompt.

        The same run seed, series and draw give the same request. Draws of one series have consecutive seeds, so that equal prompts may
        travel together (`engine.batcher`): give equal prompts neighbouring draws.
        """
        sampling = SamplingParams(
            temperature=self._sampling.temperature if prompt.temperature is None else prompt.temperature,
            top_p=self._sampling.top_p,
            max_tokens=self._sampling.max_tokens,
            seed=(_seed(self._seed, series) + draw) % MAX_SEED,
            json_schema=prompt.schema if self._sampling.constrained else None,
        )
        return Request(self._model if prompt.reply is None else LOCAL, prompt.messages, sampling, prompt.hash)


def open_prompter(config: RunConfig, model: str) -> Prompter:
    """As a run renders and asks; `model` is the teacher's name in requests. Errors as of `open_library`."""
    return Prompter(open_library(config.prompts), model, config.sampling, config.seed)


@lru_cache
def _seed(run_seed: int, series: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{run_seed} {series}".encode(), digest_size=4).digest()) % MAX_SEED


@lru_cache
def rows_schema(labels: tuple[str, ...], num_rows: int) -> str:
    """JSON schema of a list of exactly `num_rows` objects with a text and one of the labels."""
    return _list(_object(text=_TEXT, label=_one_of(labels)), num_rows)


@lru_cache
def texts_schema(num_texts: int, kinds: tuple[str, ...] = ()) -> str:
    """JSON schema of a list of exactly `num_texts` objects with a text, and before it one of `kinds` if there are any."""
    return _list(_object(**({"kind": _one_of(kinds)} if kinds else {}), text=_TEXT), num_texts)


@lru_cache
def strings_schema(at_most: int) -> str:
    """JSON schema of a list of one to so many strings."""
    return json.dumps({"type": "array", "items": _TEXT, "minItems": 1, "maxItems": at_most})


@lru_cache
def label_schema(labels: tuple[str, ...]) -> str:
    """JSON schema of an object with one of the labels."""
    return json.dumps(_object(label=_one_of(labels)))


@lru_cache
def labels_schema(labels: tuple[str, ...], num_texts: int) -> str:
    """JSON schema of a list of exactly `num_texts` objects with the number of a text and one of the labels."""
    number = {"type": "integer", "minimum": 1, "maximum": num_texts}
    return _list(_object(number=number, label=_one_of(labels)), num_texts)


_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}


def _one_of(values: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _list(items: dict[str, Any], count: int) -> str:
    return json.dumps({"type": "array", "items": items, "minItems": count, "maxItems": count})
