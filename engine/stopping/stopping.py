"""When a run stops and which round's student is kept: the lowest validation loss, patience (PGKD), and what the last rounds can have gained
at most. Pure: reports in, decision out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from engine.config import StopConfig
from engine.records import RoundRecord, Totals
from engine.reports import WeaknessReport
from engine.stopping.gain import last_gain


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


@dataclass(frozen=True, slots=True)
class Payoff:
    """Whether the last rounds may have brought what going on is worth."""

    config: StopConfig

    def reason_to_stop(self, reports: Sequence[WeaknessReport], rounds: Sequence[RoundRecord]) -> str | None:
        """`reports` as of Patience; `rounds`: those that are complete."""
        config = self.config
        if config.min_gain is None and config.min_gain_per_1000_tokens is None:
            return None
        gain = last_gain(reports, config.window)
        if gain is None:
            return None
        at_most = gain.at_most(config.confidence)
        brought = (
            f"rounds {gain.since + 1} to {gain.until} gained {gain.share:+.3f} on validation ({gain.fixed} of {gain.num_rows} rows fixed, "
            f"{gain.broken} broken), at most {at_most:+.3f} ({config.confidence:.0%})"
        )
        if config.min_gain is not None and at_most < config.min_gain:
            return f"{brought}: less than stop.min_gain = {config.min_gain:g}"
        tokens = Totals.of([record for record in rounds if gain.since < record.round <= gain.until]).tokens
        if config.min_gain_per_1000_tokens is not None and tokens and 1000 * at_most / tokens < config.min_gain_per_1000_tokens:
            wanted = f"less than stop.min_gain_per_1000_tokens = {config.min_gain_per_1000_tokens:g}"
            return f"{brought}, which is {1000 * at_most / tokens:.2g} for 1,000 of {tokens:,} teacher tokens: {wanted}"
        return None


def best_round(reports: Sequence[WeaknessReport]) -> int:
    """The round with the lowest validation loss, the earlier of equals."""
    return min(reports, key=lambda report: (report.loss, report.round)).round
