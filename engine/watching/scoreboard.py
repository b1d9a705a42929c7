"""Counts what is told of a run, and reads off how it stands.

Invariants: what the asking calls only adds up a few numbers. All else, reading the servers' gauges and reckoning, is done in `status`, for
who wants to know. Both belong to one thread, the event loop's; the Status that comes of it may go anywhere.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

import pyarrow.compute as pc

from engine.config import RunConfig
from engine.cost.meter import CostMeter
from engine.cost.prices import money_per_s, reserved_gpus
from engine.progress import Progress, Silent
from engine.records import RoundRecord, RowCounts, Totals
from engine.reports import WeaknessReport
from engine.rundir import RunDir
from engine.status import BudgetUse, Notice, Point, Range, ScoreForecast, ServerStatus, Stage, Status, WeakClass
from engine.stopping.forecast import forecast_round, forecast_run, within_budget
from engine.stopping.learning_curve import forecast_score
from engine.stopping.stopping import Patience, best_round
from engine.store import SCHEMAS, read_rounds
from engine.store.segments import read_table
from engine.teacher.batcher import Statistics
from engine.teacher.lane import Lane, Reach
from engine.watching.bottleneck import FlowMeter

MISSING = "missing"
"""Why a row has failed whose call has not: the reply ended before it."""
RECENT_S = 10.0
"""The present speed is that of so long."""
NUM_NOTICES = 8
NUM_WEAKEST = 20


class Watched(Protocol):
    """What an `engine.watching.watcher.Watcher` knows."""

    @property
    def meter(self) -> FlowMeter | None: ...

    @property
    def lost(self) -> Mapping[str, int]: ...


class Scoreboard:
    """A Progress that counts, and passes on to `progress`."""

    def __init__(
        self,
        config: RunConfig,
        *,
        progress: Progress | None = None,
        rounds: Sequence[RoundRecord] = (),
        lost: Mapping[str, int] | None = None,
        wall_s: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`rounds`, `lost` and `wall_s` are what the run had come to before."""
        self._progress = progress or Silent()
        self._config = config
        self._rounds = list(rounds)
        self._reports: list[WeaknessReport] = []
        self._lost_before = Counter(lost or {})
        self._wall_before_s = wall_s
        self._gpus = reserved_gpus(config)
        self._money_per_s = money_per_s(config.cost, self._gpus)
        self._forecast: ScoreForecast | None = None
        self._clock = clock
        self._began = clock()
        self._notices: deque[Notice] = deque(maxlen=NUM_NOTICES)
        self._lanes: Sequence[Lane] = ()
        self._statistics: Callable[[], Statistics] | None = None
        self._watched: Watched | None = None
        self._phase = "starting"
        self._fewest_rounds = 0
        self._curve: tuple[Point, ...] = ()
        self._weakest: tuple[WeakClass, ...] = ()
        self._round = max((record.round for record in rounds), default=0)
        self._is_asking = False
        self._planned = 0
        self._assignments = 0
        self._requested = self._accepted = self._rejected = self._failed = self._surplus = 0
        self._round_began = self._began
        self._tokens_before = (0, 0)
        self._recent: deque[tuple[float, int, int]] = deque()
        """(when, assignments, rows) done in this round."""
        self._limited: deque[tuple[float, dict[str, float]]] = deque()
        self.meter: CostMeter | None = None
        """Of what the work takes; None where nobody works, but looks at tables."""
        self.pids: dict[str, int] = {"engine": os.getpid()}

    def watch(self, lanes: Sequence[Lane], statistics: Callable[[], Statistics], watched: Watched) -> None:
        """From now on these lanes are asked; `statistics` are the batcher's."""
        self._lanes, self._statistics, self._watched = lanes, statistics, watched
        if self.meter is not None:
            self.meter.watch(lanes)

    def reserved(self) -> AbstractContextManager[None]:
        """Around everything that the servers are there for."""
        return self.meter.reserved() if self.meter is not None else nullcontext()

    # What the run tells.

    def phase(self, text: str) -> None:
        self._phase = text
        self._progress.phase(text)

    def notice(self, text: str) -> None:
        self._notices.append(Notice(self._clock(), text))
        self._progress.notice(text)

    def follow(self, now: Callable[[], Status]) -> None:
        self._progress.follow(now)

    def round_started(self, round: int, num_rows: int) -> None:
        self._round, self._planned, self._is_asking = round, num_rows, True
        self._round_began = self._clock()
        self._assignments = 0
        self._requested = self._accepted = self._rejected = self._failed = self._surplus = 0
        self._tokens_before = self._tokens_of_process()
        self._recent.clear()
        self._limited.clear()
        self._progress.round_started(round, num_rows)

    def assignment_done(self, rows: RowCounts) -> None:
        self._assignments += 1
        self._requested += rows.requested
        self._accepted += rows.accepted
        self._rejected += rows.rejected
        self._failed += rows.failed
        self._surplus += rows.surplus
        self._progress.assignment_done(rows)

    def round_done(self, record: RoundRecord) -> None:
        self._is_asking = False
        self._rounds.append(record)
        self._progress.round_done(record)

    def reported(self, report: WeaknessReport) -> None:
        self._reports.append(report)
        self._curve = (*self._curve, _point(report))
        self._weakest = _weakest(self._reports[-2:])
        strategy = self._config.strategy
        self._fewest_rounds = _fewest_rounds(Patience(strategy.rounds, strategy.patience, strategy.reset_patience), self._reports)
        self._forecast = self._forecast_score()
        self._progress.reported(report)

    def _forecast_score(self) -> ScoreForecast | None:
        """For when all rounds are done, or when the first budget is used up."""
        reports, totals = self._reports, Totals.of(self._rounds)
        if not totals.rounds:
            return None
        uses = self._budget(totals.tokens, totals.rows.accepted, self._wall_before_s + self._clock() - self._began)
        shares = [self._config.strategy.rounds / totals.rounds, *(use.bound / use.spent for use in uses if use.spent)]
        seed_rows = reports[0].num_train_rows
        at = max(seed_rows + totals.rows.accepted * min(shares), reports[-1].num_train_rows)
        intervals = [report.intervals and (report.intervals.macro_f1.low, report.intervals.macro_f1.high) for report in reports]
        scores = [report.scores.macro_f1 for report in reports]
        return forecast_score([report.num_train_rows for report in reports], scores, intervals, at)

    # How it stands.

    def status(self, stage: Stage | None = None, phase: str | None = None) -> Status:
        """`stage` and `phase` are given where the run has ended."""
        now = self._clock()
        config, round_rows = self._config, self._round_rows()
        meter = self._watched.meter if self._watched and self._is_asking else None
        flow = meter.flow() if meter else None
        if flow:
            self._remember(now, flow.limited_s)
        peaks = [record.peak_tokens_per_s for record in self._rounds] + [flow.peak_tokens_per_s if flow else 0.0]
        is_fed = stage is None and any(lane.reach is Reach.OPEN for lane in self._lanes)
        prompt_tokens, completion_tokens = self._tokens()
        lost = self._lost_before + Counter(self._watched.lost if self._watched else {})
        wall_s = self._wall_before_s + now - self._began
        rows = sum((record.rows for record in self._rounds), round_rows)
        budget = self._budget(prompt_tokens + completion_tokens, rows.accepted, wall_s)
        round_left = self._round_left(now) if stage is None else None
        run_left = self._run_left(round_left) if stage is None else None
        run_left = run_left and within_budget(run_left, budget, wall_s)
        cost = self.meter.cost(rows.accepted, prompt_tokens + completion_tokens, self._gain()) if self.meter else None
        return Status(
            name=config.name,
            strategy=config.strategy.type,
            state=stage or self._stage(),
            phase=self._phase if phase is None else phase,
            updated_at=now,
            started_at=self._began,
            wall_s=wall_s,
            round=self._round,
            rounds=config.strategy.rounds,
            rows=rows,
            round_rows=round_rows,
            round_planned=self._planned if self._is_asking else 0,
            lost=dict(lost.most_common()),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            generation_s=sum(record.generation_s for record in self._rounds) + (now - self._round_began if self._is_asking else 0.0),
            train_s=sum(report.train_s for report in self._reports),
            tokens_per_s=meter.tokens_per_s if meter and is_fed else 0.0,
            peak_tokens_per_s=max(peaks),
            limit=self._limit() if flow and is_fed else None,
            waiting=self._statistics().waiting if self._statistics else 0,
            servers=tuple(_server(lane) for lane in self._lanes),
            curve=self._curve,
            best_round=best_round(self._reports) if self._reports else None,
            weakest=self._weakest,
            round_left=round_left,
            run_left=run_left,
            budget=budget,
            notices=tuple(self._notices),
            pids=dict(self.pids),
            host=socket.gethostname(),
            score_forecast=self._forecast if stage is None else None,
            cost=cost,
            cost_at_end=self.meter.at_end(cost, (run_left.low_s, run_left.high_s)) if self.meter and cost and run_left else None,
        )

    def _gain(self) -> float | None:
        """Of the best student so far, on validation."""
        return max(point.macro_f1 for point in self._curve) - self._curve[0].macro_f1 if self._curve else None

    def _stage(self) -> Stage:
        if self._is_asking:
            return Stage.ASKING
        return Stage.TRAINING if self._watched or self._reports or not self._config.strategy.rounds else Stage.STARTING

    def _round_rows(self) -> RowCounts:
        if not self._is_asking:
            return RowCounts()
        return RowCounts(self._requested, self._accepted, self._rejected, self._failed, self._surplus)

    def _tokens(self) -> tuple[int, int]:
        """Prompt and completion tokens. What a process that was killed spent on its last round counts when the round is done."""
        prompt, completion = self._tokens_of_process() if self._is_asking else self._tokens_before
        return (
            sum(record.prompt_tokens for record in self._rounds) + prompt - self._tokens_before[0],
            sum(record.completion_tokens for record in self._rounds) + completion - self._tokens_before[1],
        )

    def _tokens_of_process(self) -> tuple[int, int]:
        if self._statistics is None:
            return 0, 0
        statistics = self._statistics()
        return statistics.prompt_tokens, statistics.completion_tokens

    def _budget(self, tokens: int, accepted: int, wall_s: float) -> tuple[BudgetUse, ...]:
        budget = self._config.budget
        uses = (
            ("teacher tokens", tokens, budget.teacher_tokens),
            ("accepted rows", accepted, budget.accepted_rows),
            ("seconds", wall_s, budget.seconds),
            ("GPU seconds", wall_s * self._gpus, budget.gpu_seconds),
            (self._config.cost.currency, wall_s * self._money_per_s, budget.money),
        )
        return tuple(BudgetUse(name, spent, bound) for name, spent, bound in uses if bound is not None)

    def _remember(self, now: float, limited_s: dict[str, float]) -> None:
        self._recent.append((now, self._assignments, self._requested))
        self._limited.append((now, limited_s))
        for samples in (self._recent, self._limited):
            while samples[0][0] < now - RECENT_S:
                samples.popleft()

    def _limit(self) -> str | None:
        """What was short for most of the last seconds."""
        before, now = self._limited[0][1], self._limited[-1][1]
        if len(self._limited) == 1:
            before = {}
        gained = {limit: seconds - before.get(limit, 0.0) for limit, seconds in now.items()}
        return max(gained, key=lambda limit: gained[limit], default=None)

    def _round_left(self, now: float) -> Range | None:
        if not self._is_asking:
            return None
        speeds = [(self._assignments, self._requested, now - self._round_began)]
        if self._recent:
            since, assignments, rows = self._recent[0]
            speeds.append((self._assignments - assignments, self._requested - rows, now - since))
        return forecast_round(max(self._planned - self._requested, 0), speeds)

    def _run_left(self, round_left: Range | None) -> Range | None:
        """The round that is asked or learned has no report yet, and neither have those that come after it."""
        if not self._reports:
            return None
        most = self._config.strategy.rounds - self._reports[-1].round
        learned_s = [report.train_s for report in self._reports[1:]]
        if most < 1 or not learned_s or not self._rounds or (self._is_asking and round_left is None):
            return None
        asking = round_left or Range(0.0, 0.0)
        if self._config.loop.max_staleness:
            # Both at once: what is left of the asking, and then what the student is behind.
            asked_s = [record.generation_s for record in self._rounds]
            to_ask = max(self._config.strategy.rounds - len(self._rounds) - self._is_asking, 0)
            behind = Range(asking.low_s + min(learned_s[-3:]), asking.high_s + 2 * max(learned_s[-3:]))
            return forecast_run(behind, asked_s, min(self._fewest_rounds, to_ask), to_ask)
        lasted_s = [record.generation_s + seconds for record, seconds in zip(self._rounds, learned_s, strict=False)]
        fastest_s = min(learned_s[-3:]) if self._is_asking else 0.0
        present = Range(asking.low_s + fastest_s, asking.high_s + max(learned_s[-3:]))
        return forecast_run(present, lasted_s, max(self._fewest_rounds - 1, 0), most - 1)


