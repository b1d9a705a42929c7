"""How commands explain themselves: in groups, with plain words for values, and with examples that can be copied.

A command's docstring is its help. Paragraphs of it whose lines begin with `Example: ` are examples, each printed in a line of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

F = TypeVar("F", bound=Callable[..., None])

EXAMPLE = "Example: "
_WORDS: Mapping[object, str] = {Path: "PATH", str: "TEXT", int: "N", float: "X"}


class Explanation(NamedTuple):
    """A docstring in its two parts."""

    text: str
    examples: tuple[str, ...]


def explain(help: str) -> Explanation:
    """Paragraphs, each in one line, with an empty one between them; and what can be copied."""
    lines = inspect.cleandoc(help).splitlines()
    examples = tuple(line.removeprefix(EXAMPLE) for line in lines if line.startswith(EXAMPLE))
    rest = "\n".join(line for line in lines if not line.startswith(EXAMPLE))
    return Explanation("\n\n".join(" ".join(part.split()) for part in rest.split("\n\n") if part.strip()), examples)


class Command(TyperCommand):
    """A command whose values are named by plain words."""

    def __init__(self, name: str | None, *, callback: Callable[..., Any] | None = None, **rest: Any) -> None:
        super().__init__(name, callback=callback, **rest)
        hints = get_type_hints(callback, include_extras=False) if callback is not None else {}
        for param in self.params:
            if param.metavar is None and (word := value_word(hints.get(param.name))) is not None:
                param.metavar = word

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What has to be given stands bare, as elsewhere."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        text, examples = explain(self.help or "")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text)
        if examples:
            with formatter.section("Examples" if len(examples) > 1 else "Example"):
                # As it stands, however long: what is folded cannot be copied.
                formatter.write("".join(f"{'':>{formatter.current_indent}}{example}\n" for example in examples))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            if records := [record for param in self.get_params(ctx) if param.param_type_name == kind and (record := describe(param, ctx))]:
                with formatter.section(title):
                    formatter.write_dl(records)


class Commands(TyperGroup):
    """Commands listed in their groups, each with its few words."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for group, commands in grouped(self):
            with formatter.section(group):
                formatter.write_dl([(name, command.short_help or "") for name, command in commands])


def describe(param: Any, ctx: Any) -> tuple[str, str] | None:
    """An argument or option, and what it does; of an argument not the type, which says nothing to people."""
    if (record := param.get_help_record(ctx)) is None:
        return None
    name, words = record
    return (name.partition(" <")[0] if param.param_type_name == "argument" else name), words


def value_word(hint: object) -> str | None:
    """How a value of this type is called; None for a switch."""
    kinds = [kind for kind in _parts(hint) if kind is not type(None)]
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) is list:
        return value_word(get_args(kind)[0])
    return _WORDS.get(kind)


def _parts(hint: object) -> tuple[object, ...]:
    return (hint,) if get_origin(hint) in (None, Literal, list) else get_args(hint)


def grouped(commands: TyperGroup) -> Iterable[tuple[str, list[tuple[str, Any]]]]:
    """In the order in which groups and commands were added."""
    groups: dict[str, list[tuple[str, Any]]] = {}
    for name, command in commands.commands.items():
        groups.setdefault(getattr(command, "rich_help_panel", None) or "Commands", []).append((name, command))
    return groups.items()


def make_app(name: str, help: str, **rest: Any) -> typer.Typer:
    """An application that shows its help where no command is given, and its errors as they are."""
    return typer.Typer(
        name=name,
        help=help,
        cls=Commands,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
        **rest,
    )


def add(app: typer.Typer, group: str, commands: Mapping[F, str]) -> None:
    """Commands of one group, each with the words that stand beside it in the list."""
    for function, words in commands.items():
        app.command(cls=Command, short_help=words, rich_help_panel=group)(function)
