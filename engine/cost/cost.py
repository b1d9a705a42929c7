"""What a run has cost: wall time times GPUs, kWh, and money where there are prices. Pure arithmetic over what its processes have noted.

Invariant: time is that of the clock. Latencies of requests that were in flight together are never added: their sum is many times the time
that anything was paid for. *Reserved* is a server that is up, whoever uses it; *busy* is one with a request in flight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.config import CostConfig
from engine.cost.prices import money_per_s

FORMAT = 1
_HOUR_S = 3600.0
_KWH_J = 3.6e6


@dataclass(frozen=True, slots=True)
class Shift:
    """One process's work on a run. Noted every few seconds, so that of one that was killed only the last of them are missing."""

    began_at: float
    """Unix time."""
    wall_s: float = 0.0
    reserved_s: float = 0.0
    """From the start of the teacher's servers to their end."""
    busy_s: float = 0.0
    """With requests in flight; of several servers the mean."""
    gpus: float = 0.0
    """Of all servers together."""
    gpus_from: str = "launch"
    """How their number is known: `launch` (servers of ours), `given` (cost.gpus), `assumed` (one for each endpoint)."""
    joules: float | None = None
    """None where nothing counts them."""
    joules_from: tuple[str, ...] = ()
    """`nvml`, `rapl`."""


