"""What a run tells those who watch it. The loop speaks to a Progress; who draws, and how, is not its business."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.records import RoundRecord, RowCounts
from engine.reports import WeaknessReport
from engine.status import Status


class Progress(Protocol):
    """Called from the event loop; must return at once."""

    def follow(self, now: Callable[[], Status]) -> None:
        """From now on `now` tells how the run stands: what it knew a moment ago, at once, in any thread."""
        ...

    def phase(self, text: str) -> None:
        """What is being done now, in a few words."""
        ...

    def notice(self, text: str) -> None:
        """Something the user should read, e.g. an orphan of an earlier run."""
        ...

    def round_started(self, round: int, num_rows: int) -> None: ...

    def assignment_done(self, rows: RowCounts) -> None: ...

    def round_done(self, record: RoundRecord) -> None: ...

    def reported(self, report: WeaknessReport) -> None: ...


class Silent:
    """Tells nobody."""

    def follow(self, now: Callable[[], Status]) -> None:
        pass

    def phase(self, text: str) -> None:
        pass

    def notice(self, text: str) -> None:
        pass

    def round_started(self, round: int, num_rows: int) -> None:
        pass

    def assignment_done(self, rows: RowCounts) -> None:
        pass

    def round_done(self, record: RoundRecord) -> None:
        pass

    def reported(self, report: WeaknessReport) -> None:
        pass
