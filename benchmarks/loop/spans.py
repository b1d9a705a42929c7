"""How a run's time was used, read off its directory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.records import Totals
from engine.rundir import RunDir
from engine.store import read_rounds, run_query

_CALLS = "select epoch(started_at) as started_s, latency_s, completion_tokens as tokens from calls where model <> 'local' order by 1"


@dataclass(frozen=True, slots=True)
class Span:
    """Of the loop: from the first request to the engine's last word, that no more will be asked and all is learned. Server start, scoring
    on test and audit are the same in all modes, and outside.
    """

    loop_s: float
    generation_s: float
    """In which the engine asked a round."""
    idle_share: float
    """Of the time from the first request to the last answer, that in which no request was with the teacher."""
    tokens_per_s: float
    """Output tokens over that time."""

    @property
    def waiting_s(self) -> float:
        """In which it waited for the student: in lock-step what learning takes, reports and mining included."""
        return self.loop_s - self.generation_s


def read_span(run: RunDir) -> Span:
    """Of a run that has finished."""
    calls = run_query(run, _CALLS)
    started, latency, tokens = (calls.column(name).to_numpy().astype(np.float64) for name in ("started_s", "latency_s", "tokens"))
    asked_s = float((started + latency).max() - started[0])
    return Span(
        loop_s=run.finish.stat().st_mtime - float(started[0]),
        generation_s=Totals.of(read_rounds(run)).generation_s,
        idle_share=idle_s(started, latency) / asked_s,
        tokens_per_s=float(np.nansum(tokens)) / asked_s,
    )


def idle_s(started: np.ndarray, latency: np.ndarray) -> float:
    """Between the first begin and the last end, the time in which nothing was under way. Begins in order."""
    ends = np.maximum.accumulate(started + latency)
    return float(np.maximum(started[1:] - ends[:-1], 0).sum())
