"""How many sequences one endpoint should have in flight: observations in, a limit out. No clock, no client, no task.

What it knows is a pair at a time: the throughput at one limit, and at another. To learn it changes the limit, lets the server settle,
measures, and judges:

    RAMP    doubles while doubling pays; the first thing after the start, and after a rise that paid
    HOLD    stays, and compares the throughput with what it was; from time to time tries a little more (UP) or a little less (DOWN)
    UP      a rise that pays begins a RAMP, one that does not is taken back
    DOWN    goes on as long as less in flight brings as much; then returns to where the throughput began to fall
    DRAIN   after a cut: waits until what was in flight has come back, so that nothing is cut twice for one event

A server that shows metrics is measured by its own token counter, which moves with every step: windows are short, and small differences
count. It also says when it is full: sequences wait, or are preempted. Without metrics only whole answers are seen: a window is a turnover
(as many answers as were in flight), and a difference counts when it is greater than the chance of few answers explains.

A server of our own is sent what it writes at once from the first moment, and no less is tried: latency matters to nobody there.

Not knowable without metrics: whether a rise pays because the server had capacity, or because it took some from another client.
"""

from __future__ import annotations

import math
from dataclasses import replace

from engine.teacher.concurrency.observation import WAITING_LEAST, WAITING_SHARE, Observation, allowed_waiting, own_part
from engine.teacher.concurrency.window import NOISE, Level, Phase, Window

RAMP_FACTOR = 2.0
"""From 16 to 2,000 are seven doublings; at 1.5 s each they leave time for the rest within 20 s."""
DOUBLING_S = 0.75
"""A limit rises no faster: a burst of prompts stalls decoding, and a bound that refuses is met gently."""
STEP = 1.3
"""Of a trial while holding: large enough to be told from noise, small enough to cost little."""
FIRST, START = 4, 32
"""Sent to an unknown server at once, and at a doubling's pace after that, before anything is measured. 32 sent at once to a server that
took 16 were 5 % of refusals in the first minute."""
HEADROOM = 1.2
"""Above the knee as computed: below it throughput is lost in proportion, above it only latency."""
UP_PAYS = 0.1
"""A rise pays if the throughput gains this part of what it would if it were in proportion."""
UP_PAYS_BLIND = 0.35
"""Without metrics: answers that come in waves make a doubling look better than it is."""
DOWN_COSTS = 0.06
"""A descent costs if the throughput loses this part of what it would in proportion. Less than UP_PAYS, or the two would fight."""
HOLD_S = 4.0
"""Between trials: with two kinds of them, twice this and a measurement are within the 20 s in which a change should be followed."""
NEWS_WEIGHT = 0.3
"""Of a window in the mean that it is held against."""
HARM = 0.05
"""Part of the throughput that a rise must cost to say that there may be too many already."""
FELL = 0.75
"""A throughput below this part of what it was, at the same limit: the capacity fell."""
ROSE = 1.15
"""And above this: it rose."""
UNKNOWN_START = 1024
"""For a server of our own whose own bound is not known; as many as vLLM writes at once on large GPUs."""
QUEUE_S = 1.0
"""A queue that stood so long is no burst of prompts."""
KV_FULL = 1.0
"""No rise beyond this mean use of the memory."""
THRASH_SHARE = 1.0
"""Preemptions per answer that mean thrashing; fewer are cheaper than the room that would prevent them."""
THRASH_CUT = 1.0
"""Of those that ran when the memory was full: just about as many as it holds."""
OVERLOAD_CUT = 0.85
"""Of what the server had accepted: its bound moves with what others send."""
REFUSED_S = 60.0
"""For so long no rise to where the server refused: a trial every few seconds would be refused every few seconds."""
USED = 0.8
"""In flight over limit; below this part the limit was not what held the client back."""
TIMEOUT_SHARE = 0.05
"""Of all that ended; single answers may hang for reasons of their own."""
THRASH_LEAST = 3
"""Preemptions; fewer are chance."""
DOWN_EVERY = 4
"""Trials, of which the last is a descent: below the knee it costs throughput, where a rise costs only latency."""
METRICS_LOST_S = 2.0
"""Without metrics for so long, the window goes by answers; until then the counter will cover the gap."""


