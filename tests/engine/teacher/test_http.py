from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import struct
import subprocess
from asyncio import AbstractEventLoopPolicy, DefaultEventLoopPolicy, StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from engine.teacher import http
from engine.teacher.http import DroppedError, GarbledError, HttpClient, HttpError, Limits, Reply, TimedOutError, UnreachableError

PATIENT = Limits(total_s=30, stall_s=30)
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n5;a=b\r\n done\r\n0\r\nX-Trailer: 1\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall of"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture:pytest.PytestDeprecationWarning")
"""What stands in its place is a hook in a conftest, for all files of a folder."""


@pytest.fixture(params=[DefaultEventLoopPolicy(), uvloop.EventLoopPolicy()], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> AbstractEventLoopPolicy:
    """The engine runs in uvloop; the client must not depend on it."""
    return request.param


@pytest.fixture(autouse=True)
async def quiet_loop(event_loop_policy: AbstractEventLoopPolicy) -> AsyncGenerator[None]:
    """Whatever a server does, nothing goes wrong in a callback, where nobody would hear of it."""
    unheard: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    assert isinstance(loop, uvloop.Loop) == isinstance(event_loop_policy, uvloop.EventLoopPolicy)
    loop.set_exception_handler(lambda _loop, context: unheard.append(context))
    yield
    assert unheard == []


class Peer:
    """A connection, from the server's side."""

    def __init__(self, number: int, reader: StreamReader, writer: StreamWriter) -> None:
        self.number = number
        """From 0, in the order in which they came."""
        self._reader = reader
        self._writer = writer

    async def request(self) -> bytes:
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0)
        return head + await self._reader.readexactly(length)

    async def send(self, *pieces: bytes) -> None:
        """Each piece is read by itself, as far as it can be brought about."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            for _ in range(3):
                await asyncio.sleep(0)

    def end(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def gone(self) -> None:
        """Returns when the client has closed."""
        with suppress(ConnectionError):
            while await self._reader.read(4096):
                pass


Handler = Callable[[Peer], Awaitable[None]]


class Server:
    """What it saw."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.port = 0
        self.num_connections = 0
        self.num_gone = 0
        """Connections that are over, on this side too."""
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        peer = Peer(self.num_connections, reader, writer)
        self.num_connections += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await self._handler(peer)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            writer.transport.abort()
            self.num_gone += 1
            self.tasks.discard(task)


