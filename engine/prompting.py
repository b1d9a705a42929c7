"""From what a strategy wants to say to a Request: renders templates and fixes how the teacher shall answer."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import msgspec
from msgspec.structs import replace

import prompts
from engine.config import LabellingConfig, RunConfig, SamplingConfig
from engine.errors import UserError
from engine.labels.marking import write_inline
from engine.records import Assignment, Marking, Message, Request, SamplingParams, Span, hash_messages
from engine.teacher.panel import Panel
from engine.text import readable
from engine.variants import Allotment

MAX_SEED = 2**31

LOCAL = "local"
"""Stands for the model where a program of ours answers a prompt."""

Role: TypeAlias = Literal["system", "user"]


class CodeForm(msgspec.Struct, frozen=True, gc=False):
    """How an answer is asked for that is one of some short codes, with the log-probabilities of its tokens."""

    regex: str
    num_tokens: int
    top_logprobs: int


class Prompt(msgspec.Struct, frozen=True, gc=False):
    """A rendered prompt with the JSON schema its answer should have."""

    template: str
    messages: tuple[Message, ...]
    schema: str
    hash: str
    """Of the messages."""
    temperature: float | None = None
    """Instead of the configured one."""
    reply: str | None = None
    """What a program answers in the teacher's place; recorded like any answer, at no tokens."""
    code: CodeForm | None = None
    """Instead of the schema. What such an answer ends by is its length."""
    model: str | None = None
    """The teacher that is asked; None takes the one who writes the assignment."""
    series: str | None = None
    """Tells its draw from others of the assignment, where they are asked side by side; None counts turns."""
    is_once: bool = False
    """Asked once in a run, in whatever assignment comes first; `series` names it in the whole run."""
    variants: tuple[Prompt, ...] = ()
    """The same said by each variant of the template, if it has any; `Prompter.word` decides which is sent."""


def open_library(own: Path | None, variants: Mapping[str, Mapping[str, Path]] | None = None) -> prompts.PromptLibrary:
    """The templates, those in the user's own folder first, and variants of them. UserError if one of the user's cannot be read, or belongs
    to none of ours.
    """
    try:
        library = prompts.PromptLibrary(own, variants)
        library.check()
    except prompts.PromptError as error:
        raise UserError(f"prompts: {error}") from None
    return library


class Opening:
    """The part that many prompts share, rendered once in each wording."""

    def __init__(self, wordings: Sequence[prompts.Opening]) -> None:
        self._wordings = wordings

    def finish(self, values: Mapping[str, Any], schema: str) -> Prompt:
        """The prompt that ends with what `values` say in the template's last block. UserError where the template is wrong."""
        try:
            prompt, *variants = [_finish(wording, values, schema) for wording in self._wordings]
        except prompts.PromptError as error:
            raise UserError(str(error)) from None
        return replace(prompt, variants=tuple(variants)) if variants else prompt


