"""HTTP/1.1 to one server at the least cost: kept-alive connections over asyncio, parsed by llhttp (`httptools`).

Why not a general client: at thousands of requests per second it is the client that costs most (`docs/design.md` has the measurements beside
aiohttp and pyreqwest). Known here: one server, whole replies, bodies of bytes. Not known: redirects, proxies, cookies, compression.

Invariants: a connection carries one request at a time; there are as many as requests under way, without a cap. A request that
is cancelled or out of time closes its connection, which tells the server to stop working on it. Nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import httptools

MAX_REPLY_BYTES = 256 * 2**20
"""A server that sends more, headers and all, is not answering; it would fill the memory."""


class Reply(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    """As they came."""
    body: bytes

    def header(self, name: str) -> str | None:
        """The first of this name (in lower case)."""
        return next((value.decode("latin-1").strip() for key, value in self.headers if key.lower() == name.encode()), None)


class Limits(NamedTuple):
    """In seconds."""

    total_s: float
    """From the request to the whole reply."""
    stall_s: float
    """Between two pieces of a reply that has begun."""
    connect_s: float = 10.0
    idle_s: float = 4.0
    """Connections unused for longer are not used again. Below the 5 s after which uvicorn, and so vLLM, closes them: a request sent at that
    moment would be lost."""


class HttpError(Exception):
    """No reply came; the message says why, in a few words."""


class UnreachableError(HttpError):
    """No connection could be made: nothing was sent."""


class DroppedError(HttpError):
    """The connection was lost before the reply was whole."""


class TimedOutError(HttpError):
    """A time limit passed."""


class GarbledError(HttpError):
    """What came is no HTTP."""


class HttpClient:
    """Requests to the server of one base URL. Leaving the block closes all connections."""

    def __init__(self, base_url: str, limits: Limits, headers: Mapping[str, str]) -> None:
        parts = urlsplit(base_url)
        assert parts.hostname is not None, base_url
        self._host = parts.hostname
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._ssl else 80)
        self._limits = limits
        self._path = parts.path.rstrip("/")
        lines = {"Host": parts.netloc.rpartition("@")[2], "Accept-Encoding": "identity", **headers}
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("latin-1")
        self._heads: dict[tuple[str, str], bytes] = {}
        self._idle: deque[_Connection] = deque()
        """The one used last at the end."""
        self._busy: dict[_Connection, float] = {}
        """When each runs out of time, by the loop's clock: all are granted as long, so the first that began comes first."""
        self._alarm: asyncio.TimerHandle | None = None
        """For the first of them, or one that came before it: a timer for each request would cost 7 of the client's 60 microseconds."""
        self._is_closed = False

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def num_connections(self) -> int:
        """Open, in use or idle."""
        return sum(connection.is_open for connection in (*self._idle, *self._busy))

    async def get(self, path: str) -> Reply:
        return await self._exchange(self._head("GET", path) + b"\r\n")

    def post(self, path: str, body: bytes) -> Coroutine[Any, Any, Reply]:
        """`body` is JSON; `path` goes behind the base URL's."""
        return self._exchange(
            b"%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (self._head("POST", path), len(body), body)
        )

    def close(self) -> None:
        """At once, and for good; who waits for a reply gets DroppedError, who waits for a connection UnreachableError."""
        self._is_closed = True
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _head(self, method: str, path: str) -> bytes:
        head = self._heads.get((method, path))
        if head is None:
            head = self._heads[method, path] = f"{method} {self._path}{path} HTTP/1.1\r\n".encode() + self._headers
        return head

    async def _exchange(self, request: bytes) -> Reply:
        connection = self._take_idle() or await self._connect()
        loop = asyncio.get_running_loop()
        self._busy[connection] = deadline_s = loop.time() + self._limits.total_s
        if self._alarm is None:
            self._alarm = loop.call_at(deadline_s, self._time_out)
        try:
            return await connection.begin(request, self._limits.stall_s)
        except BaseException:
            connection.abort()
            raise
        finally:
            del self._busy[connection]
            connection.end()
            if connection.is_reusable:
                self._keep(connection)
            else:
                connection.abort()

    def _time_out(self) -> None:
        """Those whose time is over; then wait for the next."""
        self._alarm = None
        loop = asyncio.get_running_loop()
        for connection, deadline_s in self._busy.items():
            # uvloop's timers count whole milliseconds and may come a little early.
            if deadline_s > loop.time() + 0.001:
                self._alarm = loop.call_at(deadline_s, self._time_out)
                return
            connection.time_out(f"no answer within {self._limits.total_s:g} s")

    def _keep(self, connection: _Connection) -> None:
        now = connection.idle_since = time.monotonic()
        self._idle.append(connection)
        while self._idle[0].idle_since < now - self._limits.idle_s:
            self._idle.popleft().abort()

    def _take_idle(self) -> _Connection | None:
        """The one used last: those that are too many grow old, and are closed."""
        too_old = time.monotonic() - self._limits.idle_s
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and connection.idle_since > too_old:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(self._limits.connect_s):
                _, connection = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port, ssl=self._ssl)
        except TimeoutError:
            raise UnreachableError(f"no connection within {self._limits.connect_s:g} s") from None
        except OSError as error:
            raise UnreachableError(error.strerror or str(error) or type(error).__name__) from error
        except UnicodeError as error:
            raise UnreachableError(f"{self._host!r} is no name of a host") from error
        if self._is_closed:
            connection.abort()
            raise UnreachableError("the client was closed")
        return connection