@asynccontextmanager
async def serving(handler: Handler, *, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> AsyncGenerator[Server]:
    server = Server(handler)
    listener = await asyncio.start_server(server.connected, host, 0, ssl=context, backlog=512)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        while server.tasks:
            for task in list(server.tasks):
                task.cancel()
            await asyncio.sleep(0)
        await listener.wait_closed()


def make_client(url: str, limits: Limits = PATIENT, headers: dict[str, str] | None = None) -> HttpClient:
    return HttpClient(url, limits, headers or {})


def reply_of(body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"HTTP/1.1 200 OK\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def answering(*pieces: bytes) -> Handler:
    """The same answer to every request."""

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(*pieces)

    return handler


async def numbering(peer: Peer) -> None:
    """Every answer is the number of its connection."""
    await answering(reply_of(b"%d" % peer.number))(peer)


async def silent(peer: Peer) -> None:
    await peer.gone()


def then_silent(*pieces: bytes) -> Handler:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        await peer.gone()

    return handler


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - what is waited for sets no event
        await asyncio.sleep(0)


async def ask(handler: Handler, limits: Limits = PATIENT) -> Reply:
    """One request; the client's connections are counted down, and closed, before this returns."""
    async with serving(handler) as server, make_client(server.url, limits) as client:
        try:
            return await client.post("/chat", b"{}")
        except HttpError:
            await until(lambda: client.num_connections == 0)
            raise


# What is sent.


async def test_a_request_is_sent_as_http_wants_it() -> None:
    requests: list[bytes] = []

    async def handler(peer: Peer) -> None:
        for _ in range(2):
            requests.append(await peer.request())
            await peer.send(reply_of(b""))

    async with serving(handler) as server, make_client(f"http://user:word@127.0.0.1:{server.port}/v1/", headers={"X-A": "b"}) as client:
        await client.post("/chat", b'{"a": 1}')
        await client.get("/models")
    shared = f"Host: 127.0.0.1:{server.port}\r\nAccept-Encoding: identity\r\nX-A: b\r\n"
    assert requests == [
        f'POST /v1/chat HTTP/1.1\r\n{shared}Content-Type: application/json\r\nContent-Length: 8\r\n\r\n{{"a": 1}}'.encode(),
        f"GET /v1/models HTTP/1.1\r\n{shared}\r\n".encode(),
    ]


async def test_a_large_request_arrives_whole() -> None:
    body = b"x" * 5_000_000

    async def handler(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(reply_of(b"%d" % request.count(b"x")))

    async with serving(handler) as server, make_client(server.url) as client:
        assert (await client.post("/chat", body)).body == b"5000000"


async def test_ipv6() -> None:
    try:
        async with serving(numbering, host="::1") as server, make_client(f"http://[::1]:{server.port}") as client:
            assert (await client.get("/")).body == b"0"
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


# How answers come.


@pytest.mark.parametrize(
    ("reply", "body"), [(reply_of(b"half done", "A: b"), b"half done"), (CHUNKED, b"half done"), (INTERIM + CHUNKED, b"half done")]
)
async def test_an_answer_may_come_in_any_pieces(reply: bytes, body: bytes) -> None:
    async def handler(peer: Peer) -> None:
        for cut in range(1, len(reply)):
            await peer.request()
            await peer.send(reply[:cut], reply[cut:])
        await peer.request()
        await peer.send(*(bytes([byte]) for byte in reply))

    async with serving(handler) as server, make_client(server.url) as client:
        for _ in range(len(reply)):
            answer = await client.post("/chat", b"{}")
            assert (answer.status, answer.body) == (200, body)
            assert answer.header("link") is None  # that was the interim reply's
        assert server.num_connections == 1


async def test_headers_are_found_whatever_their_case_and_the_first_counts() -> None:
    reply = await ask(answering(reply_of(b"", "RETRY-after:  2.5 ", "Retry-After: 3", "X-Name: caf\xe9")))
    assert reply.header("retry-after") == "2.5"
    assert reply.header("location") is None
    assert reply.header("content-length") == "0"


@pytest.mark.parametrize("status", [200, 204, 302, 400, 429, 503, 599])
async def test_every_status_is_an_answer(status: int) -> None:
    assert (await ask(answering(b"HTTP/1.1 %d \r\nContent-Length: 0\r\n\r\n" % status))).status == status


async def test_an_answer_without_length_ends_with_its_connection() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(ENDLESS, b" it")
        peer.end()

    async with serving(handler) as server, make_client(server.url) as client:
        assert [(await client.get("/")).body for _ in range(2)] == [b"all of it"] * 2
        assert server.num_connections == 2


async def test_an_offer_to_change_the_protocol_is_declined() -> None:
    assert (await ask(answering(reply_of(b"{}", "Upgrade: h2,h2c", "Connection: Upgrade")))).body == b"{}"


# Connections.


async def test_one_connection_serves_one_after_the_other() -> None:
    async with serving(numbering) as server, make_client(server.url) as client:
        assert [(await client.get("/")).body for _ in range(20)] == [b"0"] * 20
        assert server.num_connections == client.num_connections == 1
    await until(lambda: server.num_gone == 1)


async def test_there_are_as_many_connections_as_requests_under_way() -> None:
    everybody = asyncio.Event()

    async def handler(peer: Peer) -> None:
        if peer.number == 299:
            everybody.set()
        await peer.request()
        await everybody.wait()
        await peer.send(reply_of(b"%d" % peer.number))
        await peer.gone()

    async with serving(handler) as server, make_client(server.url) as client:
        replies = await asyncio.gather(*(client.post("/chat", b"{}") for _ in range(300)))
        assert {int(reply.body) for reply in replies} == set(range(300))
        assert client.num_connections == 300
    await until(lambda: server.num_gone == 300)


@pytest.mark.parametrize("reply", [reply_of(b"1", "Connection: close"), b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n1"])
async def test_a_connection_that_shall_end_is_closed_even_if_the_server_leaves_it_open(reply: bytes) -> None:
    async with serving(answering(reply)) as server, make_client(server.url) as client:
        assert (await client.get("/")).body == b"1"
        await until(lambda: server.num_gone == 1)
        assert client.num_connections == 0
        await client.get("/")
        assert server.num_connections == 2


async def test_what_was_idle_for_too_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(http, "time", clock)
    async with serving(numbering) as server, make_client(server.url, PATIENT._replace(idle_s=4.0)) as client:
        bodies: list[bytes] = []
        for now in (0.0, 3.9, 7.8, 12.0):
            clock.now = now
            bodies.append((await client.get("/")).body)
        assert bodies == [b"0", b"0", b"0", b"1"]
        await until(lambda: server.num_gone == 1)


async def test_connections_that_are_too_many_are_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(http, "time", clock)
    async with serving(numbering) as server, make_client(server.url, PATIENT._replace(idle_s=4.0)) as client:
        await asyncio.gather(*(client.get("/") for _ in range(5)))
        for now in (3.0, 6.0):
            clock.now = now
            await client.get("/")
        await until(lambda: server.num_gone == 4)
        assert server.num_connections == 5
        await until(lambda: client.num_connections == 1)


async def test_what_the_server_closed_is_not_used_again() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply_of(b"%d" % peer.number))
        peer.end()

    async with serving(handler) as server, make_client(server.url) as client:
        for number in range(3):
            assert (await client.get("/")).body == b"%d" % number
            await until(lambda: client.num_connections == 0)
    assert server.num_connections == 3


async def test_what_nobody_asked_for_is_not_the_answer_to_the_next_request() -> None:
    is_idle = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply_of(b"%d" % peer.number))
        await is_idle.wait()
        await peer.send(reply_of(b"not asked for"))
        await peer.gone()

    async with serving(handler) as server, make_client(server.url) as client:
        assert (await client.get("/")).body == b"0"
        is_idle.set()
        await until(lambda: server.num_gone == 1)
        assert client.num_connections == 0
        assert (await client.get("/")).body == b"1"


@pytest.mark.parametrize("surplus", [reply_of(b"not asked for", "X-Evil: 1"), b"HTTP/1.1 200 OK\r\nX-Evil: 1\r\nX-", b"H", b"\x00garbage"])
async def test_what_stands_behind_an_answer_is_not_the_answer_to_the_next_request(surplus: bytes) -> None:
    async with serving(then_silent(reply_of(b"asked for") + surplus)) as server, make_client(server.url) as client:
        for number in range(1, 3):
            reply = await client.get("/")
            assert reply.body == b"asked for"
            assert reply.header("x-evil") is None
            await until(lambda number=number: server.num_gone == number)
        assert client.num_connections == 0


# Time limits.


async def test_no_answer_in_time() -> None:
    with pytest.raises(TimedOutError, match=r"no answer within 0\.05 s"):
        await ask(silent, Limits(total_s=0.05, stall_s=30))


@pytest.mark.parametrize("beginning", [HALF, HALF[:20], CHUNKED[:-20], ENDLESS, INTERIM + HALF, INTERIM[:-30]])
async def test_an_answer_that_stops_in_the_middle(beginning: bytes) -> None:
    with pytest.raises(TimedOutError, match=r"stopped in the middle for 0\.05 s"):
        await ask(then_silent(beginning), Limits(total_s=30, stall_s=0.05))


@pytest.mark.parametrize("first", [b"", INTERIM])
async def test_an_answer_that_has_not_begun_does_not_stall(first: bytes) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(first)
        await asyncio.sleep(0.1)
        await peer.send(reply_of(b"late"))

    assert (await ask(handler, Limits(total_s=30, stall_s=0.05))).body == b"late"


async def test_an_answer_that_drips_is_waited_for_until_the_whole_time_is_over() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply_of(b"x" * 100)[:-100])
        while True:
            await asyncio.sleep(0.02)
            await peer.send(b"x")

    with pytest.raises(TimedOutError, match="no answer within"):
        await ask(handler, Limits(total_s=0.2, stall_s=0.15))


async def test_the_server_is_told_that_time_is_up() -> None:
    async with serving(silent) as server, make_client(server.url, Limits(total_s=0.05, stall_s=30)) as client:
        with pytest.raises(TimedOutError):
            await client.get("/")
        await until(lambda: server.num_gone == 1)
        assert client.num_connections == 0


# Broken connections and servers.


async def test_each_of_those_under_way_has_its_own_time() -> None:
    async with serving(silent) as server, make_client(server.url, Limits(total_s=0.2, stall_s=30)) as client:
        first = asyncio.create_task(client.post("/", b""))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(client.post("/", b""))
        with pytest.raises(TimedOutError):
            await first
        assert not second.done()
        with pytest.raises(TimedOutError):
            await second
        with pytest.raises(TimedOutError):  # also when nobody had been under way for a moment
            await client.post("/", b"")
        assert client.num_connections == 0


@pytest.mark.parametrize("beginning", [b"", HALF[:20], HALF, CHUNKED[:-20], ENDLESS, INTERIM])
async def test_a_reset_before_and_in_the_middle_of_an_answer(beginning: bytes) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(beginning)
        peer.reset()

    with pytest.raises(DroppedError, match="reset"):
        await ask(handler)


@pytest.mark.parametrize(
    ("beginning", "is_middle"),
    [(b"", False), (INTERIM, False), (HALF[:20], True), (HALF, True), (CHUNKED[:-20], True), (CHUNKED[:50], True)],
)
async def test_an_answer_cut_short_is_none(beginning: bytes, is_middle: bool) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(beginning)
        peer.end()

    with pytest.raises(DroppedError, match="the server closed the connection" + " in the middle of its answer" * is_middle + "$"):
        await ask(handler)


async def test_the_end_of_a_connection_is_not_the_last_answer_once_more() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await peer.request()
        peer.end()

    async with serving(handler) as server, make_client(server.url) as client:
        assert (await client.get("/")).status == 204
        with pytest.raises(DroppedError):
            await client.get("/")


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x00\xa5",
        b"\x00" * 100,
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    ],
)
async def test_garbage_is_no_answer_and_its_connection_is_closed(garbage: bytes) -> None:
    async with serving(then_silent(garbage)) as server, make_client(server.url) as client:
        with pytest.raises(GarbledError):
            await client.get("/")
        await until(lambda: server.num_gone == 1)
        assert client.num_connections == 0


