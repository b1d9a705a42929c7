"""The words sent to the teacher: Jinja templates, one folder a method, and the library that renders them.

A template has a block for each message (`system`, then `user`), and may have a third, `ask`, that ends the user's message. What many
requests share stands in the first two and what differs in the third: so the long common part is rendered once here (`open`), and computed
once by the server's prefix cache. Texts and labels are put in as JSON strings: whatever a row holds, it stays inside its quotes. Templates
are sandboxed, and a name they miss is an error. A folder of the user's own may hold templates that take the place of ours of the same
name. Beside a template may stand variants of it, other files under its name and their own (`pgkd/generate:short`).
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateNotFound, TemplateSyntaxError, meta
from jinja2.loaders import ChoiceLoader, DictLoader, FileSystemLoader
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

FOLDER = Path(__file__).parent
VARIANT = ":"
"""Between the name of a template and that of a variant of it."""
OPENING = ("system", "user")
ASK = "ask"


class PromptError(Exception):
    """A template is missing or wrong, or wants a value that there is not; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One prompt, ready to send."""

    template: str
    """Name and version, e.g. `pgkd/generate@1f2e3d4c`, or `pgkd/generate:short@5a6b7c8d`."""
    messages: tuple[tuple[str, str], ...]
    """(role, content), in order."""


class Opening:
    """A template whose common part is rendered; `finish` adds what differs."""

    def __init__(self, name: str, template: Template, messages: tuple[tuple[str, str], ...]) -> None:
        self._name = name
        self._template = template
        self._messages = messages

    @property
    def messages(self) -> tuple[tuple[str, str], ...]:
        """(role, content) of the common part."""
        return self._messages

    def finish(self, values: Mapping[str, Any]) -> Rendered:
        """`values` are all that the last block needs; those of the common part are not known there. PromptError if they are not enough."""
        ask = _render_block(self._template, ASK, values)
        if not ask:
            return Rendered(self._name, self._messages)
        *before, (role, content) = self._messages
        return Rendered(self._name, (*before, (role, f"{content}\n\n{ask}")))


class PromptLibrary:
    """Renders templates by name (`pgkd/generate`)."""

    def __init__(self, own: Path | None = None, variants: Mapping[str, Mapping[str, Path]] | None = None) -> None:
        """`own`: a folder whose templates take the place of ours of the same name (`pgkd/generate.jinja`); parts that templates include
        (`shared/taxonomy.jinja`) may be replaced by themselves. `variants`: files by name, for each template that has some; they are read
        now. PromptError if one cannot be.
        """
        self._own = own
        self._variants = variants or {}
        folders = [folder for folder in (own, FOLDER) if folder is not None]
        sources = {
            f"{template}{VARIANT}{name}.jinja": _read(template, name, path)
            for template, files in self._variants.items()
            for name, path in files.items()
        }
        self._environment = ImmutableSandboxedEnvironment(
            loader=ChoiceLoader([DictLoader(sources), *(FileSystemLoader(folder) for folder in folders)]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
        )
        self._environment.filters["json"] = _as_json
        self._versions: dict[str, str] = {}

    def check(self) -> None:
        """PromptError if a template in the user's own folder, or a variant, is not one, or belongs to no template of ours: its name is
        probably misspelt.
        """
        self._check_variants()
        if self._own is None:
            return
        if not self._own.is_dir():
            raise PromptError(f"{self._own} is no folder; expected one with templates such as pgkd/generate.jinja")
        own, shipped = _templates(self._own), _templates(FOLDER)
        with _explained(str(self._own)):
            included = {name for file in own for name in self._included(self._source(file), file)}
            for file in own:
                self._environment.get_template(file)
        for name in own:
            if name not in shipped and name not in included:
                near = difflib.get_close_matches(name, shipped, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(shipped)}"
                raise PromptError(f"{self._own / name} takes no template's place; {hint}")

    def _check_variants(self) -> None:
        names = [file.removesuffix(".jinja") for file in _templates(FOLDER)]
        for template in self._variants:
            if template not in names:
                near = difflib.get_close_matches(template, names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
                raise PromptError(f"variants of {template}: there is no such template; {hint}")
            for name in self.wordings(template):
                with _explained(name):
                    self._environment.get_template(f"{name}.jinja")

    def wordings(self, name: str) -> list[str]:
        """The template itself, and then its variants: all that may be rendered in its place."""
        return [name, *(f"{name}{VARIANT}{variant}" for variant in self._variants.get(name, ()))]

    def open(self, name: str, values: Mapping[str, Any]) -> Opening:
        """The part that many prompts share, rendered. PromptError if there is no such template, or it cannot be rendered."""
        with _explained(name):
            template = self._environment.get_template(f"{name}.jinja")
        messages = tuple((role, _render_block(template, role, values)) for role in OPENING if role in template.blocks)
        return Opening(f"{name}@{self.version(name)}", template, messages)

    def render(self, name: str, values: Mapping[str, Any]) -> Rendered:
        return self.open(name, values).finish(values)

    def version(self, name: str) -> str:
        """8 hex digits over the source of the template and of all that it includes."""
        if name not in self._versions:
            digest = hashlib.blake2b(digest_size=4)
            with _explained(name):
                for source in self._sources(f"{name}.jinja"):
                    digest.update(source.encode() + b"\0")
            self._versions[name] = digest.hexdigest()
        return self._versions[name]

    def _sources(self, file: str) -> list[str]:
        source = self._source(file)
        return [source, *(text for name in sorted(self._included(source, file)) for text in self._sources(name))]

    def _source(self, file: str) -> str:
        loader = self._environment.loader
        assert loader is not None
        return loader.get_source(self._environment, file)[0]

    def _included(self, source: str, file: str) -> set[str]:
        return set(filter(None, meta.find_referenced_templates(self._environment.parse(source, file))))


def _read(template: str, name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise PromptError(f"variant {name} of {template}: {path}: {error.strerror}; expected a file like {template}.jinja") from None
    except UnicodeDecodeError as error:
        raise PromptError(f"variant {name} of {template}: {path}: not UTF-8: {error.reason}") from None


def _templates(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jinja"))


@contextmanager
def _explained(name: str) -> Generator[None]:
    """What goes wrong with a template, as a PromptError. One that divides by zero or asks for too long a range is wrong too."""
    try:
        yield
    except TemplateNotFound as error:
        raise PromptError(f"prompt {name}: there is no template {error.name!r}") from None
    except TemplateSyntaxError as error:
        raise PromptError(f"prompt {name}: {error.name or 'the template'}, line {error.lineno}: {error.message}") from None
    except (TemplateError, UnicodeDecodeError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise PromptError(f"prompt {name}: {error}") from None


def _render_block(template: Template, block: str, values: Mapping[str, Any]) -> str:
    if block not in template.blocks:
        return ""
    # Without Jinja's globals, which templates here do not use: to copy them takes four times as long as the block.
    context = Context(template.environment, dict(values), template.name, template.blocks)
    with _explained((template.name or "").removesuffix(".jinja")):
        return "".join(template.blocks[block](context)).strip()


def _as_json(value: object) -> str:
    """Readable JSON: no ASCII escapes, but lone surrogates stay escaped, since they cannot be sent."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text
