"""The command that sends dead letters again: `replay`."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.shell import Json, Run, Settings, messages, note, output, parse_settings, print_json, run_async
from engine.replay import Replayed, Wish, preview
from engine.replay import replay as send_again
from engine.rundir import RunDir, open_run
from engine.runs.retention import Use, require
from engine.views.console import console_progress
from engine.views.display import replayed_view, row_counts


def replay(
    run: Run,
    where: Annotated[
        str | None, typer.Option(help="SQL condition over rejections or calls; without it all that could end otherwise.", metavar="SQL")
    ] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="Ask a server that already runs; several share the work.", metavar="URL")
    ] = None,
    settings: Settings = None,
    ask: Annotated[bool, typer.Option(help="Ask the teacher for rows that were never written, or only judge rejected ones.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be judged and asked; write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Send dead letters again: judge rejected rows by the present gates, and ask for rows that were never written.

    What ends otherwise joins the run as a round of its own; stopped, the same command goes on.

    Example: reflux replay runs/quickstart --where "reason = 'near_duplicate'" --set gates.similarity=0.8
    """
    place = open_run(run)
    require(place, Use.REPLAY)
    servers = {"teacher.endpoint": endpoint} if endpoint else {}
    wish = Wish(where, parse_settings(settings) | servers, asks=ask)
    if dry_run:
        replayed = preview(place, wish)
    else:
        farewell = f"Stopped. The same command goes on with the replay of {place.root}."
        with console_progress(messages) as progress:
            replayed = run_async(send_again(place, wish, progress), farewell)
    if as_json:
        print_json(replayed)
        return
    output.print(replayed_view(replayed))
    if not dry_run:
        note(_told(replayed, place))


def _told(replayed: Replayed, place: RunDir) -> str:
    if replayed.round is None:
        return "nothing has ended otherwise, and nothing was written"
    learned = (
        "its student has finished and does not learn them"
        if place.summary.exists()
        else "its student learns them when `reflux run` goes on"
    )
    return f"round {replayed.round}: {row_counts(replayed.rows)}; {learned}"
