"""The reference pages, made from the code: commands, configuration keys, and columns of tables.

    python -m engine.reference            writes them to docs/reference
    python -m engine.reference --check    says which of them are not as the code has it, and changes nothing

Knows no words of its own about a command, a key or a table: they stand where the thing is defined.
"""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.core import TyperGroup

from engine.cli import app
from engine.cli.helping import Commands, describe, explain, grouped
from engine.config import METHODS, RunConfig
from engine.store import SCHEMAS
from engine.task.task_file import key_notes, render_value

FOLDER = Path("docs/reference")
MADE = "<!-- Made from the code by `make docs`; changes go there, not here. -->"
_BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}
_WORDS: Mapping[object, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}


class _Key(NamedTuple):
    name: str
    kind: str
    default: str
    note: str


@cache
def pages() -> Mapping[str, str]:
    """The text of each page, by its file's name. The code does not change meanwhile, so they are made once."""
    return {"commands.md": "\n".join(_commands()), "configuration.md": "\n".join(_configuration()), "tables.md": "\n".join(_tables())}


# Commands


def _commands() -> Iterator[str]:
    yield from ("# Commands", "", MADE, "")
    yield from ("Each prints this with `--help`. Wrong input ends with status 2 and one message; what broke and can be resumed with 1.", "")
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    listed = [*_walk(root)]
    group = None
    for command in listed:
        if command.group != group:
            group = command.group
            yield from ("", f"**{group}**:") if group != listed[0].group else (f"**{group}**:",)
        yield f"[{command.name}](#reflux-{command.name.replace(' ', '-')})"
    for command in listed:
        yield from ("", f"## reflux {command.name}", "")
        yield from _command(command.name, command.command)


class _Listed(NamedTuple):
    group: str
    name: str
    command: Any


def _walk(root: TyperGroup) -> Iterator[_Listed]:
    for group, commands in grouped(root):
        for name, command in commands:
            if isinstance(command, Commands):
                yield from (_Listed(group, f"{name} {inner.name}", inner.command) for inner in _walk(command))
            else:
                yield _Listed(group, name, command)


def _command(name: str, command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=f"reflux {name}", help_option_names=["--help", "-h"])
    text, examples = explain(command.help or "")
    yield from (text, "", "```text", " ".join([f"reflux {name}", *command.collect_usage_pieces(context)]), "```")
    if examples:
        yield from ("", "```sh", *examples, "```")
    params = [param for param in command.params if not getattr(param, "hidden", False)]
    if records := [record for param in params if (record := describe(param, context))]:
        yield from ("", "| | |", "|---|---|")
        for said, words in records:
            yield f"| `{_cell(said)}` | {_cell(words)} |"


# Configuration


def _configuration() -> Iterator[str]:
    yield from ("# Configuration keys", "", MADE, "")
    yield "A run is one TOML file; unknown keys are errors. Paths are relative to the file. Every key can be given on the command line too:"
    yield from ("`--set strategy.rounds=3`. Where the default is `none`, the key is left out for that.", "")
    yield from _section("", RunConfig)
    yield from ("", "## [strategy]", "")
    yield "The method of teaching. `type` chooses it, and with it which keys there are:"
    for name, method in METHODS.items():
        yield from ("", f'### [strategy] type = "{name}"', "", _about(method), "")
        yield from _table(_keys(method))


def _section(name: str, section: type[BaseModel]) -> Iterator[str]:
    """The section's own keys, and then its sections."""
    inner: list[tuple[str, type[BaseModel]]] = []
    keys: list[_Key] = []
    for key in _keys(section):
        kind = _section_in(section.model_fields[key.name].annotation)
        if kind is not None and f"{name}.{key.name}" != ".teachers":
            many = get_origin(section.model_fields[key.name].annotation) is tuple
            inner.append((f"[{_dotted(name, key.name)}]" if many else _dotted(name, key.name), kind))
        elif _dotted(name, key.name) != "strategy":
            keys.append(key)
    if name:
        yield from ("", f"## [{name}]", "")
        if about := _about(section):
            yield from (about, "")
    yield from _table(keys)
    for inner_name, kind in inner:
        yield from _section(inner_name, kind)


def _dotted(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _keys(section: type[BaseModel]) -> Iterator[_Key]:
    notes = key_notes(section)
    for name, field in section.model_fields.items():
        annotated = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        default = "" if field.default is PydanticUndefined else _default(field.default)
        yield _Key(name, _kind(annotated), default, notes.get(name, ""))


def _table(keys: Any) -> Iterator[str]:
    yield from ("| key | value | default | |", "|---|---|---|---|")
    for key in keys:
        default = f"`{_cell(key.default)}`" if key.default else "required"
        yield f"| `{key.name}` | {_cell(key.kind)} | {default} | {_cell(key.note)} |"


def _default(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return "the defaults below"
    return "{}" if value == {} else render_value(value)


def _kind(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [_bound(metadata) for metadata in parts[1:]]
        return ", ".join([_kind(parts[0]), *filter(None, bounds)])
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(part) for part in parts if part is not type(None))
    if origin is Literal:
        return " or ".join(f"`{render_value(value)}`" for value in parts)
    if origin is tuple:
        return "list of sections" if _section_in(annotation) else f"list of {_kind(parts[0])}"
    if origin is dict:
        return f"table of {_kind(parts[1])}"
    return _WORDS.get(annotation, "text")


def _bound(metadata: Any) -> str:
    found = [form.format(getattr(metadata, name)) for name, form in _BOUNDS.items() if getattr(metadata, name, None) is not None]
    return ", ".join(found)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Of a section, or of a list of them."""
    for part in (annotation, *(get_args(annotation) if get_origin(annotation) is tuple else ())):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _about(section: type[BaseModel]) -> str:
    return " ".join((section.__dict__.get("__doc__") or "").split())


# Tables


def _tables() -> Iterator[str]:
    yield from ("# Tables of a run", "", MADE, "")
    yield "What `reflux query RUN SQL` asks, and `read_samples` and others of `engine` read. A column is null only where a `?` says so."
    for name, schema in SCHEMAS.items():
        yield from ("", f"## {name}", "", "| column | type |", "|---|---|")
        for field in schema:
            yield f"| `{field.name}` | {_cell(str(field.type))}{'?' if field.nullable else ''} |"


def _cell(text: str) -> str:
    """One line, without what ends a cell or begins a tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(f"{text}\n", encoding="utf-8")


def outdated(folder: Path) -> list[str]:
    """Pages that are not as the code has it."""
    read = partial(Path.read_text, encoding="utf-8")
    return [name for name, text in pages().items() if not (folder / name).is_file() or read(folder / name) != f"{text}\n"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    options = parser.parse_args()
    if not options.check:
        write(options.folder)
    elif old := outdated(options.folder):
        sys.exit(f"not as the code has it: {', '.join(old)} in {options.folder}; run make docs")


if __name__ == "__main__":
    main()
