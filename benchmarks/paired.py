"""Differences of pairs: of two ways, by the same seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy import stats


def paired(differences: Sequence[float]) -> dict[str, float] | None:
    """Mean and its interval of 95 % (Student's t); None for fewer than two."""
    if len(differences) < 2:
        return None
    mean = statistics.mean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    reach = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    return {"mean": mean, "low": mean - reach, "high": mean + reach}
