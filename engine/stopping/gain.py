"""What the last rounds have brought, on the same validation rows, and what they may have brought at best. Pure: reports in, a gain out.

The score is the share of validation rows that are right, for it alone is known row by row: which rows were mended and which broken says far
more of a change than two scores with an interval each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import ndtri

from engine.reports import WeaknessReport


@dataclass(frozen=True, slots=True)
class Gain:
    """From one student to a later one."""

    since: int
    """Round of the earlier one's report."""
    until: int
    num_rows: int
    fixed: int
    """Rows that were wrong and are right."""
    broken: int

    @property
    def share(self) -> float:
        return (self.fixed - self.broken) / self.num_rows

    def at_most(self, confidence: float) -> float:
        """The upper end of the gain's one-sided interval, for paired proportions (Agresti and Min, 2005: Wald's, with half a row added to
        each of the four ways in which a row can fare). Where no row has changed it is still above 0: few rows show little.
        """
        fixed, broken, num_rows = self.fixed + 0.5, self.broken + 0.5, self.num_rows + 2.0
        error = math.sqrt(fixed + broken - (fixed - broken) ** 2 / num_rows) / num_rows
        return (fixed - broken) / num_rows + float(ndtri(confidence)) * error


def last_gain(reports: Sequence[WeaknessReport], rounds: int) -> Gain | None:
    """Over so many rounds at least, by as few reports as cover them; None where there are fewer, or a report does not tell of each row."""
    after = reports[-1]
    before = next((report for report in reversed(reports) if report.round <= after.round - rounds), None)
    if before is None or not after.hits or len(before.hits) != len(after.hits):
        return None
    pairs = list(zip(before.hits, after.hits, strict=True))
    return Gain(before.round, after.round, len(pairs), fixed=pairs.count(("0", "1")), broken=pairs.count(("1", "0")))
