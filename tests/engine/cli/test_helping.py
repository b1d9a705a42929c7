"""What a stranger reads who asks a command what it does."""

import re
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from engine.cli import app
from engine.cli.helping import explain, grouped, value_word


def all_commands(group: Any = None, *before: str) -> list[list[str]]:
    group = typer.main.get_command(app) if group is None else group
    found: list[list[str]] = []
    for name, command in group.commands.items():
        found += all_commands(command, *before, name) if isinstance(command, TyperGroup) else [[*before, name]]
    return found


def find(command: list[str]) -> Any:
    found: Any = typer.main.get_command(app)
    for name in command:
        found = found.commands[name]
    return found


@pytest.mark.parametrize("command", all_commands(), ids=" ".join)
def test_a_command_explains_itself_in_plain_words(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], terminal_width=80)
    assert result.exit_code == 0
    usage, _, rest = result.output.partition("\n\n")
    assert re.fullmatch(rf"Usage: \S+ {' '.join(command)} \[OPTIONS\]( [\[\]A-Z| .]+)?", " ".join(usage.split()))
    # No type of Python's, and no option without a word about it.
    assert not re.search(r"<\w+(\[\w+\])?( range)?>|\{", result.output.replace('{"texts"', "")), result.output
    for param in find(command).params:
        assert param.help, param.name
    # Examples stand in a line each, so that they can be copied.
    examples = rest.partition("Example")[2].partition("\n\n")[0].splitlines()[1:]
    assert examples
    assert all("reflux " in example for example in examples)


def test_every_command_stands_in_a_group_with_a_few_words() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    groups = dict(grouped(root))
    assert "Commands" not in groups
    shown = CliRunner().invoke(app, ["--help"], terminal_width=80).output
    for group, commands in groups.items():
        assert f"\n{group}:\n" in shown
        for name, command in commands:
            assert command.short_help, name
            assert re.search(rf"^  {name} +{re.escape(command.short_help)}$", shown, flags=re.MULTILINE), f"{name} takes more than a line"


def test_nothing_and_h_ask_for_help_and_the_version_is_told() -> None:
    assert CliRunner().invoke(app, ["-h"]).output == CliRunner().invoke(app, ["--help"]).output
    assert "Teach and write:" in CliRunner().invoke(app, []).output
    assert re.fullmatch(r"reflux \d+\.\d+\.\S+\n", CliRunner().invoke(app, ["--version"]).output)


def test_a_docstring_is_taken_apart() -> None:
    text, examples = explain("Do it,\n    and well.\n\n    Twice.\n\n    Example: reflux a\n    Example: reflux b\n    ")
    assert text == "Do it, and well.\n\nTwice."
    assert examples == ("reflux a", "reflux b")


@pytest.mark.parametrize(
    ("hint", "word"),
    [
        (Path | None, "PATH"),
        (list[str] | None, "TEXT"),
        (int, "N"),
        (Literal["lines", "jsonl"], "lines|jsonl"),
        (bool, None),
        (str | int, None),
    ],
)
def test_values_have_plain_names(hint: object, word: str | None) -> None:
    assert value_word(hint) == word
