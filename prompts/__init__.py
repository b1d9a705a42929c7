"""The words sent to the teacher: Jinja templates, one folder a method, and the library that renders them.

A template has a block for each message (`system`, then `user`), and may have a third, `ask`, that ends the user's message. What many
requests share stands in the first two and what differs in the third: so the long common part is rendered once here (`open`), and computed
once by the server's prefix cache. Texts and labels are put in as JSON strings: whatever a row holds, it stays inside its quotes. Templates
are sandboxed, and a name they miss is an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, meta
from jinja2.loaders import FileSystemLoader
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

FOLDER = Path(__file__).parent
OPENING = ("system", "user")
ASK = "ask"


@dataclass(frozen=True, slots=True)
class Rendered:
    """One prompt, ready to send."""

    template: str
    """Name and version, e.g. `pgkd/generate@1f2e3d4c`."""
    messages: tuple[tuple[str, str], ...]
    """(role, content), in order."""


class Opening:
    """A template whose common part is rendered; `finish` adds what differs."""

    def __init__(self, name: str, template: Template, messages: tuple[tuple[str, str], ...]) -> None:
        self._name = name
        self._template = template
        self._messages = messages

    def finish(self, values: Mapping[str, Any]) -> Rendered:
        """`values` are all that the last block needs; those of the common part are not known there."""
        ask = _render_block(self._template, ASK, values)
        if not ask:
            return Rendered(self._name, self._messages)
        *before, (role, content) = self._messages
        return Rendered(self._name, (*before, (role, f"{content}\n\n{ask}")))


class PromptLibrary:
    """Renders templates by name (`pgkd/generate`)."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._environment = ImmutableSandboxedEnvironment(
            loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
        )
        self._environment.filters["json"] = _as_json
        self._versions: dict[str, str] = {}

    def open(self, name: str, values: Mapping[str, Any]) -> Opening:
        """The part that many prompts share, rendered."""
        template = self._environment.get_template(f"{name}.jinja")
        messages = tuple((role, _render_block(template, role, values)) for role in OPENING if role in template.blocks)
        return Opening(f"{name}@{self.version(name)}", template, messages)

    def render(self, name: str, values: Mapping[str, Any]) -> Rendered:
        return self.open(name, values).finish(values)

    def version(self, name: str) -> str:
        """8 hex digits over the source of the template and of all that it includes."""
        if name not in self._versions:
            digest = hashlib.blake2b(digest_size=4)
            for source in self._sources(f"{name}.jinja"):
                digest.update(source.encode() + b"\0")
            self._versions[name] = digest.hexdigest()
        return self._versions[name]

    def _sources(self, file: str) -> list[str]:
        loader = self._environment.loader
        assert loader is not None
        source, _, _ = loader.get_source(self._environment, file)
        included = meta.find_referenced_templates(self._environment.parse(source))
        return [source, *(text for name in sorted(filter(None, included)) for text in self._sources(name))]


def _render_block(template: Template, block: str, values: Mapping[str, Any]) -> str:
    if block not in template.blocks:
        return ""
    # Without Jinja's globals, which templates here do not use: to copy them takes four times as long as the block.
    context = Context(template.environment, dict(values), template.name, template.blocks)
    return "".join(template.blocks[block](context)).strip()


def _as_json(value: object) -> str:
    """Readable JSON: no ASCII escapes, but lone surrogates stay escaped, since they cannot be sent."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text
