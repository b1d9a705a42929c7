"""The words sent to the teacher: Jinja templates, one folder a method, and the library that renders them.

A template has a block for each message (`system`, then `user`). What many requests share stands first and what differs last, so that the
server's prefix cache pays for the long common part. Texts and labels are put in as JSON strings: whatever a row holds, it stays inside its
quotes. Templates are sandboxed, and a name they miss is an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, meta
from jinja2.loaders import FileSystemLoader
from jinja2.sandbox import ImmutableSandboxedEnvironment

FOLDER = Path(__file__).parent
ROLES = ("system", "user")


@dataclass(frozen=True, slots=True)
class Rendered:
    """One prompt, ready to send."""

    template: str
    """Name and version, e.g. `pgkd/generate@1f2e3d4c`."""
    messages: tuple[tuple[str, str], ...]
    """(role, content), in order."""


class PromptLibrary:
    """Renders templates by name (`pgkd/generate`)."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._environment = ImmutableSandboxedEnvironment(
            loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
        )
        self._environment.filters["json"] = _as_json
        self._versions: dict[str, str] = {}

    def render(self, name: str, values: Mapping[str, Any]) -> Rendered:
        template = self._environment.get_template(f"{name}.jinja")
        context = template.new_context(dict(values))
        messages = tuple((role, "".join(template.blocks[role](context)).strip()) for role in ROLES if role in template.blocks)
        return Rendered(f"{name}@{self.version(name)}", messages)

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


def _as_json(value: object) -> str:
    """Readable JSON: no ASCII escapes, but lone surrogates stay escaped, since they cannot be sent."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text
