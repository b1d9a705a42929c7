"""What a run tells those who watch it. The loop speaks to a Progress; who draws, and how, is not its business."""

from __future__ import annotations

from typing import Protocol

from engine.records import RoundRecord, RowCounts
from engine.reports import WeaknessReport


class Progress(Protocol):
    """Called from the event loop; must return at once."""

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
