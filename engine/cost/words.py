"""A cost in words and lines of a table, as terminal, report and dashboard show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.cost.cost import AtEnd, Cost, Each

COST_COLUMNS = ("", "in all", "an accepted row", "1,000 accepted rows", "a point of F1 gained", "1,000 teacher tokens")
_SOURCES: Mapping[str, str] = {"nvml": "GPUs by NVML", "rapl": "processors by RAPL", "given": "the given watts"}
_HOUR_S = 3600.0


def cost_line(cost: Cost) -> str:
    """In a line; what is not known is not in it."""
    parts: list[str] = []
    if cost.money is not None:
        busy = f" ({amount(cost.busy_money)} for the busy time alone)" if cost.busy_money is not None else ""
        parts.append(f"{amount(cost.money)} {cost.currency}{busy}")
    if cost.gpus:
        parts.append(f"{amount(cost.reserved_gpu_s / _HOUR_S)} GPU-hours reserved, {amount(cost.busy_gpu_s / _HOUR_S)} busy")
    elif cost.busy_share is not None:
        parts.append(f"no GPU; the server was busy for {cost.busy_share:.0%} of {cost.reserved_s:,.0f} s")
    if cost.kwh is not None:
        parts.append(f"{amount(cost.kwh)} kWh")
    return ", ".join(parts) or "nothing is counted yet"


def cost_glance(cost: Cost, end: AtEnd | None) -> str:
    """So far and at the end, for a line that is not wide: what matters most comes first."""
    so_far = f"{amount(cost.money)} {cost.currency}" if cost.money is not None else ""
    if cost.gpus:
        so_far += f"{', ' if so_far else ''}{amount(cost.reserved_gpu_s / _HOUR_S)} GPU-hours"
    parts = [so_far, f"at the end {end_words(end)}" if end else "", f"{amount(cost.kwh)} kWh" if cost.kwh is not None else ""]
    busy = f"servers busy {cost.busy_share:.0%}" if cost.busy_share is not None else ""
    return "; ".join(part for part in (*parts, busy) if part)


def end_words(end: AtEnd) -> str:
    low, high = amount(end.low), amount(end.high)
    return f"about {low} {end.unit}" if low == high else f"{low} to {high} {end.unit}"


def cost_rows(cost: Cost) -> list[tuple[str, ...]]:
    """A line for each way to count, under COST_COLUMNS."""
    whole = Each(cost.wall_s, cost.reserved_gpu_s, cost.busy_gpu_s, cost.kwh, cost.money)
    each = (whole, cost.per_row, cost.per_1000_rows, cost.per_f1_point, cost.per_1000_tokens)
    lines = [("seconds of work on the run", *(_of(one, lambda one: one.wall_s) for one in each))]
    if cost.gpus:
        lines.append((f"GPU-seconds reserved ({cost.gpus:g} GPU)", *(_of(one, lambda one: one.gpu_s) for one in each)))
        lines.append(("GPU-seconds busy", *(_of(one, lambda one: one.busy_gpu_s) for one in each)))
    else:
        lines.append(("seconds the server was up", amount(cost.reserved_s), "", "", "", ""))
        lines.append(("seconds it was busy", amount(cost.busy_s), "", "", "", ""))
    if cost.kwh is not None:
        lines.append((f"kWh ({_sources(cost)})", *(_of(one, lambda one: one.kwh) for one in each)))
    if cost.money is not None:
        lines.append((cost.currency, *(_of(one, lambda one: one.money) for one in each)))
        lines.append((f"{cost.currency}, if only busy time were paid", amount(cost.busy_money), "", "", "", ""))
    return lines


def amount(value: float | None) -> str:
    """To three digits or so, and no power of ten; nothing for what is not known."""
    if value is None:
        return ""
    if not value or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{float(f'{value:.3g}'):.10f}".rstrip("0")


def _of(one: Each | None, what: Callable[[Each], float | None]) -> str:
    return "" if one is None else amount(what(one))


def _sources(cost: Cost) -> str:
    return ", ".join(_SOURCES.get(source, source) for source in cost.kwh_from)
