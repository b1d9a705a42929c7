"""What an inference server says of itself in its Prometheus text. Knows the names, not how the text was fetched.

The text is about 60 kB and is read several times a second, and nine numbers of it are wanted: one compiled expression finds them in
about a millisecond, where a whole Prometheus parser builds objects for some thousand histogram buckets first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerGauges:
    """The state of one server, over all of its engines and clients. Counters only rise, until the server starts again."""

    running: int
    """Sequences in the batch."""
    waiting: int
    """Sequences accepted, for which the batch or the memory has no room."""
    kv_cache_use: float
    """0 to 1; blocks that only cache a prefix do not count."""
    preemptions: int
    """Counter: sequences thrown out of the batch for lack of memory, to be computed again."""
    generation_tokens: int
    """Counter; what is computed again after a preemption is not counted again."""
    prompt_tokens: int
    """Counter."""
    prefix_cache_queries: int = 0
    """Counter, in tokens."""
    prefix_cache_hits: int = 0
    """Counter, in tokens."""


METRICS: dict[str, tuple[str, ...]] = {
    "running": ("vllm:num_requests_running", "sglang:num_running_reqs"),
    "waiting": ("vllm:num_requests_waiting", "sglang:num_queue_reqs"),
    "kv_cache_use": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage"),
    "preemptions": ("vllm:num_preemptions_total",),
    "generation_tokens": ("vllm:generation_tokens_total", "sglang:generation_tokens_total"),
    "prompt_tokens": ("vllm:prompt_tokens_total", "sglang:prompt_tokens_total"),
    "prefix_cache_queries": ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    "prefix_cache_hits": ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
}
"""Every field's metric, vLLM's present name first, then what older versions and other servers call it; the first one found counts."""

NEEDED = ("running", "waiting", "generation_tokens")
"""Without these there is nothing to steer by."""

_LINE = re.compile(
    r"^(" + "|".join(re.escape(name) for names in METRICS.values() for name in names) + r")(?:\{[^\n]*\})?[ \t]+([-+.\w]+)",
    re.MULTILINE,
)


def parse_gauges(text: str) -> ServerGauges | None:
    """Sums over the label sets (one for each engine), the mean of the memory's use; None if this is not such a server's text."""
    found: dict[str, list[float]] = {}
    for name, number in _LINE.findall(text):
        try:
            value = float(number)
        except ValueError:
            return None
        # Not a number is what a gauge says that was never set; an infinity is no count either.
        found.setdefault(name, []).append(value if abs(value) < float("inf") else 0.0)
    fields = {field: next((found[name] for name in names if name in found), []) for field, names in METRICS.items()}
    if not all(fields[field] for field in NEEDED):
        return None
    use = fields.pop("kv_cache_use")
    counts = {field: int(sum(values)) for field, values in fields.items()}
    return ServerGauges(kv_cache_use=sum(use) / len(use) if use else 0.0, **counts)
