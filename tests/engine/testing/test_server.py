from __future__ import annotations

import asyncio
import gc
import json
import signal
import subprocess
import sys
import time
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, cast

import aiohttp
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.prompting import label_schema, rows_schema
from engine.teacher.metrics import parse_gauges
from engine.testing.protocol import MAX_AHEAD, Connection, Exchange
from engine.testing.server import ScriptedServer

LABELS = ("card_lost", "card_stolen")


def make_body(seed: int | None = 0, *, content: str = "Write some.", num_rows: int = 2, **changes: Any) -> dict[str, Any]:
    schema = json.loads(rows_schema(LABELS, num_rows))
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    body = {
        "model": "scripted",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 64,
        "seed": seed,
        "response_format": form,
    }
    return {key: value for key, value in (body | changes).items() if value is not None}


def make_request(body: bytes, *headers: str, method: str = "POST", path: str = "/v1/chat/completions") -> bytes:
    head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *headers])
    return f"{head}\r\n\r\n".encode() + body


class Client:
    """Asks a scripted server over pooled connections."""

    def __init__(self, server: ScriptedServer, session: aiohttp.ClientSession) -> None:
        self._url = server.base_url.removesuffix("/v1")
        self._session = session

    async def send(self, method: str, path: str, body: object = None) -> tuple[int, bytes, str | None]:
        """Status, body, and when to come back."""
        async with self._session.request(method, self._url + path, json=body) as response:
            return response.status, await response.read(), response.headers.get("Retry-After")

    async def get(self, path: str) -> Any:
        return json.loads((await self.send("GET", path))[1])

    async def ask(self, seed: int = 0, **changes: Any) -> dict[str, Any]:
        status, content, _ = await self.send("POST", "/v1/chat/completions", make_body(seed, **changes))
        assert status == 200, content
        return json.loads(content)

    async def texts(self, seed: int = 0, **changes: Any) -> list[str]:
        return [choice["message"]["content"] for choice in (await self.ask(seed, **changes))["choices"]]

    async def end_of(self, seed: int = 0, **changes: Any) -> str:
        """What became of a request, in a word."""
        try:
            status, content, _ = await self.send("POST", "/v1/chat/completions", make_body(seed, **changes))
        except aiohttp.ClientError:
            return "dropped"
        if status != 200:
            return str(status)
        try:
            choice = json.loads(content)["choices"][0]
        except ValueError:
            return "no reply"
        if choice["finish_reason"] == "length":
            return "cut"
        try:
            return "ok" if all(row["label"] in LABELS for row in json.loads(choice["message"]["content"])) else "no rows"
        except (ValueError, TypeError):
            return "no rows"


@asynccontextmanager
async def asking(*behaviours: str, **options: Any) -> AsyncGenerator[tuple[ScriptedServer, Client]]:
    async with (
        ScriptedServer(behaviours, **options) as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield server, Client(server, session)


async def until(is_so: Callable[[], bool]) -> None:
    """The server is in this loop: each turn brings what its sockets have."""
    while not is_so():  # noqa: ASYNC110 - the server counts, it does not tell
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("behaviours", "expected"),
    [
        (["instant"], ["ok", "ok", "ok", "ok"]),
        (["latency:0.001"], ["ok", "ok", "ok", "ok"]),
        (["status:503:2"], ["ok", "503", "ok", "503"]),
        (["status:400:3"], ["ok", "ok", "400", "ok"]),
        (["reset:2"], ["ok", "dropped", "ok", "dropped"]),
        (["malformed:2"], ["ok", "no reply", "ok", "no reply"]),
        (["truncated:2"], ["ok", "cut", "ok", "cut"]),
        (["badjson:2"], ["ok", "no rows", "ok", "no rows"]),
        (["drip:0.001:2"], ["ok", "ok", "ok", "ok"]),
        (["status:500:2", "malformed:3"], ["ok", "500", "no reply", "500"]),
        (["vllm:1:100000"], ["ok", "ok", "ok", "ok"]),
        (["die:2"], ["ok", "ok", "dropped", "dropped"]),
    ],
)
async def test_behaves_as_told(behaviours: list[str], expected: list[str]) -> None:
    async with asking(*behaviours) as (server, client):
        assert [await client.end_of(seed) for seed in range(4)] == expected
        assert server.in_flight == 0