@pytest.mark.parametrize("head", [b"Content-Length: 2000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n7d0\r\n", b"\r\n", b"X-Long: "])
async def test_an_answer_that_would_fill_the_memory(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_REPLY_BYTES", 1000)
    with pytest.raises(GarbledError, match="an answer of more than 1000 bytes"):
        await ask(then_silent(b"HTTP/1.1 200 OK\r\n" + head, b"x" * 600, b"x" * 600))


async def test_the_size_of_one_answer_is_not_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_REPLY_BYTES", 1000)
    async with serving(answering(reply_of(b"x" * 900))) as server, make_client(server.url) as client:
        assert [len((await client.get("/")).body) for _ in range(3)] == [900] * 3
        assert server.num_connections == 1


# Who is not there.


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.parametrize(
    ("host", "said"), [("127.0.0.1", "refused|failed"), ("[::1%nowhere]", "."), ("a" * 64, "no name of a host"), ("a..b", ".")]
)
async def test_who_cannot_be_reached(host: str, said: str) -> None:
    async with make_client(f"http://{host}:{free_port()}") as client:
        with pytest.raises(UnreachableError, match=said):
            await client.get("/")
        assert client.num_connections == 0


async def test_a_server_that_never_speaks_tls_is_not_waited_for_for_ever() -> None:
    limits = PATIENT._replace(connect_s=0.05)
    async with serving(silent) as server, make_client(f"https://127.0.0.1:{server.port}", limits) as client:
        with pytest.raises(UnreachableError, match=r"no connection within 0\.05 s"):
            await client.get("/")
        await until(lambda: server.num_gone == 1)


async def test_a_server_that_speaks_no_tls() -> None:
    async def handler(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.gone()

    async with serving(handler) as server, make_client(f"https://127.0.0.1:{server.port}") as client:
        with pytest.raises(UnreachableError, match=r"(?i)ssl"):
            await client.get("/")
        assert client.num_connections == 0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signed by itself, with its key in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=here -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([openssl, *options.split(), "-keyout", file, "-out", file.with_suffix(".crt")], check=True, capture_output=True)
    with file.open("a") as both:
        both.write(file.with_suffix(".crt").read_text())
    return file


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def test_a_certificate_nobody_vouches_for_is_not_trusted(certificate: Path) -> None:
    async with serving(numbering, context=server_context(certificate)) as server, make_client(f"https://127.0.0.1:{server.port}") as client:
        with pytest.raises(UnreachableError, match="self-signed certificate"):
            await client.get("/")
        assert client.num_connections == 0


async def test_tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # where a user puts an authority of their own
    async with serving(numbering, context=server_context(certificate)) as server, make_client(f"https://127.0.0.1:{server.port}") as client:
        assert [(await client.post("/", b"{}")).body for _ in range(3)] == [b"0"] * 3


# Cancelled, closed.


async def test_cancelled_while_connecting() -> None:
    async with serving(silent) as server, make_client(f"https://127.0.0.1:{server.port}") as client:
        request = asyncio.create_task(client.get("/"))
        await until(lambda: server.num_connections == 1)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await until(lambda: server.num_gone == 1)
        assert client.num_connections == 0


@pytest.mark.parametrize("beginning", [b"", INTERIM, HALF, ENDLESS])
async def test_cancelled_while_waiting_and_reading(beginning: bytes) -> None:
    has_begun = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(beginning)
        has_begun.set()
        await peer.gone()

    async with serving(handler) as server, make_client(server.url) as client:
        request = asyncio.create_task(client.get("/"))
        await has_begun.wait()
        assert client.num_connections == 1
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await until(lambda: server.num_gone == 1)
        assert client.num_connections == 0


@pytest.mark.parametrize("beginning", [b"", HALF, ENDLESS])
async def test_closed_with_a_request_under_way(beginning: bytes) -> None:
    has_begun = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(beginning)
        has_begun.set()
        await peer.gone()

    async with serving(handler) as server, make_client(server.url) as client:
        request = asyncio.create_task(client.get("/"))
        await has_begun.wait()
        client.close()
        with pytest.raises(DroppedError):  # not what had come of an answer without length
            await request
        await until(lambda: server.num_gone == 1)
        assert client.num_connections == 0


async def test_closed_while_connecting() -> None:
    async with serving(numbering) as server, make_client(server.url) as client:
        request = asyncio.create_task(client.get("/"))
        await asyncio.sleep(0)
        client.close()
        with pytest.raises(UnreachableError, match="the client was closed"):
            await request
        await until(lambda: server.num_gone == 1)
        assert client.num_connections == 0


async def test_closing_closes_what_is_idle() -> None:
    async with serving(numbering) as server, make_client(server.url) as client:
        await asyncio.gather(*(client.get("/") for _ in range(3)))
        client.close()
        await until(lambda: server.num_gone == 3)