class Prompter:
    """Renders prompts of one task and turns them into requests to one model."""

    def __init__(
        self,
        library: prompts.PromptLibrary,
        model: str,
        sampling: SamplingConfig,
        seed: int,
        allotment: Allotment | None = None,
        *,
        panel: Panel | None = None,
        labelling: LabellingConfig | None = None,
    ) -> None:
        """`allotment` of assignments to variants; None is for a library without any. `panel`: all teachers, where there are several."""
        self.allotment = allotment
        self.panel = panel or Panel([model])
        self.labelling = labelling or LabellingConfig()
        self.is_constrained = sampling.constrained
        self.seed = seed
        self._library = library
        self._sampling = sampling

    def render(self, template: str, values: Mapping[str, Any], schema: str) -> Prompt:
        return self.open(template, values).finish(values, schema)

    def open(self, template: str, values: Mapping[str, Any]) -> Opening:
        """UserError where the template is wrong."""
        try:
            return Opening([self._library.open(name, values) for name in self._library.wordings(template)])
        except prompts.PromptError as error:
            raise UserError(str(error)) from None

    def follow(self, before: Prompt, reply: str, template: str, values: Mapping[str, Any], schema: str) -> Prompt:
        """The next turn of a conversation: what was said, what the teacher replied, and what this template adds.

        All but the last message is in the server's prefix cache already.
        """
        said = (*before.messages, Message("assistant", readable(reply)))

        def behind(added: Prompt) -> Prompt:
            messages = (*said, *added.messages)
            return replace(added, messages=messages, hash=hash_messages(messages), variants=tuple(map(behind, added.variants)))

        return behind(self.render(template, values, schema))

    def word(self, prompt: Prompt, assignment: Assignment) -> Prompt:
        """The prompt in the words that this assignment is asked in. A strategy knows nothing of them: it renders what it wants to say.

        What is asked once in a run is said as ever, for any assignment may be the one that comes first.
        """
        if self.allotment is None or not prompt.variants or prompt.is_once:
            return prompt
        wordings = (prompt, *prompt.variants)
        chosen = wordings[self.allotment.choose([wording.template for wording in wordings], assignment.round, assignment.number)]
        return replace(prompt, template=chosen.template, messages=chosen.messages, hash=chosen.hash, variants=())

    def assigned(self, prompt: Prompt, assignment: Assignment, turn: int) -> Request:
        """The request for a prompt that an assignment asks, as its turn of this number."""
        if prompt.is_once:
            assert prompt.series is not None, "what is asked once in a run has a name there"
            return self.request(prompt, prompt.series, 0)
        series = f"{assignment.round} {turn if prompt.series is None else prompt.series}"
        return self.request(prompt, series, assignment.number, self.panel.writer(assignment.round, assignment.number))

    def request(self, prompt: Prompt, series: str, draw: int, writer: str | None = None) -> Request:
        """The request for one draw of a prompt; `writer` is asked where the prompt names no teacher, by default the first of them.

        The same run seed, series and draw give the same request. Draws of one series have consecutive seeds, so that equal prompts may
        travel together (`engine.teacher.batcher`): give equal prompts neighbouring draws.
        """
        sampling = SamplingParams(
            temperature=self._sampling.temperature if prompt.temperature is None else prompt.temperature,
            top_p=self._sampling.top_p,
            max_tokens=self._sampling.max_tokens if prompt.code is None else prompt.code.num_tokens,
            seed=(_seed(self.seed, series) + draw) % MAX_SEED,
            json_schema=prompt.schema if self.is_constrained and prompt.code is None else None,
            regex=prompt.code.regex if self.is_constrained and prompt.code is not None else None,
            top_logprobs=0 if prompt.code is None else prompt.code.top_logprobs,
        )
        model = LOCAL if prompt.reply is not None else prompt.model or writer or self.panel.models[0]
        return Request(model, prompt.messages, sampling, prompt.hash)


def open_prompter(config: RunConfig, model: str, variant: str | None = None, *, others: Sequence[str] | None = None) -> Prompter:
    """As a run renders and asks; `model` is the teacher's name in requests. Errors as of `open_library`.

    `variant`: all that has a variant of this name is said in it, and all else as ever; None lets the run's policy decide. `others`: the
    names of the other teachers; None takes those of the configuration.
    """
    library = open_library(config.prompts, config.variants.templates)
    strategy = config.strategy
    requests = 0 if strategy.type == "seed_only" else math.ceil(strategy.rows_per_round / strategy.rows_per_call)
    allotment = Allotment(config.variants.policy, config.seed, requests, only=variant) if config.variants.templates else None
    others = [teacher.model for teacher in config.teachers] if others is None else others
    panel = Panel([model, *others], [teacher.share for teacher in (config.teacher, *config.teachers)])
    return Prompter(library, model, config.sampling, config.seed, allotment, panel=panel, labelling=config.labelling)


