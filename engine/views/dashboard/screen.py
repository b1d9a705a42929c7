"""Keeps a Status drawn on a terminal, in a thread, at a fixed rate.

Invariants: whoever is drawn is not waited for, and does not wait, but for what is printed above the picture. When the block is left, in
whatever way, the last picture stands, the cursor is back below it, and what was redirected is not any more.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from engine.progress import Silent
from engine.status import Status
from engine.views.dashboard.view import View
from engine.views.display import inert

DRAW_S = 0.5
"""Each takes about 2 ms of a processor: half a percent of it, of the 2 % that all of the watching may take."""


class Screen:
    """Inside its block, draws what `now` tells."""

    def __init__(self, console: Console, now: Callable[[], Status | None]) -> None:
        """`now` is called in another thread; None draws nothing yet."""
        self._console = console
        self._now = now
        self._above: deque[Text] = deque()
        self._size = console.size
        self._live: Live | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dashboard", daemon=True)

    def print_above(self, text: Text) -> None:
        """Stays, above the picture; in a moment."""
        self._above.append(text)

    def __enter__(self) -> Screen:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_over.set()
        self._thread.join()
        with suppress(OSError):  # of a terminal that has gone
            try:
                self._draw()
            finally:
                if self._live is not None:
                    self._live.stop()

    def _run(self) -> None:
        with suppress(OSError):
            while not self._is_over.wait(DRAW_S):
                self._draw()

    def _draw(self) -> None:
        status = self._now()
        if status is not None:
            self._open(View(status, time.time()))
        while self._above:
            self._console.print(self._above.popleft(), soft_wrap=True)

    def _open(self, view: View) -> None:
        """Draws it in the place of the last one; a terminal of another size has folded that, so that nobody knows where it stands."""
        size = self._console.size
        if self._live is not None and size == self._size:
            self._live.update(view, refresh=True)
            return
        if self._live is not None:
            self._live.stop()
            self._console.clear()
        self._size = size
        self._live = Live(view, console=self._console, auto_refresh=False, redirect_stdout=False)
        self._live.start(refresh=True)


class Dashboard(Silent):
    """A Progress that is drawn."""

    def __init__(self, console: Console) -> None:
        self._source: Callable[[], Status] | None = None
        self.screen = Screen(console, lambda: self._source() if self._source else None)

    def follow(self, now: Callable[[], Status]) -> None:
        self._source = now

    def notice(self, text: str) -> None:
        self.screen.print_above(Text.assemble(("note: ", "yellow"), inert(text, max_chars=2000)))
