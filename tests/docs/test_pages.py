"""The documentation keeps its word: links lead somewhere, commands exist, examples run."""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import ValidationError
from typer.core import TyperGroup
from typer.testing import CliRunner

from engine import api
from engine.cli import app
from engine.config import load_config, restore_config
from engine.loop import run_loop
from tests.docs.pages import PAGES, REPOSITORY, Block, anchors, blocks, links
from tests.engine.scripted_runs import FAKE_STUDENT
from tests.scripted_server import scripted_endpoint

SERVER = "http://gpu-box:8000/v1"
"""As pages call the server that the examples ask; scripted here."""
MODEL = "Qwen3-8B"


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def found(language: str) -> list[Any]:
    return [pytest.param(block, id=f"{name(page)}:{block.line}") for page in PAGES for block in blocks(page) if block.language == language]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_every_page_is_reached_from_the_index() -> None:
    index = REPOSITORY / "docs" / "README.md"
    reached = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    missing = {page for page in PAGES if page.is_relative_to(index.parent)} - {index} - reached
    assert not missing, f"name them in docs/README.md: {', '.join(map(name, missing))}"
    assert "docs/README.md" in links(REPOSITORY / "README.md")


def reflux_commands(line: str) -> Iterator[list[str]]:
    """The arguments of each call of `reflux` in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|;&<>()"):
            if words[:1] == ["reflux"]:
                yield words[1:]
            words = []
        else:
            words.append(word)


def check_command(arguments: list[str]) -> None:
    """Whether there is such a command with such options, and as many arguments as it wants."""
    command: Any = typer.main.get_command(app)
    names: list[str] = []
    while isinstance(command, TyperGroup):
        if arguments[0].startswith("-"):
            return
        assert arguments[0] in command.commands, f"no command {arguments[0]}"
        names.append(arguments[0])
        command, arguments = command.commands[arguments[0]], arguments[1:]
    command.make_context(" ".join(names), list(arguments))  # a usage error where something is not there


@pytest.mark.parametrize("block", found("sh"))
def test_commands_and_options_exist(block: Block) -> None:
    for line in block.commands:
        for arguments in reflux_commands(line):
            check_command(arguments)


def test_a_command_or_an_option_that_is_not_there_is_found() -> None:
    for line in ("reflux teach x.toml", "echo hello | reflux predict runs/x - --fast", "reflux query runs/x"):
        (arguments,) = reflux_commands(line)
        with pytest.raises(Exception, match=r"no command|No such option|Missing parameter"):
            check_command(arguments)


def check_keys(part: dict[str, Any]) -> None:
    """Whether a part of a task file could stand in one: with all that it leaves out, it is one."""
    data = {"seed": "seed.csv", "validation": "validation.csv", "test": "test.csv"} | part.get("task", {}).get("data", {})
    task = {"domain": "messages", "labels": [{"name": "a"}, {"name": "b"}]} | part.get("task", {}) | {"data": data}
    restore_config({"name": "page"} | part | {"task": task, "teacher": {"model": "m"} | part.get("teacher", {})})


@pytest.mark.parametrize("block", found("toml"))
def test_keys_exist(block: Block) -> None:
    check_keys(tomllib.loads(block.text))


def test_a_key_that_is_not_there_is_found() -> None:
    with pytest.raises(ValidationError, match=r"teacher\.modle"):
        check_keys({"teacher": {"modle": "x"}})


@pytest.mark.parametrize("block", found("json"))
def test_json_is_json(block: Block) -> None:
    for line in block.text.splitlines():
        json.loads(line)


@pytest.mark.parametrize("block", found("python"))
def test_python_is_python(block: Block) -> None:
    ast.parse(block.text)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with scripted_endpoint("--model", MODEL) as url:
        yield url


@pytest.mark.timeout(120)  # the tutorial loads torch, and runs a task from its rows to its report
@pytest.mark.parametrize("page", [page for page in PAGES if any(block.is_run for block in blocks(page))], ids=name)
def test_examples_run(page: Path, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another in one folder, as somebody would who reads the page. A program without a model learns in the student's place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("engine.cli.teach.run_loop", partial(run_loop, student_program=FAKE_STUDENT))
    monkeypatch.setattr(api, "WORKER", FAKE_STUDENT)
    for block in blocks(page):
        if block.file is not None:
            (tmp_path / block.file).write_text(block.text)
        elif block.is_run and block.language == "python":
            exec(compile(block.text.replace(SERVER, endpoint), name(page), "exec"), {})
        elif block.is_run:
            for line in block.commands:
                (arguments,) = reflux_commands(line.replace(SERVER, endpoint))
                result = CliRunner().invoke(app, arguments)
                assert result.exit_code == 0, (line, result.output, result.exception)


def test_a_task_file_in_the_readme_is_complete(tmp_path: Path) -> None:
    (block,) = [block for block in blocks(REPOSITORY / "README.md") if block.language == "toml" and "name =" in block.text.splitlines()[0]]
    (tmp_path / "tickets.toml").write_text(block.text)
    assert load_config(tmp_path / "tickets.toml").name == "tickets"