def _finish(wording: prompts.Opening, values: Mapping[str, Any], schema: str) -> Prompt:
    rendered = wording.finish(values)
    messages = tuple([Message(cast(Role, role), content) for role, content in rendered.messages])
    return Prompt(rendered.template, messages, schema, hash_messages(messages))


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
def pair_rows_schema(labels: tuple[str, ...], num_rows: int) -> str:
    """JSON schema of a list of exactly `num_rows` objects with two texts and one of the labels."""
    return _list(_object(text=_TEXT, text_pair=_TEXT, label=_one_of(labels)), num_rows)


@lru_cache
def pairs_schema(num_pairs: int, kinds: tuple[str, ...] = ()) -> str:
    """JSON schema of a list of exactly `num_pairs` objects with two texts, and before them one of `kinds` if there are any."""
    return _list(_object(**({"kind": _one_of(kinds)} if kinds else {}), text=_TEXT, text_pair=_TEXT), num_pairs)


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


@lru_cache
def set_rows_schema(labels: tuple[str, ...], num_rows: int, *, allow_none: bool = True) -> str:
    """JSON schema of a list of exactly `num_rows` objects with a text and a list of labels."""
    return _list(_object(text=_TEXT, labels=_some_of(labels, allow_none)), num_rows)


@lru_cache
def label_set_schema(labels: tuple[str, ...], *, allow_none: bool = True) -> str:
    """JSON schema of an object with a list of labels."""
    return json.dumps(_object(labels=_some_of(labels, allow_none)))


@lru_cache
def label_sets_schema(labels: tuple[str, ...], num_texts: int, *, allow_none: bool = True) -> str:
    """JSON schema of a list of exactly `num_texts` objects with the number of a text and a list of labels."""
    number = {"type": "integer", "minimum": 1, "maximum": num_texts}
    return _list(_object(number=number, labels=_some_of(labels, allow_none)), num_texts)


@lru_cache
def marked_rows_schema(types: tuple[str, ...], marking: Marking, num_rows: int) -> str:
    """JSON schema of a list of exactly `num_rows` objects with a text whose entities are marked."""
    return _list(_object(**({} if marking == "inline" else {"text": _TEXT}), **_marks(types, marking)), num_rows)


@lru_cache
def mark_schema(types: tuple[str, ...], marking: Marking) -> str:
    """JSON schema of an object with the entities of one given text; where they stand between tags, with the text."""
    return json.dumps(_object(**_marks(types, marking)))


@lru_cache
def marks_schema(types: tuple[str, ...], marking: Marking, num_texts: int) -> str:
    """JSON schema of a list of exactly `num_texts` objects as above, each with the number of a text."""
    number = {"type": "integer", "minimum": 1, "maximum": num_texts}
    return _list(_object(number=number, **_marks(types, marking)), num_texts)


def _marks(types: tuple[str, ...], marking: Marking) -> dict[str, dict[str, Any]]:
    if marking == "inline":
        # No grammar looks at examples; they tell a program that reads the schema what tags there are.
        return {"text": {**_TEXT, "examples": [write_inline("x", [Span(0, 1, type)]) for type in types]}}
    entity = _object(text=_TEXT, type=_one_of(types), nth={"type": "integer", "minimum": 1})
    entity["required"].remove("nth")
    return {"entities": {"type": "array", "items": entity}}


_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}


def _one_of(values: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def _some_of(values: tuple[str, ...], allow_none: bool) -> dict[str, Any]:
    # Not `uniqueItems`: of vLLM's grammars none knows it, and the default one refuses a request that has it. Parsing looks at that.
    return {"type": "array", "items": _one_of(values), "minItems": 0 if allow_none else 1, "maxItems": len(values)}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _list(items: dict[str, Any], count: int) -> str:
    return json.dumps({"type": "array", "items": items, "minItems": count, "maxItems": count})
