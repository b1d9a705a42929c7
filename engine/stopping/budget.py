"""How much of the teacher a run may use. Counts only: whoever gives out assignments asks before each.

An assignment is begun while what is left is enough for it and for those under way, each taken for as dear as the mean of those done. So a
run ends near its budget and not beyond it by all that is in flight; only a first round, of which nothing is known, is begun as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from engine.config import BudgetConfig
from engine.records import Call, Completion, RoundRecord, Totals


class _Limit:
    """Of one thing that assignments use up."""

    def __init__(self, name: str, limit: float, spent: float) -> None:
        self.name = name
        self.limit = limit
        self.spent = spent

    def has_room(self, done: int, begun: int) -> bool:
        """For one more than are under way; `done` have used what is spent."""
        mean = self.spent / done if done else 0.0
        return self.spent < self.limit and self.spent + (begun + 1) * mean <= self.limit


class Budget:
    """Of one run, over all the processes that work on it."""

    def __init__(
        self,
        config: BudgetConfig,
        rounds: Sequence[RoundRecord],
        worked_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        *,
        gpus: float = 0.0,
        money_per_s: float = 0.0,
    ) -> None:
        """`rounds`: those that are complete. `worked_s`: what earlier processes have worked on the run. `gpus` and money are used up by the
        second, busy or not.
        """
        self._clocks = (
            (config.seconds, 1.0, "{:,.0f} seconds"),
            (config.gpu_seconds, gpus, "{:,.0f} GPU seconds"),
            (config.money, money_per_s, "{:,.2f} in money"),
        )
        self._clock = clock
        self._began_s = clock() - worked_s
        self._done = sum(record.assignments for record in rounds)
        self._begun = 0
        totals = Totals.of(rounds)
        limits = (("teacher tokens", config.teacher_tokens, totals.tokens), ("accepted rows", config.accepted_rows, totals.rows.accepted))
        self._tokens, self._rows = (None if limit is None else _Limit(name, limit, spent) for name, limit, spent in limits)

    def begin(self) -> bool:
        """Whether another assignment may be begun; if so, it counts as under way."""
        if self.reason_to_stop() is not None:
            return False
        self._begun += 1
        return True

    def spend(self, calls: Sequence[Call]) -> None:
        """What an assignment that was begun has used."""
        self._begun -= 1
        self._done += 1
        for call in calls:
            if self._rows is not None:
                self._rows.spent += call.rows.accepted
            if self._tokens is not None and isinstance(call.outcome, Completion):
                self._tokens.spent += call.outcome.usage.prompt_tokens + call.outcome.usage.completion_tokens

    def reason_to_stop(self) -> str | None:
        """What is used up; None if another assignment may be begun."""
        for limit in (self._tokens, self._rows):
            if limit is not None and not limit.has_room(self._done, self._begun):
                return f"the budget of {limit.limit:,} {limit.name} is used up ({limit.spent:,})"
        worked_s = self._clock() - self._began_s if any(limit is not None for limit, *_ in self._clocks) else 0.0
        for limit, per_s, words in self._clocks:
            if limit is not None and worked_s * per_s >= limit:
                return f"the budget of {words.format(limit)} is used up"
        return None