class _Connection(asyncio.Protocol):
    """One connection, and the reply that is being read from it."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.is_open = False
        self._transport: asyncio.Transport
        self._reply: asyncio.Future[Reply] | None = None
        self._is_kept_alive = True
        self._size = 0
        self._stall: asyncio.TimerHandle | None = None
        self._stall_s = 0.0
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._has_begun = False
        self._has_headers = False

    @property
    def is_reusable(self) -> bool:
        return self.is_open and self._is_kept_alive and self._reply is None

    def begin(self, request: bytes, stall_s: float) -> asyncio.Future[Reply]:
        """Send it; the reply comes in the future. Then call `end`, and `abort` before if it has not come."""
        if not self.is_open:
            raise DroppedError("the server closed the connection")
        reply = self._reply = asyncio.get_running_loop().create_future()
        self._stall_s = stall_s
        self._size = 0
        self._has_begun = self._has_headers = False
        self._transport.write(request)
        return reply

    def end(self) -> None:
        self._reply = None
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def close(self) -> None:
        self._fail(DroppedError("the connection was closed here"))
        self.abort()

    def abort(self) -> None:
        if self.is_open:
            self._is_kept_alive = False
            self._transport.abort()

    def _says_where_it_ends(self) -> bool:
        return any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self._headers)

    def time_out(self, why: str) -> None:
        self._fail(TimedOutError(why))

    def _fail(self, error: HttpError) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)

    def _give_up(self, why: str) -> None:
        self._fail(GarbledError(why))
        self.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        if self._reply is None:
            # Nobody asked; what follows could be taken for the next reply.
            self.abort()
            return
        self._size += len(data)
        if self._size > MAX_REPLY_BYTES:
            self._give_up(f"an answer of more than {MAX_REPLY_BYTES} bytes")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._give_up(f"no HTTP reply: {error}")
            return
        except httptools.HttpParserUpgrade:
            self._give_up("the server changes to another protocol, which nobody asked for")
            return
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._has_begun and not self._reply.done():
            why = f"the answer stopped in the middle for {self._stall_s:g} s"
            self._stall = asyncio.get_running_loop().call_later(self._stall_s, self.time_out, why)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._has_headers and exc is None and not self._says_where_it_ends():
            self.on_message_complete()  # a reply of that form ends with its connection
        where = " in the middle of its answer" if self._has_begun else ""
        self._fail(DroppedError(str(exc) if exc else f"the server closed the connection{where}"))

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._headers = []
        self._body = []
        self._has_begun = True
        if self._reply is not None and self._reply.done():
            self._is_kept_alive = False  # a second answer to one request could be taken for that to the next

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._has_headers = True

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # "go on": the reply proper follows
            self._has_begun = self._has_headers = False
            return
        self._is_kept_alive = self._is_kept_alive and self._parser.should_keep_alive()
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(Reply(status, self._headers, b"".join(self._body)))