@pytest.mark.parametrize("behaviour", ["status:429:1", "status:503:1", "overload:0"])
async def test_refusing_for_now_says_when_to_come_back(behaviour: str) -> None:
    async with asking(behaviour) as (_, client):
        status, content, retry_after = await client.send("POST", "/v1/chat/completions", make_body())
    assert (status in (429, 503), retry_after) == (True, "1")
    assert json.loads(content)["error"]["code"] == status


async def test_equal_requests_get_equal_rows_and_others_get_others() -> None:
    async with asking() as (_, client):
        one, again = await client.texts(1), await client.texts(1)
        others = [await client.texts(2), await client.texts(1, content="Write more."), await client.texts(1, temperature=0.5)]
    assert one == again
    rows = [row["text"] for (text,) in [one, *others] for row in json.loads(text)]
    assert len(set(rows)) == len(rows) == 8


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(-(2**63), 2**63 - 1) | st.none(), n=st.integers(1, 6))
def test_choices_are_what_single_draws_would_be(seed: int | None, n: int) -> None:
    async def main() -> None:
        async with asking() as (server, client):
            merged = await client.ask(seed=cast(int, seed), n=n)
            single = [await client.ask(seed=(seed or 0) + place) for place in range(n)]
            assert server.num_sequences == 2 * n
        assert [choice["index"] for choice in merged["choices"]] == list(range(n))
        assert [choice["message"] for choice in merged["choices"]] == [reply["choices"][0]["message"] for reply in single]
        assert merged["usage"]["completion_tokens"] == sum(reply["usage"]["completion_tokens"] for reply in single)
        assert {merged["usage"]["prompt_tokens"]} == {reply["usage"]["prompt_tokens"] for reply in single} == {len("Write some.") // 4}

    asyncio.run(main())


async def test_rows_are_all_different_and_of_the_labels_asked_for() -> None:
    async with asking() as (_, client):
        replies = [await client.texts(seed, content=f"{seed % 10}", n=10) for seed in range(0, 200, 10)]
    rows = [row for texts in replies for text in texts for row in json.loads(text)]
    assert len({row["text"] for row in rows}) == len(rows) == 400
    assert {row["label"] for row in rows} == set(LABELS)


async def test_one_label_where_that_is_asked_for_and_anything_where_nothing_is() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": json.loads(label_schema(LABELS))}}
    async with asking() as (_, client):
        (label,) = await client.texts(response_format=form)
        (free,) = await client.texts(response_format=None)
    assert json.loads(label)["label"] in LABELS
    assert json.loads(free)


async def test_the_last_body_is_kept_for_tests_to_look_at() -> None:
    async with asking() as (server, client):
        assert server.last_body == {}
        await client.ask(5)
        assert server.last_body == make_body(5)


# What is wrong with a request


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "truncated"),
        (b"[]", 400, "Expected `object`"),
        (b'{"model": "scripted"}', 400, "messages"),
        (json.dumps(make_body(n=0)).encode(), 400, "n is from 1"),
        (json.dumps(make_body(n=10**9)).encode(), 400, "n is from 1"),
        (json.dumps(make_body(stream=True)).encode(), 400, "does not stream"),
        (json.dumps(make_body(model="another")).encode(), 404, "`another` does not exist"),
    ],
)
async def test_what_cannot_be_answered_is_refused_in_openais_words(body: bytes, status: int, said: str) -> None:
    async with asking() as (server, _):
        content = await exchange(server, make_request(body, "Connection: close"))
    head, _, body = content.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    error = json.loads(body)["error"]
    assert said in error["message"]
    assert error["code"] == status
    assert (server.num_requests, server.in_flight, server.statistics().statuses) == (1, 0, {status: 1})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/v1/chat/completions", 405), ("POST", "/health", 405), ("GET", "/health?why=not", 200)],
)
async def test_routes(method: str, path: str, status: int) -> None:
    async with asking() as (_, client):
        assert (await client.send(method, path))[0] == status


async def test_only_who_has_the_key_is_answered() -> None:
    async with asking(api_key="secret") as (server, client):
        assert (await client.send("GET", "/v1/models"))[0] == 401
        assert await client.end_of() == "401"
        assert (await client.send("GET", "/health"))[0] == 200
        request = make_request(json.dumps(make_body()).encode(), "authorization: Bearer secret", "Connection: close")
        assert (await exchange(server, request)).startswith(b"HTTP/1.1 200 ")
        assert server.statistics().statuses == {401: 1, 200: 1}


