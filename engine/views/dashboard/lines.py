"""What is new in a Status, as lines for who has no terminal to draw on."""

from __future__ import annotations

from collections.abc import Iterator

from engine.status import Status
from engine.views.dashboard.view import score


def news(before: Status | None, after: Status) -> Iterator[str]:
    """`before` is the one told of last. What comes from outside stands in the lines as it is: for who makes them inert."""
    told = before.notices if before else ()
    yield from (f"note: {notice.text}" for notice in after.notices if notice not in told)
    for point in after.curve[len(before.curve) if before else 0 :]:
        yield f"student {point.round}: validation macro F1 {score(point)}, loss {point.loss:.3f}"
    if before is None or (before.state, before.phase) != (after.state, after.phase):
        rows = f"{after.rows.accepted:,} of {after.rows.requested:,} rows accepted"
        yield f"{after.state}: {after.phase}; round {after.round} of at most {after.rounds}, {rows}"