class ConcurrencyController:
    """The limit of one endpoint. Make one per endpoint; `observe` every OBSERVE_S, and at once when the server refuses."""

    def __init__(
        self, *, start: int | None = None, floor: int = 1, ceiling: int = 4096, is_shared: bool = True, heeds_queue: bool = True
    ) -> None:
        """`start`: sent at once; None begins carefully.

        `is_shared`: whether others may use the server, so that it matters to have no more in flight than brings something.

        `heeds_queue`: whether sequences that wait there say that there are too many.
        """
        self._is_shared = is_shared
        self._heeds_queue = heeds_queue
        self._floor = floor
        self._ceiling = ceiling
        self._goal = self._bounded(START if start is None else start)
        self.limit = self._bounded(FIRST if start is None else start)
        self.reason = "start"
        """Why the limit last changed, for people."""
        self.phase = Phase.RAMP
        self._base: Level | None = None
        """What the next measurement is compared with."""
        self._window: Window | None = None
        self._is_second_look = False
        """Whether the rise has been measured once already, and seemed not to pay."""
        self._has_paid = False
        """Whether a rise ever paid; if not, the knee may be anywhere below the start."""
        self._factor = RAMP_FACTOR
        """Between two levels of the present trial."""
        self._held_since_s: float | None = None
        self._num_trials = 0
        self._num_odd = 0
        """Windows on end in which a throughput that should be the same was another."""
        self._to_drain = 0
        self._metrics_at_s = -math.inf
        self._by_metrics = False
        self._seen_at_s = math.inf
        """Time of the last observation."""
        self._queue_since_s: float | None = None
        self._own_part = 0.0
        """What we may count as ours of those that run; where the memory breathes, rather its peaks than its troughs."""
        self._kv_use = 0.0
        """Mean of the last window."""
        self._preemptions: int | None = None
        self._preempted = 0
        self._answers = 0
        """Both since the last window, for their ratio."""
        self._refused_at_s = -math.inf
        self._refused_limit = ceiling

    @classmethod
    def fixed(cls, limit: int) -> ConcurrencyController:
        """One that never moves, for a limit that was given."""
        return cls(start=limit, floor=limit, ceiling=limit)

    @classmethod
    def of_own_server(cls, max_num_seqs: int | None) -> ConcurrencyController:
        """For a server that serves nobody else: as much as it writes at once, and a little that waits. It is sent less when it refuses, or
        when its memory is full. None where it is not known what it writes at once: its queue will show that.
        """
        if max_num_seqs is None:
            return cls(start=UNKNOWN_START, is_shared=False)
        full = max_num_seqs + max(WAITING_LEAST, round(max_num_seqs * WAITING_SHARE))
        return cls(start=full, ceiling=full, is_shared=False, heeds_queue=False)

    def observe(self, observation: Observation) -> int:
        """The limit until the next observation."""
        self._note(observation)
        if self.phase is Phase.DRAIN:
            self._drain(observation)
        elif self._cut(observation):
            pass
        elif not observation.has_backlog or observation.peak_in_flight < USED * self.limit:
            self._interrupt("not used")
        elif self.limit < self._goal:
            self._pace(observation)
        else:
            self._measure(observation)
        self._seen_at_s = observation.at_s
        return self.limit

    def _note(self, observation: Observation) -> None:
        gauges = observation.gauges
        if gauges is not None:
            self._metrics_at_s = observation.at_s
            part = own_part(observation, gauges)
            self._own_part = max(part, _mix(self._own_part, part))
            self._preempted += max(gauges.preemptions - (gauges.preemptions if self._preemptions is None else self._preemptions), 0)
            self._preemptions = gauges.preemptions
            if gauges.waiting <= allowed_waiting(gauges) or not self._heeds_queue:
                self._queue_since_s = None
            elif self._queue_since_s is None:
                self._queue_since_s = observation.at_s
        self._answers += observation.completed
        by_metrics = observation.at_s - self._metrics_at_s <= METRICS_LOST_S
        if by_metrics != self._by_metrics:
            # What was measured in one way does not compare with what is measured in the other.
            self._by_metrics = by_metrics
            self._interrupt("metrics found" if by_metrics else "metrics lost")

    # Cuts: at once, and once per event.

    def _cut(self, observation: Observation) -> bool:
        gauges = observation.gauges
        if observation.overloads:
            accepted = observation.in_flight
            self._refused_at_s, self._refused_limit = observation.at_s, math.floor(accepted * OVERLOAD_CUT)
            return self._cut_to(accepted * OVERLOAD_CUT, "the server refuses", observation)
        if observation.timeouts > TIMEOUT_SHARE * (observation.completed + observation.timeouts):
            return self._cut_to(observation.in_flight * OVERLOAD_CUT, "answers time out", observation)
        if gauges is None:
            return False
        if self._preempted >= THRASH_LEAST and self._preempted > THRASH_SHARE * max(self._answers, gauges.running / 4):
            return self._cut_to(self._own_part * THRASH_CUT, "the server's memory is full", observation)
        if self._queue_since_s is not None and observation.at_s - self._queue_since_s >= QUEUE_S:
            return self._cut_to(self._own_part + allowed_waiting(gauges) / 2, "requests wait at the server", observation)
        return False

    def _cut_to(self, limit: float, reason: str, observation: Observation) -> bool:
        """Whether anything was cut."""
        if (lower := self._bounded(limit)) >= min(self.limit, observation.in_flight):
            return False
        self._hold(lower, reason)
        self.phase = Phase.DRAIN
        self._to_drain = observation.in_flight
        return True

    def _drain(self, observation: Observation) -> None:
        self._to_drain -= observation.completed
        if self._to_drain > 0 and observation.in_flight > 0:
            return
        self._queue_since_s = None
        self._preempted = self._answers = 0
        self._hold(self.limit, self.reason)

    # Measurements.

    def _pace(self, observation: Observation) -> None:
        elapsed_s = min(max(observation.at_s - self._seen_at_s, 0.0), DOUBLING_S)
        self.limit = min(self._goal, math.ceil(self.limit * 2 ** (elapsed_s / DOUBLING_S)))

    def _measure(self, observation: Observation) -> None:
        if self._window is None:
            is_fresh = self.phase is Phase.RAMP and self._base is not None and not self._by_metrics
            self._window = Window.begin(observation, is_settling=not is_fresh)
            self._window.is_fresh = is_fresh
            return
        window = self._window
        window.add(observation)
        if not window.is_over(observation, self.limit, self.phase, by_metrics=self._by_metrics):
            return
        self._window = Window.begin(observation, is_settling=False)
        if window.is_settling:
            return
        self._preempted = self._answers = 0
        self._kv_use = window.kv_sum / max(window.num_readings, 1)
        level = window.level(observation, self.limit, by_metrics=self._by_metrics)
        base, self._base = self._base, level
        match self.phase:
            case Phase.RAMP | Phase.UP:
                self._judge_rise(base, level, observation)
            case Phase.DOWN:
                self._judge_descent(base, level)
            case _:
                self._compare(base, level, observation)

    def _judge_rise(self, low: Level | None, high: Level, observation: Observation) -> None:
        if low is None:
            self._rise(RAMP_FACTOR, Phase.RAMP, observation)
            return
        gain, possible, noise = high.total_rate / max(low.total_rate, 1e-9), high.limit / low.limit, math.hypot(low.noise, high.noise)
        pays = UP_PAYS if self._by_metrics else UP_PAYS_BLIND
        # In a ramp, doubt is for going on: one doubling too many costs less than a search downwards.
        if gain >= 1 + pays * (possible - 1) + (noise if self.phase is Phase.UP else 0):
            self._has_paid = True
            self._rise(RAMP_FACTOR, Phase.RAMP, observation)
            return
        if self.phase is Phase.RAMP and not self._by_metrics and not self._is_second_look:
            self._is_second_look = True
            self._base = low
            return
        reason = f"from {low.limit} to {high.limit} brings no more"
        if gain < 1 - HARM - noise:
            # As where the memory is full.
            self._num_trials = DOWN_EVERY - 1
        if self.phase is Phase.UP:
            self._hold(low.limit, reason)
        elif not self._has_paid and self._is_shared:
            self._base = low
            self._descend(low.limit, RAMP_FACTOR)
        else:
            self._hold(low.limit * (gain * HEADROOM if gain > 1 else 1), reason)

    def _judge_descent(self, high: Level | None, low: Level) -> None:
        if high is None:
            self._hold(self.limit, self.reason)
            return
        gain, possible = high.own_rate / max(low.own_rate, 1e-9), high.limit / low.limit
        # What is noisier than a window should be, is not believed when it says that less is as good.
        noise = max(math.hypot(high.noise, low.noise) - math.hypot(NOISE, NOISE), 0.0) if self._by_metrics else 0.0
        if gain + noise <= 1 + DOWN_COSTS * (possible - 1) and low.limit > self._floor:
            self._descend(low.limit, max(STEP, math.sqrt(self._factor)))
        else:
            self._hold(min(high.limit, low.limit * gain * HEADROOM), f"{low.limit} in flight bring less than {high.limit}")

    def _compare(self, before: Level | None, now: Level, observation: Observation) -> None:
        if self._held_since_s is None or before is None:
            self._held_since_s = observation.at_s
            return
        ratio, noise = now.total_rate / max(before.total_rate, 1e-9), math.hypot(now.noise, before.noise)
        if FELL - noise < ratio < ROSE + noise:
            self._num_odd = 0
            # A slow mean, or a fall in the middle of one window would hide that of the next.
            self._base = replace(now, total_rate=_mix(before.total_rate, now.total_rate), own_rate=_mix(before.own_rate, now.own_rate))
            if observation.at_s - self._held_since_s >= HOLD_S:
                self._try(observation)
            return
        self._num_odd += 1
        if self._num_odd < 2:
            self._base = before
        elif ratio < 1 and self._is_shared:
            self._hold(now.limit * ratio * HEADROOM, "the throughput fell")
        elif ratio > 1:
            self._rise(RAMP_FACTOR, Phase.RAMP, observation)

    def _try(self, observation: Observation) -> None:
        self._num_trials += 1
        if self._num_trials % DOWN_EVERY == 0 and self._is_shared:
            self._descend(self.limit, STEP)
        else:
            self._rise(STEP, Phase.UP, observation)

    # Moves.

    def _rise(self, factor: float, phase: Phase, observation: Observation) -> None:
        """As far as bounds, memory and an earlier refusal allow; holds where they allow nothing."""
        goal = self.limit * factor
        gauges = observation.gauges
        if gauges is not None:
            if self._kv_use > 0:
                goal = min(goal, self.limit * KV_FULL / self._kv_use)
            if self._queue_since_s is not None:
                goal = self.limit
        if observation.at_s - self._refused_at_s < REFUSED_S:
            goal = min(goal, self._refused_limit)
        goal = self._bounded(max(goal, self.limit + 1) if goal > self.limit * 1.05 else self.limit)
        if goal <= self.limit:
            self._hold(self.limit, self.reason)
            return
        self.phase = phase
        self._goal = goal
        self._window = None
        self._is_second_look = False
        self.reason = f"tries {goal}"

    def _descend(self, limit: int, factor: float) -> None:
        """From the level of `limit`, which is the base."""
        self.phase = Phase.DOWN
        self._factor = factor
        self._goal = self.limit = self._bounded(min(limit / factor, limit - 1))
        self._window = None
        self.reason = f"tries {self.limit}"

    def _hold(self, limit: float, reason: str) -> None:
        self.phase = Phase.HOLD
        self._goal = self.limit = self._bounded(limit)
        self.reason = reason
        self._base = self._window = self._held_since_s = None
        self._num_odd = 0

    def _interrupt(self, reason: str) -> None:
        """What is being measured means nothing any more."""
        self._window = None
        if self.phase in (Phase.UP, Phase.DOWN):
            self._hold(self._base.limit if self._base else self.limit, reason)
        self._base = self._held_since_s = None

    def _bounded(self, limit: float) -> int:
        return max(self._floor, min(self._ceiling, round(limit)))


def _mix(before: float, now: float) -> float:
    return before + (now - before) * NEWS_WEIGHT
