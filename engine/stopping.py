"""When a run stops and which round's student is kept: the lowest validation loss, and patience (PGKD). Pure: reports in, decision out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from engine.reports import WeaknessReport


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a run goes on without a lower validation loss."""

    rounds: int
    """Rounds at most."""
    patience: int | None
    """Rounds without one; None: all rounds are done."""
    resets: bool
    """Whether an improvement starts the count anew (False: all rounds without one count)."""

    def reason_to_stop(self, reports: Sequence[WeaknessReport]) -> str | None:
        """`reports` of rounds 0 to the last completed one; None to go on. One on several rounds at once counts for all of them."""
        waited, best = 0, reports[0].loss
        for before, report in pairwise(reports):
            if report.loss < best:
                best = report.loss
                waited = 0 if self.resets else waited
            else:
                waited += report.round - before.round
        if self.patience is not None and waited >= self.patience:
            return f"no lower validation loss in {waited} rounds"
        if reports[-1].round >= self.rounds:
            return f"all {self.rounds} rounds done"
        return None


def best_round(reports: Sequence[WeaknessReport]) -> int:
    """The round with the lowest validation loss, the earlier of equals."""
    return min(reports, key=lambda report: (report.loss, report.round)).round
