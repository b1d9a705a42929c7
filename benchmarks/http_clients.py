"""Other HTTP clients in the place of the engine's own, for `benchmarks.engine --http`: what each costs inside the real engine.

They answer whole replies to whole requests, as `engine.teacher.http.HttpClient` does, tuned for it: one pool, no cap, no redirects,
no cookies.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import aiohttp

from engine.teacher import teacher
from engine.teacher.http import DroppedError, HttpClient, Limits, Reply

NAMES = ("own", "aiohttp", "pyreqwest")


class _Other:
    """What the two have in common."""

    def __init__(self, base_url: str, limits: Limits, headers: Mapping[str, str]) -> None:
        self._base_url = base_url
        self._limits = limits
        self._headers = {"Content-Type": "application/json", **headers}
        self._client: Any = None

    async def __aenter__(self) -> _Other:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """The process ends with the benchmark, and its connections with it."""

    async def get(self, path: str) -> Reply:
        async with HttpClient(self._base_url, self._limits, {}) as client:
            return await client.get(path)


class Aiohttp(_Other):
    async def post(self, path: str, body: bytes) -> Reply:
        if self._client is None:
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=self._limits.total_s, sock_read=self._limits.stall_s),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        try:
            async with self._client.post(self._base_url + path, data=body, allow_redirects=False) as response:
                return Reply(response.status, [], await response.read())
        except aiohttp.ClientError as error:
            raise DroppedError(str(error)) from error

    def close(self) -> None:
        if self._client is not None:
            self._client._connector._close()
            self._client.detach()


class Pyreqwest(_Other):
    async def post(self, path: str, body: bytes) -> Reply:
        if self._client is None:
            from pyreqwest.client import ClientBuilder  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

            builder: Any = ClientBuilder()
            total, stall = (datetime.timedelta(seconds=seconds) for seconds in (self._limits.total_s, self._limits.stall_s))
            self._client = builder.timeout(total).read_timeout(stall).follow_redirects(False).no_proxy().build()
        request = self._client.post(self._base_url + path)
        for name, value in self._headers.items():
            request = request.header(name, value)
        response = await request.body_bytes(body).build().send()
        return Reply(response.status, [], bytes(await response.bytes()))


def use(name: str) -> None:
    """From now on in this process."""
    clients: dict[str, Any] = {"own": HttpClient, "aiohttp": Aiohttp, "pyreqwest": Pyreqwest}
    teacher.HttpClient = clients[name]
