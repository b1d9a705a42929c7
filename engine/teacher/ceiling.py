"""The user's own limits on requests by time, for servers shared with others."""

from __future__ import annotations

from asyncio_throttle import Throttler  # pyright: ignore[reportPrivateImportUsage] - where its documentation has it

from engine.config import EngineConfig

THROTTLE_POLL_S = 0.02
"""How often a request that waits looks again."""


class Ceiling:
    """At most so many requests in any such period; an HTTP request with several draws is one."""

    def __init__(self, requests: int, period_s: float) -> None:
        self._throttler = Throttler(requests, period_s, THROTTLE_POLL_S)
        self.num_waiting = 0

    async def acquire(self) -> None:
        self.num_waiting += 1
        try:
            await self._throttler.acquire()
        finally:
            self.num_waiting -= 1


def make_ceilings(config: EngineConfig) -> list[Ceiling]:
    """Those the user has set; all of them hold."""
    limits = ((config.requests_per_second, 1.0), (config.requests_per_minute, 60.0))
    return [Ceiling(requests, period_s) for requests, period_s in limits if requests]