async def test_lists_its_model() -> None:
    async with asking(model="another", root="/models/another") as (_, client):
        assert (await client.get("/v1/models"))["data"] == [{"id": "another", "object": "model", "root": "/models/another"}]


# HTTP


async def exchange(server: ScriptedServer, data: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)
    content = await reader.read()
    writer.close()
    await writer.wait_closed()
    return content


class Recorder:
    """Notes what it is asked, and answers at once, or when the test says so."""

    def __init__(self, *, is_late: bool = False) -> None:
        self.asked: list[tuple[bytes, bytes, bytes]] = []
        self.open: list[Exchange] = []
        self._is_late = is_late

    def connected(self, connection: Connection) -> None: ...

    def disconnected(self, connection: Connection, exchange: Exchange | None) -> None: ...

    def handle(self, exchange: Exchange) -> None:
        self.asked.append((exchange.method, exchange.path, exchange.body))
        self.open.append(exchange)
        if not self._is_late:
            self.answer()

    def answer(self) -> None:
        exchange = self.open.pop()
        exchange.reply(200, exchange.path)


class Wire(asyncio.Transport):
    """The server's end of a connection without a network."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_closed = False
        self.is_read = True

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


CHUNKED = b"POST /chunked HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n3\r\nefg\r\n0\r\n\r\n"
SENT = make_request(b"", method="GET", path="/a?b=c") + make_request(b"x" * 9, path="/plain") + CHUNKED + make_request(b"last")
ASKED = [
    (b"GET", b"/a", b""),
    (b"POST", b"/plain", b"x" * 9),
    (b"POST", b"/chunked", b"abcdefg"),
    (b"POST", b"/v1/chat/completions", b"last"),
]


@given(cuts=st.lists(st.integers(0, len(SENT)), max_size=12), is_late=st.booleans())
def test_requests_are_handed_over_whole_and_in_order_wherever_they_are_cut(cuts: list[int], is_late: bool) -> None:
    recorder, wire = Recorder(is_late=is_late), Wire()
    connection = Connection(recorder)
    connection.connection_made(wire)
    places = [0, *sorted(cuts), len(SENT)]
    for start, end in pairwise(places):
        connection.data_received(SENT[start:end])
    while recorder.open:
        assert len(recorder.open) == 1
        recorder.answer()
    assert recorder.asked == ASKED
    assert [reply.rpartition(b"\r\n\r\n")[2] for reply in wire.sent.split(b"HTTP/1.1 ")[1:]] == [path for _, path, _ in ASKED]
    assert not wire.is_closed


def test_every_single_cut() -> None:
    for place in range(len(SENT)):
        recorder = Recorder()
        connection = Connection(recorder)
        connection.connection_made(Wire())
        connection.data_received(SENT[:place])
        connection.data_received(SENT[place:])
        assert recorder.asked == ASKED


def test_who_sends_too_far_ahead_is_read_no_further_until_answered() -> None:
    recorder, wire = Recorder(is_late=True), Wire()
    connection = Connection(recorder)
    connection.connection_made(wire)
    connection.data_received(make_request(b"") * (MAX_AHEAD + 2))
    assert not wire.is_read
    while recorder.open:
        recorder.answer()
    assert wire.is_read
    assert len(recorder.asked) == MAX_AHEAD + 2


def test_who_does_not_read_its_answers_gets_no_more() -> None:
    recorder, wire = Recorder(), Wire()
    connection = Connection(recorder)
    connection.connection_made(wire)
    connection.pause_writing()
    connection.data_received(make_request(b"") * 2)
    assert recorder.asked == []
    connection.resume_writing()
    assert len(recorder.asked) == 2


def test_thousands_sent_ahead_in_one_piece() -> None:
    recorder = Recorder()
    connection = Connection(recorder)
    connection.connection_made(Wire())
    connection.data_received(make_request(b"") * 5000)
    assert len(recorder.asked) == 5000


async def test_requests_sent_ahead_are_answered_in_order() -> None:
    bodies = [json.dumps(make_body(seed)).encode() for seed in range(5)]
    async with asking("latency:0.001") as (server, client):
        content = await exchange(server, b"".join(map(make_request, bodies)) + make_request(b"", "Connection: close", path="/health"))
        alone = [await client.texts(seed) for seed in range(5)]
    *replies, last = content.split(b"HTTP/1.1 ")[1:]
    texts = [[json.loads(reply.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"]] for reply in replies]
    assert texts == alone
    assert last.startswith(b"405 ")


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n", b"\x16\x03\x01\x00\xa5\x01\x00"])
async def test_what_is_no_http_is_refused_and_closed(data: bytes) -> None:
    async with asking() as (server, _):
        assert (await exchange(server, data)).startswith(b"HTTP/1.1 400 ")


async def test_a_connection_is_kept_unless_the_client_says_otherwise() -> None:
    async with asking() as (server, client):
        for seed in range(3):
            await client.ask(seed)
        assert server.num_connections == 1
        for header in ("Connection: close", "Expect: 100-continue\r\nConnection: close"):
            content = await exchange(server, make_request(json.dumps(make_body()).encode(), header))
            assert b"HTTP/1.1 200 OK" in content
            assert b"Connection: close" in content
        assert content.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        await until(lambda: server.num_connections == 1)
        assert server.peak_connections == 2


async def test_nothing_is_left_of_a_connection() -> None:
    connections: list[weakref.ref[Connection]] = []

    class Noting(ScriptedServer):
        def connected(self, connection: Connection) -> None:
            connections.append(weakref.ref(connection))
            super().connected(connection)

    async with Noting() as server:
        gc.collect()
        gc.disable()
        try:
            await exchange(server, make_request(json.dumps(make_body()).encode(), "Connection: close"))
            await until(lambda: not server.num_connections)
            await until(lambda: connections[0]() is None)
        finally:
            gc.enable()


# Behaviours that take time


async def start(server: ScriptedServer, body: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request of which the test reads the answer itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(make_request(json.dumps(body).encode()))
    return reader, writer


async def test_a_slow_drip_comes_in_pieces_and_is_whole_in_the_end() -> None:
    async with asking("drip:0.2:1") as (server, _):
        began = time.monotonic()
        reader, writer = await start(server, make_body())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].split()[0])
        pieces: list[bytes] = []
        while sum(map(len, pieces)) < length:
            pieces.append(await reader.read(2**16))
        assert time.monotonic() - began >= 0.15  # its clock may count in milliseconds
        assert len(pieces) >= 3
        assert json.loads(b"".join(pieces))["choices"][0]["finish_reason"] == "stop"
        await until(lambda: server.in_flight == 0)
        assert (server.num_aborted, server.statistics().statuses) == (0, {200: 1})
        writer.close()


@pytest.mark.parametrize("behaviour", ["latency:60", "stall:1", "drip:60:1", "vllm:1:0.01"])
async def test_a_client_that_goes_away_ends_its_request(behaviour: str) -> None:
    async with asking(behaviour) as (server, client):
        _, writer = await start(server, make_body(n=2))
        await until(lambda: server.in_flight == 1)
        assert (await client.get("/scripted/statistics"))["in_flight"] == 1
        writer.close()
        await until(lambda: server.in_flight == 0)
        assert server.num_aborted == 1
        gauges = parse_gauges((await client.send("GET", "/metrics"))[1].decode())
        assert gauges is not None
        assert (gauges.running, gauges.waiting) == (0, 0)


class Book:
    """A ledger that keeps the seeds of what was asked, and of what was answered with which texts."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.texts: dict[int, list[str]] = {}

    def asked(self, body: bytes) -> None:
        self.seeds.append(json.loads(body)["seed"])

    def answered(self, body: bytes, texts: Sequence[str]) -> None:
        self.texts[json.loads(body)["seed"]] = [*texts]