@dataclass(frozen=True, slots=True)
class Shifts:
    """The content of cost.json."""

    shifts: tuple[Shift, ...] = ()
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Each:
    """What one of something has cost."""

    wall_s: float
    gpu_s: float
    """Reserved."""
    busy_gpu_s: float
    kwh: float | None
    money: float | None


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a run so far, over all processes that worked on it."""

    processes: int
    wall_s: float
    reserved_s: float
    busy_s: float
    gpus: float
    """At most at once."""
    gpus_from: tuple[str, ...]
    """As of Shift."""
    reserved_gpu_s: float
    busy_gpu_s: float
    kwh: float | None
    kwh_from: tuple[str, ...]
    """`nvml` and `rapl` count; `given` is cost.watts times the time."""
    currency: str
    money: float | None
    """GPUs as long as they were reserved, the machine as long as processes worked, and the energy; None without a price that applies."""
    busy_money: float | None
    """The same, if time were paid only while requests were in flight."""
    notes: tuple[str, ...]
    """What is not in it."""
    per_row: Each | None = None
    """Accepted."""
    per_1000_rows: Each | None = None
    per_f1_point: Each | None = None
    """A hundredth of macro F1 gained; None where nothing was."""
    per_1000_tokens: Each | None = None
    """Of prompts and replies."""

    @property
    def busy_share(self) -> float | None:
        """Of the reserved time; None where nothing was reserved."""
        return min(self.busy_s / self.reserved_s, 1.0) if self.reserved_s else None


@dataclass(frozen=True, slots=True)
class AtEnd:
    """Where the cost will stand at the end of a run, as a range."""

    low: float
    high: float
    unit: str
    """The currency, or `GPU-hours` where there is no price."""


def reckon(shifts: Sequence[Shift], prices: CostConfig, *, rows: int = 0, tokens: int = 0, gain: float | None = None) -> Cost | None:
    """None where no process has noted anything, as in runs of earlier versions. `rows` accepted; `gain` in macro F1, of 1."""
    if not shifts:
        return None
    wall_s, reserved_s, busy_s = (sum(found) for found in zip(*((s.wall_s, s.reserved_s, s.busy_s) for s in shifts), strict=True))
    reserved_gpu_s = sum(shift.reserved_s * shift.gpus for shift in shifts)
    busy_gpu_s = sum(shift.busy_s * shift.gpus for shift in shifts)
    kwh, kwh_from = _energy(shifts, prices)
    whole = _money(prices, reserved_gpu_s, wall_s, kwh)
    each = Each(wall_s, reserved_gpu_s, busy_gpu_s, kwh, whole)
    points = 100 * gain if gain is not None and gain > 0 else None
    return Cost(
        processes=len(shifts),
        wall_s=wall_s,
        reserved_s=reserved_s,
        busy_s=busy_s,
        gpus=max(shift.gpus for shift in shifts),
        gpus_from=tuple(sorted({shift.gpus_from for shift in shifts if shift.reserved_s})),
        reserved_gpu_s=reserved_gpu_s,
        busy_gpu_s=busy_gpu_s,
        kwh=kwh,
        kwh_from=kwh_from,
        currency=prices.currency,
        money=whole,
        busy_money=_money(prices, busy_gpu_s, busy_s, kwh),
        notes=tuple(_notes(shifts, prices, kwh)),
        per_row=divide(each, rows),
        per_1000_rows=divide(each, rows / 1000),
        per_f1_point=divide(each, points),
        per_1000_tokens=divide(each, tokens / 1000),
    )


def divide(whole: Each, by: float | None) -> Each | None:
    """None where there is nothing to divide by."""
    if not by:
        return None
    kwh, money = (None if amount is None else amount / by for amount in (whole.kwh, whole.money))
    return Each(whole.wall_s / by, whole.gpu_s / by, whole.busy_gpu_s / by, kwh, money)


def at_end(cost: Cost, now: Shift, prices: CostConfig, left_s: tuple[float, float]) -> AtEnd | None:
    """If the present process goes on for so long, as it was; None where there is neither a price nor a GPU."""
    watts = (now.joules / now.wall_s if now.joules is not None and now.wall_s else None) or prices.watts
    if cost.money is not None:
        rate = money_per_s(prices.model_copy(update={"watts": watts}), now.gpus)
        low, high = (cost.money + rate * seconds for seconds in left_s)
        return AtEnd(low, high, cost.currency)
    if not now.gpus:
        return None
    low, high = ((cost.reserved_gpu_s + now.gpus * seconds) / _HOUR_S for seconds in left_s)
    return AtEnd(low, high, "GPU-hours")


def money_for(prices: CostConfig, *, wall_s: float, gpus: float, kwh: float | None = None) -> float | None:
    """Of a machine, with so many of its GPUs, for so long; None without a price that applies."""
    return _money(prices, wall_s * gpus, wall_s, kwh)


def _money(prices: CostConfig, gpu_s: float, wall_s: float, kwh: float | None) -> float | None:
    parts = (
        (prices.gpu_hour_price, gpu_s / _HOUR_S if gpu_s else None),
        (prices.machine_hour_price, wall_s / _HOUR_S),
        (prices.kwh_price, kwh),
    )
    known = [price * amount for price, amount in parts if price is not None and amount is not None]
    return sum(known) if known else None


def _energy(shifts: Sequence[Shift], prices: CostConfig) -> tuple[float | None, tuple[str, ...]]:
    joules, sources = 0.0, set[str]()
    for shift in shifts:
        if shift.joules is not None:
            joules += shift.joules
            sources.update(shift.joules_from)
        elif prices.watts is not None:
            joules += prices.watts * shift.wall_s
            sources.add("given")
        else:
            return None, ()
    return joules / _KWH_J, tuple(sorted(sources))


def _notes(shifts: Sequence[Shift], prices: CostConfig, kwh: float | None) -> list[str]:
    found: list[str] = []
    if kwh is None:
        found.append("the energy is not known: neither NVML nor RAPL can be read, and no watts are given (cost.watts)")
    elif any(shift.gpus and shift.joules is not None and "nvml" not in shift.joules_from for shift in shifts):
        found.append("the energy is without that of the GPUs, which do not tell of it")
    elif any(shift.joules is not None and "rapl" not in shift.joules_from for shift in shifts):
        found.append("the energy is that of the GPUs alone: the processor's counters cannot be read")
    if any(shift.gpus_from == "assumed" and shift.reserved_s for shift in shifts):
        found.append("one GPU is assumed for each endpoint (cost.gpus says how many there are)")
    if prices.gpu_hour_price is not None and not any(shift.gpus for shift in shifts):
        found.append("no GPU was used, so cost.gpu_hour_price does not count; cost.machine_hour_price does, where it is set")
    return found
