"""How it stands with a run: the values that the dashboard shows, and the file by which other processes see them.

The file is a report about the run and no part of it: it is never read by a run, and one that is missing, old or broken loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

from engine.cost.cost import AtEnd, Cost
from engine.records import RowCounts

FORMAT = 1


class Stage(StrEnum):
    """What a run is about."""

    STARTING = "starting"
    """It waits for its servers."""
    ASKING = "asking"
    """The teacher writes a round."""
    TRAINING = "training"
    """The student learns, or is scored."""
    FINISHED = "finished"
    STOPPED = "stopped"
    """By the user or by an error; the same `reflux run` goes on with it."""
    DIED = "died"
    """Its process ended without a word, as after kill -9; the same `reflux run` goes on with it."""
    WORKING = "working"
    """Something that writes no status works on it, e.g. `reflux replay`."""

    @property
    def is_under_way(self) -> bool:
        return self not in (Stage.FINISHED, Stage.STOPPED, Stage.DIED)

    @property
    def has_heartbeat(self) -> bool:
        return self in (Stage.STARTING, Stage.ASKING, Stage.TRAINING)


@dataclass(frozen=True, slots=True)
class Range:
    """Seconds from now, as a range."""

    low_s: float
    high_s: float


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One of the teacher's servers."""

    name: str
    reach: str
    """`open`, or why nothing is sent there: `doubted`, `suspended`, `lost`."""
    in_flight: int
    """Sequences sent and not answered."""
    limit: int
    """How many may be."""
    running: int | None = None
    """Sequences in its batch, as it told last; None if it tells nothing."""
    waiting: int | None = None
    """Sequences that it has no room for yet."""
    kv_cache_use: float | None = None
    """0 to 1."""


@dataclass(frozen=True, slots=True)
class Point:
    """The student after a round, on validation."""

    round: int
    macro_f1: float
    low: float | None
    high: float | None
    """Where it would lie in 95 of 100 draws of as many rows; None where nobody has reckoned it."""
    loss: float


@dataclass(frozen=True, slots=True)
class WeakClass:
    """A label that the student does badly at."""

    label: str
    f1: float
    before: float | None
    """F1 a round earlier."""
    support: int
    """Its validation rows."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should read."""

    at: float
    """Unix time."""
    text: str


@dataclass(frozen=True, slots=True)
class ScoreForecast:
    """Macro F1 on validation at the end of the run, if things go on as they did."""

    rows: int
    """That the student will have learned by then: all rounds, or as many as the budget allows."""
    low: float
    macro_f1: float
    high: float
    """In nine of ten cases it lies between the two, as far as the noise of validation goes."""


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """Of one thing that the user has set a bound to."""

    name: str
    """`teacher tokens`, `accepted rows`, `seconds`, `GPU seconds`, or a currency."""
    spent: float
    bound: float


@dataclass(frozen=True, slots=True)
class Status:
    """The content of status.json. Times are Unix times; counts are of the whole run, resumed ones included, where nothing else is said."""

    name: str
    strategy: str
    state: Stage
    phase: str
    """What is being done, in a few words; once nothing is done any more, why."""
    updated_at: float
    """When the engine last said so: its heartbeat."""
    started_at: float
    """Of the process that works on it."""
    wall_s: float
    """That processes worked on it."""
    round: int
    """The one that is asked, or was completed last."""
    rounds: int
    """At most."""
    rows: RowCounts
    round_rows: RowCounts
    """Of the round that is asked."""
    round_planned: int
    """Rows that the round will ask for; 0 between rounds."""
    lost: Mapping[str, int]
    """Rows that were not accepted, by reason, the most frequent first; `surplus` ones among them."""
    prompt_tokens: int
    completion_tokens: int
    generation_s: float
    """That the teacher wrote."""
    train_s: float
    """That the student learned."""
    tokens_per_s: float
    """Output tokens over the last two seconds; 0 between rounds."""
    peak_tokens_per_s: float
    """At their best two seconds."""
    limit: str | None
    """What was short in the last seconds, as of `engine.watching.bottleneck.Limit`; None between rounds."""
    waiting: int
    """Requests that wait for a place at a server."""
    servers: tuple[ServerStatus, ...]
    curve: tuple[Point, ...]
    best_round: int | None
    """The lowest validation loss so far."""
    weakest: tuple[WeakClass, ...]
    """The lowest F1 first."""
    round_left: Range | None
    """To the end of the round; None where it cannot be told."""
    run_left: Range | None
    """To the end of the run."""
    budget: tuple[BudgetUse, ...]
    """Empty where none was set."""
    notices: tuple[Notice, ...]
    """The last ones, the newest last."""
    pids: Mapping[str, int] = field(default_factory=dict)
    """Of `engine`, `student` and `server`, on `host`."""
    host: str = ""
    score_forecast: ScoreForecast | None = None
    """None where it would be a guess."""
    cost: Cost | None = None
    """So far; None in runs of earlier versions."""
    cost_at_end: AtEnd | None = None
    """None where it cannot be told."""
    format: int = FORMAT


def write_status(path: Path, status: Status) -> None:
    """OSError if it cannot be written. Whoever reads the name meanwhile finds a whole one; no power cut is worth a sync a second."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(msgspec.json.encode(status))
        temporary.rename(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def read_status(path: Path) -> Status | None:
    """None where there is none that can be read, as in runs of other versions."""
    try:
        status = msgspec.json.decode(path.read_bytes(), type=Status)
    except (OSError, msgspec.MsgspecError):
        return None
    return status if status.format == FORMAT else None
