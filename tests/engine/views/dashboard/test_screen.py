"""On a real pseudo-terminal."""

from __future__ import annotations

import errno
import os
import pty
import threading
from collections.abc import Generator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner

from engine.cli import app
from engine.loop import run_loop
from engine.rundir import RunDir
from engine.testing.server import ScriptedServer
from engine.views.console import run_progress
from engine.views.dashboard import Screen, screen
from engine.watching import heartbeat
from tests.engine.builders import make_task
from tests.engine.scripted_runs import FAKE_STUDENT, make_config
from tests.engine.views.dashboard.statuses import beating

HIDE, SHOW, CLEAR = "\x1b[?25l", "\x1b[?25h", "\x1b[2J"


class Terminal:
    """Somebody reads what is drawn."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        self._slave = os.fdopen(slave, "w")
        self._content = b""
        self._came = threading.Condition()
        self.console = Console(
            file=self._slave, force_terminal=True, width=80, height=24, color_system="standard", _environ={"TERM": "xterm"}
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            while content := os.read(self._master, 1 << 16):
                with self._came:
                    self._content += content
                    self._came.notify_all()
        except OSError as error:
            assert error.errno == errno.EIO  # noqa: PT017 - the other end was closed

    def wait_for(self, words: str, times: int = 1) -> None:
        with self._came:
            assert self._came.wait_for(lambda: self._content.decode(errors="ignore").count(words) >= times, 10), words

    def close(self) -> str:
        """All that came."""
        if not self._slave.closed:
            self._slave.close()
            self._reader.join()
            os.close(self._master)
        return self._content.decode()


@pytest.fixture
def terminal() -> Generator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.fixture(autouse=True)
def draw_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "DRAW_S", 0.01)


def assert_restored(content: str) -> None:
    assert content.count(HIDE) == content.count(SHOW) > 0
    assert content.rindex(SHOW) > content.rindex(HIDE)


def test_the_last_picture_stays_and_the_cursor_comes_back(terminal: Terminal) -> None:
    status = beating()
    with Screen(terminal.console, lambda: status):
        terminal.wait_for("teacher writes round 3", times=2)
        status = beating(phase="the last word")
    content = terminal.close()
    assert_restored(content)
    assert "the last word" in content
    assert content.rstrip().endswith(SHOW)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, SystemExit])
def test_also_when_something_goes_wrong(terminal: Terminal, error: type[BaseException]) -> None:
    def work() -> None:
        with Screen(terminal.console, beating):
            terminal.wait_for("teacher writes round 3")
            raise error

    with pytest.raises(error):
        work()
    assert_restored(terminal.close())


def test_nothing_is_drawn_before_there_is_something_to_tell(terminal: Terminal) -> None:
    with Screen(terminal.console, lambda: None) as screen:
        screen.print_above(Text("a notice from the beginning"))
        terminal.wait_for("a notice")
    assert HIDE not in terminal.close()


def test_notices_are_printed_above_it(terminal: Terminal) -> None:
    with Screen(terminal.console, beating) as screen:
        terminal.wait_for("intent_00")
        screen.print_above(Text("something to read"))
        terminal.wait_for("something to read")
        terminal.wait_for("intent_00", times=2)
    assert_restored(terminal.close())


def test_it_is_drawn_anew_on_a_terminal_of_another_size(terminal: Terminal) -> None:
    with Screen(terminal.console, beating):
        terminal.wait_for("intent_00")
        terminal.console.size = (120, 50)
        terminal.wait_for("intent_19")
        terminal.console.size = (40, 6)
        terminal.wait_for(CLEAR, times=2)
    assert_restored(terminal.close())


def test_a_terminal_that_has_gone_stops_nothing() -> None:
    tried = threading.Event()

    class Gone(StringIO):
        def write(self, _text: str) -> int:
            tried.set()
            raise OSError(errno.EIO, "Input/output error")

    console = Console(file=Gone(), force_terminal=True, width=80, height=24, _environ={"TERM": "xterm"})
    with Screen(console, beating):
        assert tried.wait(10)


async def test_a_run_under_a_terminal(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "PUBLISH_S", 0.01)
    async with ScriptedServer() as server:
        with run_progress(terminal.console) as progress:
            await run_loop(make_config(server.base_url), make_task(), RunDir(tmp_path), progress, FAKE_STUDENT)
    content = terminal.close()
    assert_restored(content)
    last = content[content.rindex("reflux") :]
    assert "finished" in last
    assert "all 2 rounds done" in last
    assert "24 accepted" in last
    assert "0.833" in last
    watched = CliRunner().invoke(app, ["watch", str(tmp_path)]).output
    assert "finished: all 2 rounds done" in watched
    assert "The run is finished." in watched
    assert "Student on test" in watched