def open_scoreboard(run: RunDir, config: RunConfig, wall_s: float = 0.0, progress: Progress | None = None) -> Scoreboard:
    """With what the tables tell of the run so far; StoreError if they cannot be read. Blocks: for a thread."""
    rounds = read_rounds(run)
    return Scoreboard(config, progress=progress, rounds=rounds, lost=_read_lost(run, rounds), wall_s=wall_s)


def _read_lost(run: RunDir, rounds: Sequence[RoundRecord]) -> Counter[str]:
    """Rejected rows of all rounds, for those of a round in progress are not judged again; failed ones of those that are complete, for
    their calls are made again.
    """
    rejections = read_table(run.table("rejections"), SCHEMAS["rejections"], ["reason"])
    lost = Counter({row["values"]: row["counts"] for row in rejections["reason"].value_counts().to_pylist()})
    last = max((record.round for record in rounds), default=0)
    has_failed = (pc.field("rows_failed") > 0) & (pc.field("round") <= last)
    calls = read_table(run.table("calls"), SCHEMAS["calls"], ["failure_reason", "rows_failed"], has_failed)
    for row in calls.to_pylist():
        lost[row["failure_reason"] or MISSING] += row["rows_failed"]
    return lost


def _server(lane: Lane) -> ServerStatus:
    gauges = lane.gauges
    return ServerStatus(
        lane.name,
        lane.reach.name.lower(),
        lane.in_flight,
        lane.limit,
        running=gauges.running if gauges else None,
        waiting=gauges.waiting if gauges else None,
        kv_cache_use=gauges.kv_cache_use if gauges else None,
    )


def _point(report: WeaknessReport) -> Point:
    interval = report.intervals.macro_f1 if report.intervals else None
    return Point(report.round, report.scores.macro_f1, interval and interval.low, interval and interval.high, report.loss)


def _weakest(reports: Sequence[WeaknessReport]) -> tuple[WeakClass, ...]:
    """Of the last report; a report before it tells where they were."""
    if not reports:
        return ()
    before = {score.label: score.f1 for score in reports[0].classes} if len(reports) > 1 else {}
    classes = [WeakClass(score.label, score.f1, before.get(score.label), score.support) for score in reports[-1].classes if score.support]
    return tuple(sorted(classes, key=lambda found: found.f1)[:NUM_WEAKEST])


def _fewest_rounds(patience: Patience, reports: Sequence[WeaknessReport]) -> int:
    """Until the run ends, if no further round brings a lower loss."""
    told = list(reports)
    if patience.patience is None:
        return max(patience.rounds + 1 - len(told), 0)
    while patience.reason_to_stop(told) is None:
        told.append(replace(told[-1], round=told[-1].round + 1, loss=math.inf))
    return len(told) - len(reports)
