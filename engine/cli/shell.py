"""What the commands share: their common arguments, where they print, and how long work is run and stopped."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tomllib
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
import typer
import uvloop
from rich.console import Console

from engine.errors import UserError
from engine.views.display import inert, inert_json

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value for programs, and nothing else, on standard output.")]
HtmlOption = Annotated[bool, typer.Option("--html", help="Write a page for a browser instead: one file, which opens offline.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Instead of what the file says, e.g. --set strategy.rounds=2; may be repeated.", metavar="KEY=VALUE"),
]
Run = Annotated[Path, typer.Argument(help="Folder of a run, e.g. runs/quickstart.", metavar="RUN")]

# Where nobody watches, rich would fold everything to 80 columns.
output = Console(width=None if sys.stdout.isatty() else 160)
messages = Console(stderr=True)


def run_async(work: Coroutine[Any, Any, T], farewell: str) -> T:
    """Run on uvloop; Ctrl-C and SIGTERM cancel the work, which cleans up after itself."""
    terminated = False

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await work

    try:
        return uvloop.run(cancellable())
    except KeyboardInterrupt:
        _leave(farewell, 130)
    except asyncio.CancelledError:
        if not terminated:
            raise
        _leave(farewell, 143)


def _leave(farewell: str, status: int) -> NoReturn:
    note(farewell)
    sys.exit(status)


def parse_settings(settings: list[str] | None) -> dict[str, Any]:
    """What `--set KEY=VALUE` says, values as in TOML; a bare word is a string."""
    return dict(_parse_setting(setting) for setting in settings or [])


def _parse_setting(setting: str) -> tuple[str, Any]:
    key, equals, value = setting.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {setting}: expected KEY=VALUE, e.g. strategy.rounds=2")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def note(text: str) -> None:
    """A line for people, beside what was asked for."""
    messages.print(inert(text, max_chars=2000), soft_wrap=True)


def print_json(value: object) -> None:
    try:
        text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    except UnicodeEncodeError:
        # It refuses the half surrogate pairs that a teacher's text may hold.
        text = json.dumps(msgspec.to_builtins(value, str_keys=True), indent=2, ensure_ascii=False)
    sys.stdout.buffer.write(inert_json(text) + b"\n")


def check_html(as_html: bool, out: Path | None) -> None:
    """UserError for a file that nothing would be written to."""
    if out is not None and not as_html:
        raise UserError(f"--out {out} names the file of a page; say --html too")


def say_written(html: str, path: Path, as_json: bool) -> None:
    """Write the page, and say where it is."""
    from engine.html_report import write_page

    write_page(path, html)
    if as_json:
        print_json({"html": str(path)})
    else:
        note(f"wrote {path}")
