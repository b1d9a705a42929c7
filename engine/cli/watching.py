"""Commands that look at a run while it goes on: `status` and `watch`."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
import typer

from engine.cli.shell import Json, Run, messages, note, output, print_json
from engine.rundir import RunDir, read_json
from engine.runs.standing import Observer, Standing
from engine.runs.summary import Summary
from engine.status import Stage
from engine.views.dashboard import Screen, View, news
from engine.views.display import summary_view

LOOK_S = 0.25
_ENDS = {
    Stage.FINISHED: "The run is finished.",
    Stage.STOPPED: "The run is not under way: it was stopped. The same `reflux run` goes on with it.",
    Stage.DIED: "The run is not under way: its process ended without a word, as after kill -9. The same `reflux run` goes on with it.",
}


def status(run: Run, as_json: Json = False) -> None:
    """Say how it stands with a run at this moment, whoever works on it.

    Example: reflux status runs/quickstart --json
    """
    standing = Observer(RunDir(run)).look()
    if as_json:
        value: dict[str, Any] = msgspec.to_builtins(standing.status)
        print_json(value | {"run": str(run), "heartbeat_age_s": standing.heartbeat_age_s, "at_work": standing.holders})
        return
    output.print(View(standing.status, time.time(), is_fitted=False))


def watch(run: Run, plain: Annotated[bool, typer.Option("--plain", help="Print lines as to a file, and no dashboard.")] = False) -> None:
    """Follow a run that another process works on, until it ends or Ctrl-C. Changes nothing of it.

    Example: reflux watch runs/quickstart
    """
    observer = Observer(RunDir(run))
    last = _follow(observer) if plain or not messages.is_terminal or messages.is_dumb_terminal else _draw(observer)
    note(_ENDS[last.status.state])
    if last.status.state is Stage.FINISHED:
        output.print(summary_view(read_json(RunDir(run).summary, Summary)))


def _draw(observer: Observer) -> Standing:
    standing = observer.look()
    with Screen(messages, lambda: standing.status):
        while standing.status.state.is_under_way:
            time.sleep(LOOK_S)
            standing = observer.look()
    return standing


def _follow(observer: Observer) -> Standing:
    before, standing = None, observer.look()
    while True:
        for line in news(before, standing.status):
            note(line)
        if not standing.status.state.is_under_way:
            return standing
        before = standing.status
        time.sleep(LOOK_S)
        standing = observer.look()