async def test_a_ledger_is_told_of_all_that_is_asked_and_of_every_whole_answer() -> None:
    book = Book()
    async with asking("drip:0.01:1", "reset:2", "truncated:3", ledger=book) as (_, client):
        first = await client.texts(1, n=2)
        assert await client.end_of(2) == "dropped"
        third = await client.texts(3)
    assert (book.seeds, book.texts) == ([1, 2, 3], {1: first, 3: third})


async def test_an_answer_that_its_client_did_not_wait_for_is_not_in_the_ledger() -> None:
    book = Book()
    async with asking("drip:60:1", ledger=book) as (server, _):
        _, writer = await start(server, make_body(4))
        await until(lambda: server.in_flight == 1)
        writer.close()
        await until(lambda: server.in_flight == 0)
    assert (book.seeds, book.texts) == ([4], {})


async def test_a_stalled_answer_begins_and_goes_no_further() -> None:
    async with asking("stall:2") as (server, client):
        assert await client.end_of() == "ok"
        reader, writer = await start(server, make_body())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].split()[0])
        await reader.readexactly(length // 2)
        assert await client.end_of() == "ok"
        assert (server.in_flight, reader.at_eof()) == (1, False)
        writer.close()


async def test_what_is_beyond_the_limit_is_refused_and_sequences_are_what_counts() -> None:
    async with asking("overload:3", "vllm:2:4000") as (server, client):
        await client.send("POST", "/scripted/capacity", {"factor": 1e-6})
        waiting = [asyncio.create_task(client.end_of(seed)) for seed in range(5)]
        await until(lambda: server.num_requests == 5)
        await client.send("POST", "/scripted/capacity", {"factor": 1.0})
        assert Counter(await asyncio.gather(*waiting)) == {"ok": 3, "503": 2}
        assert await client.end_of(n=4) == "503"
        assert await client.end_of(n=3) == "ok"
        assert server.statistics().statuses == {200: 4, 503: 3}


async def test_what_is_longer_than_the_context_is_refused_in_words_that_say_how_long() -> None:
    async with asking("context:100") as (_, client):
        assert await client.end_of(content="x" * 4 * 36, max_tokens=64) == "ok"
        status, content, _ = await client.send("POST", "/v1/chat/completions", make_body(content="x" * 4 * 37, max_tokens=64))
    assert status == 400
    assert "maximum context length is 100 tokens. However, you requested 101 tokens" in json.loads(content)["error"]["message"]


async def test_a_server_that_starts_says_so_on_every_route_but_the_scripts_own() -> None:
    async with asking("slowstart:60") as (server, client):
        statuses = [(await client.send("GET", path))[0] for path in ("/health", "/v1/models", "/metrics", "/scripted/statistics")]
        assert statuses == [503, 503, 503, 200]
        assert await client.end_of() == "503"
        assert server.num_requests == 0  # who came too early is not counted, and moves no EVERY


async def test_a_slow_start_ends() -> None:
    began = time.monotonic()
    async with asking("slowstart:0.05") as (_, client):
        while (await client.send("GET", "/health"))[0] == 503:
            pass
        assert time.monotonic() - began >= 0.05
        assert await client.end_of() == "ok"


async def test_a_server_that_dies_takes_all_connections_along() -> None:
    async with asking("die:1", "latency:60") as (server, client):
        waiting = asyncio.create_task(client.end_of(0))
        await until(lambda: server.in_flight == 1)
        assert await client.end_of(1) == "dropped"
        assert await waiting == "dropped"
        await until(lambda: server.num_connections == 0)
        assert (server.in_flight, server.num_aborted) == (0, 0)


async def test_leaving_the_block_drops_what_is_open() -> None:
    async with asking("stall:1") as (server, client):
        waiting = asyncio.create_task(client.end_of())
        await until(lambda: server.in_flight == 1)
        await server.__aexit__(None, None, None)
        assert await waiting == "dropped"
        assert (server.num_connections, server.in_flight) == (0, 0)


# Like a vLLM


async def test_answers_like_a_vllm_and_says_how_it_is() -> None:
    async with asking("vllm:8:100000:2", "tokens:10:20") as (_, client):
        replies = await asyncio.gather(*(client.ask(seed, n=2) for seed in range(4)))
        gauges = parse_gauges((await client.send("GET", "/metrics"))[1].decode())
        exact = await client.ask(n=3, max_tokens=7, ignore_eos=True)
    for reply in replies:
        assert 20 <= reply["usage"]["completion_tokens"] <= 40
    assert exact["usage"]["completion_tokens"] == 21
    assert gauges is not None
    assert (gauges.running, gauges.waiting) == (0, 0)
    assert gauges.generation_tokens == pytest.approx(sum(reply["usage"]["completion_tokens"] for reply in replies), abs=1)


async def test_a_vllm_runs_as_many_as_it_may_and_lets_the_rest_wait() -> None:
    async with asking("vllm:2:4000:2:1000") as (server, client):
        await client.send("POST", "/scripted/capacity", {"factor": 1e-6})
        waiting = [asyncio.create_task(client.end_of(seed)) for seed in range(5)]
        await until(lambda: server.in_flight == 5)
        gauges = parse_gauges((await client.send("GET", "/metrics"))[1].decode())
        assert gauges is not None
        assert (gauges.running, gauges.waiting) == (2, 3)
        assert gauges.kv_cache_use > 0
        assert (await client.send("POST", "/scripted/capacity", {"factor": 1.0}))[0] == 200
        assert await asyncio.gather(*waiting) == ["ok"] * 5


async def test_what_its_memory_can_never_hold_is_refused() -> None:
    async with asking("vllm:8:1000:2:50") as (_, client):
        assert await client.end_of(content="x" * 400) == "400"


@pytest.mark.parametrize("body", [{}, {"factor": 0}, {"factor": "much"}])
async def test_a_capacity_that_is_none(body: object) -> None:
    async with asking("vllm:8:1000") as (_, client):
        assert (await client.send("POST", "/scripted/capacity", body))[0] == 400


async def test_only_a_vllm_has_a_capacity() -> None:
    async with asking() as (_, client):
        assert (await client.send("POST", "/scripted/capacity", {"factor": 2}))[0] == 409


async def test_without_a_model_the_metrics_say_what_is_true() -> None:
    async with asking("latency:60") as (server, client):
        _, writer = await start(server, make_body(n=3))
        await until(lambda: server.in_flight == 1)
        gauges = parse_gauges((await client.send("GET", "/metrics"))[1].decode())
        assert gauges is not None
        assert (gauges.running, gauges.waiting, gauges.generation_tokens) == (3, 0, 0)
        writer.close()
    async with asking() as (_, client):
        reply = await client.ask()
        gauges = parse_gauges((await client.send("GET", "/metrics"))[1].decode())
        assert gauges is not None
        assert (gauges.running, gauges.generation_tokens) == (0, reply["usage"]["completion_tokens"])
        assert gauges.prompt_tokens == reply["usage"]["prompt_tokens"]


# All together


async def test_when_it_misbehaves_in_every_way_at_once_every_request_is_accounted_for() -> None:
    told = ["status:500:7", "status:429:11", "reset:5", "malformed:6", "truncated:4", "badjson:3", "drip:0.02:8", "stall:299"]
    async with asking(*told, "overload:60", "vllm:32:100000:40:20000") as (server, client):
        ends = Counter(await asyncio.gather(*(client.end_of(seed, n=1 + seed % 2) for seed in range(298))))
        _, writer = await start(server, make_body())
        await until(lambda: server.in_flight == 1)
        writer.close()
        await until(lambda: server.in_flight == 0)
        seen = server.statistics()
        assert await client.get("/scripted/statistics") == json.loads(msgspec.json.encode(seen))
    answered = ends["ok"] + ends["no reply"] + ends["cut"] + ends["no rows"]
    assert seen.num_requests == ends.total() + 1 == 299
    assert seen.statuses == {200: answered, **{status: ends[str(status)] for status in (429, 500, 503) if ends[str(status)]}}
    assert sum(seen.statuses.values()) + ends["dropped"] + seen.num_aborted == 299
    assert seen.num_aborted == 1
    assert min(ends[end] for end in ("ok", "500", "429", "dropped", "no reply", "cut", "no rows")) > 0
    assert server.num_connections == 0


# As a program


def run_server(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "engine.testing.server", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_as_a_program_it_prints_where_it_listens_and_dies_for_good() -> None:
    async def ends(base_url: str) -> Sequence[str]:
        async with aiohttp.ClientSession() as session:
            client = Client(cast(ScriptedServer, type("At", (), {"base_url": base_url})), session)
            return [await client.end_of(seed) for seed in range(2)]

    with run_server("--behaviour", "die:1") as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["base_url"] == f"http://127.0.0.1:{said['port']}/v1"
        assert asyncio.run(ends(said["base_url"])) == ["ok", "dropped"]
        assert process.wait(10) == 1


def test_as_a_program_it_ends_quietly_when_interrupted() -> None:
    with run_server() as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, b"")


def test_as_a_program_it_says_what_is_no_behaviour() -> None:
    with run_server("--behaviour", "reset:0") as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert b"'reset:0' is no behaviour; EVERY is a whole number" in errors
