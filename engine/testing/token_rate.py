"""How a vLLM server shares its time and memory among sequences, in time that is passed in: no clock, no task, no socket.

A fluid model. The sequences that run get equal parts of the decode rate; a prompt is computed alone, and decoding waits for it. Two knees:
beyond `knee` running sequences more of them only take longer each; beyond `kv_tokens` the newest is thrown out, and its tokens are computed
again later, so that throughput falls.

Since all that run advance alike, one number, the tokens that each has got so far ("service"), says how far everybody is: a sequence ends
when the service has grown by its length. That makes an end, a start and a preemption cost O(log n), however many run.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

from engine.teacher.metrics import METRICS, ServerGauges

EPSILON = 1e-9
"""Tokens and seconds below this are rounding: an event this near has happened."""


@dataclass(slots=True, eq=False)
class _Sequence:
    key: Hashable
    prompt_tokens: int
    output_tokens: int
    generated: float = 0.0
    """Before it was last preempted."""
    joined_service: float = 0.0
    runs: int = 0
    """Odd while it is in the batch; tells an entry of the heap that is still meant from one that is not."""

    def left(self) -> float:
        return self.output_tokens - self.generated


class TokenRateModel:
    """Time may stand still between calls, never run backwards.

    `knee`: running sequences at which the decode rate is full; below, it is in proportion to them.
    `tokens_per_s`: the decode rate at the knee and beyond, of all together.
    `prefill_tokens_per_s`: how fast prompts are computed, and what a preemption threw away.
    `max_running`: vLLM's max_num_seqs. `kv_tokens`: prompt and output tokens that the memory holds.
    `max_waiting`: with so many waiting, a further one is refused; None refuses nobody.
    """

    def __init__(
        self,
        *,
        knee: float,
        tokens_per_s: float,
        prefill_tokens_per_s: float = math.inf,
        max_running: int = 1_000_000,
        kv_tokens: float = math.inf,
        max_waiting: int | None = None,
    ) -> None:
        self._knee = knee
        self._tokens_per_s = tokens_per_s
        self._prefill_tokens_per_s = prefill_tokens_per_s
        self._max_running = max_running
        self._kv_tokens = kv_tokens
        self._max_waiting = max_waiting
        self._capacity = 1.0
        self._now = 0.0
        self._service = 0.0
        self._prefill_s = 0.0
        """Time the prompt being computed still takes, at the capacity of 1."""
        self._sequences: dict[Hashable, _Sequence] = {}
        self._running: dict[Hashable, _Sequence] = {}
        """Oldest first."""
        self._waiting: deque[_Sequence] = deque()
        self._ends: list[tuple[float, int, int, _Sequence]] = []
        self._num_entries = 0
        self._kv_offset = 0.0
        """What the running sequences hold, less what the service adds to each."""
        self._finished: list[Hashable] = []
        self._preemptions = 0
        self._generation_tokens = 0.0
        self._prompt_tokens = 0

    def submit(self, key: Hashable, prompt_tokens: int, output_tokens: int, now: float) -> bool:
        """False: refused. ValueError for a key under way, or a sequence that the memory could never hold."""
        self._advance(now)
        if key in self._sequences:
            raise ValueError(f"{key!r} is under way")
        if prompt_tokens + output_tokens > self._kv_tokens:
            raise ValueError(f"{prompt_tokens} + {output_tokens} tokens never fit into {self._kv_tokens}")
        if self._max_waiting is not None and len(self._waiting) >= self._max_waiting and not self._has_room(prompt_tokens):
            return False
        self._sequences[key] = sequence = _Sequence(key, prompt_tokens, output_tokens)
        self._waiting.append(sequence)
        self._admit()
        return True

    def cancel(self, key: Hashable, now: float) -> None:
        """Nothing happens if it is not under way."""
        self._advance(now)
        if (sequence := self._sequences.pop(key, None)) is None:
            return
        if key in self._running:
            self._leave(sequence)
        else:
            self._waiting.remove(sequence)
        self._admit()

    def advance(self, now: float) -> list[Hashable]:
        """The keys that have ended since the last call, in order."""
        self._advance(now)
        finished, self._finished = self._finished, []
        return finished

    def next_event(self, now: float) -> float | None:
        """When something will end or change if nobody calls before; None if nothing is under way. `now` if ends are to be fetched."""
        self._advance(now)
        if self._finished:
            return now
        delay_s = self._next_change_s()
        return None if delay_s == math.inf else self._now + delay_s

    def set_capacity(self, factor: float, now: float) -> None:
        """Scales the knee and both rates, relative to what the model was made with; memory and the bounds stay."""
        self._advance(now)
        self._capacity = factor

    def gauges(self) -> ServerGauges:
        """As of the last call that passed a time."""
        return ServerGauges(
            running=len(self._running),
            waiting=len(self._waiting),
            kv_cache_use=min(max(self._kv_used() / self._kv_tokens, 0.0), 1.0),
            preemptions=self._preemptions,
            generation_tokens=int(self._generation_tokens),
            prompt_tokens=self._prompt_tokens,
        )

    def _advance(self, now: float) -> None:
        while True:
            delay_s = self._next_change_s()
            if self._now + delay_s > now:
                break
            self._elapse(delay_s)
            self._change()
        self._elapse(now - self._now)
        self._now = max(self._now, now)

    def _next_change_s(self) -> float:
        """Time to the end of a prompt's computation, of a sequence, or of the memory."""
        if self._prefill_s > 0:
            return self._prefill_s / self._capacity
        if not self._running:
            return math.inf
        tokens_each = min(self._next_end() - self._service, (self._kv_tokens - self._kv_used()) / len(self._running))
        return max(tokens_each, 0.0) / self._rate_each()

    def _elapse(self, seconds: float) -> None:
        if seconds <= 0:
            return
        self._now += seconds
        if self._prefill_s > 0:
            self._prefill_s = max(self._prefill_s - seconds * self._capacity, 0.0)
            if self._prefill_s < EPSILON:
                self._prefill_s = 0.0
        elif self._running:
            tokens_each = seconds * self._rate_each()
            self._service += tokens_each
            self._generation_tokens += tokens_each * len(self._running)

    def _change(self) -> None:
        while self._running and self._prefill_s == 0 and self._next_end() <= self._service + EPSILON:
            sequence = heapq.heappop(self._ends)[-1]
            self._leave(sequence)
            del self._sequences[sequence.key]
            self._finished.append(sequence.key)
        if self._prefill_s == 0 and self._kv_used() >= self._kv_tokens - EPSILON and len(self._running) > 1:
            self._preempt()
            return  # vLLM admits nobody in the step in which it threw somebody out
        self._admit()

    def _admit(self) -> None:
        """One prompt after the other: the next joins when the last one is computed."""
        while self._waiting and self._prefill_s == 0:
            sequence = self._waiting[0]
            if not self._has_room(sequence.prompt_tokens + sequence.generated):
                return
            self._waiting.popleft()
            sequence.joined_service = self._service
            sequence.runs += 1
            self._running[sequence.key] = sequence
            self._num_entries += 1
            heapq.heappush(self._ends, (self._service + sequence.left(), self._num_entries, sequence.runs, sequence))
            tokens = sequence.prompt_tokens + sequence.generated
            self._kv_offset += tokens - self._service
            self._prefill_s = tokens / self._prefill_tokens_per_s
            self._prompt_tokens += 0 if sequence.generated else sequence.prompt_tokens

    def _preempt(self) -> None:
        sequence = next(reversed(self._running.values()))
        self._leave(sequence)
        sequence.generated += self._service - sequence.joined_service
        self._waiting.appendleft(sequence)
        self._preemptions += 1

    def _leave(self, sequence: _Sequence) -> None:
        del self._running[sequence.key]
        self._kv_offset -= sequence.prompt_tokens + sequence.generated - sequence.joined_service
        sequence.runs += 1

    def _has_room(self, tokens: float) -> bool:
        """For one more token each as well, so that nobody joins to be thrown out at once."""
        num_running = len(self._running) + 1
        return not self._running or (num_running <= self._max_running and self._kv_used() + tokens + num_running <= self._kv_tokens)

    def _kv_used(self) -> float:
        return self._kv_offset + len(self._running) * self._service

    def _rate_each(self) -> float:
        return self._tokens_per_s * self._capacity / max(len(self._running), self._knee * self._capacity)

    def _next_end(self) -> float:
        while self._ends[0][2] != self._ends[0][3].runs:
            heapq.heappop(self._ends)
        return self._ends[0][0]


def format_gauges(gauges: ServerGauges) -> str:
    """The text in which vLLM would say this, as far as `parse_gauges` reads it."""
    lines: list[str] = []
    for field, (name, *_) in METRICS.items():
        kind, family = ("counter", name.removesuffix("_total")) if name.endswith("_total") else ("gauge", name)
        lines += [
            f"# HELP {family} {field.replace('_', ' ')} of the scripted server",
            f"# TYPE {family} {kind}",
            f'{name}{{engine="0",model_name="scripted"}} {float(getattr(gauges, field))!r}',
        ]
    return "\n".join(lines) + "\n"
