"""What is left when all but the exchange is taken away: bare loops that send the engine's own requests and throw the answers away.

    python -m benchmarks.ceilings --base-url URL --client httptools --requests 20000 --in-flight 64

For `benchmarks.engine`, as bounds of what any client in Python can reach on the same requests, server and core. `engine.teacher.http` is
the engine's client with its pool, limits and errors; `httptools` is a protocol of asyncio (uvloop) that writes the next request when llhttp
says that an answer is whole: no tasks, no limits, no errors. Bodies are made before the clock starts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from benchmarks.engine_client import make_config, make_prompter, make_prompts
from engine.teacher.http import HttpClient, Limits
from engine.teacher.teacher import write_body

NAMES = ("engine.teacher.http", "httptools")
PATH = "/chat/completions"
DISTINCT_PROMPTS = 256
"""As many focuses as the engine's report has."""


def make_bodies(base_url: str, count: int) -> list[bytes]:
    """What the engine would send: all differ, by their seed."""
    prompter = make_prompter(make_config(base_url, 2 * count, None))
    prompts = make_prompts(DISTINCT_PROMPTS)
    requests = (prompter.request(prompts[number % DISTINCT_PROMPTS], "1 0", number) for number in range(count))
    return [write_body(request, request.model) for request in requests]


async def over_engine_http(base_url: str, bodies: list[bytes], in_flight: int) -> int:
    left = iter(bodies)
    answered = 0

    async def work(client: HttpClient) -> None:
        nonlocal answered
        for body in left:
            reply = await client.post(PATH, body)
            answered += reply.status == 200

    async with HttpClient(base_url, Limits(total_s=600, stall_s=120), {}) as client, asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(work(client))
    return answered


class _Exchange(asyncio.Protocol):
    """One connection that is never idle."""

    def __init__(self, head: bytes, left: Iterator[bytes], done: asyncio.Future[None]) -> None:
        self.answered = 0
        self.done = done
        self._head = head
        self._left = left
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def on_message_complete(self) -> None:
        self.answered += self._parser.get_status_code() == 200
        self._send()

    def _send(self) -> None:
        body = next(self._left, None)
        if body is None:
            self.done.set_result(None)
            self._transport.close()
        else:
            self._transport.write(self._head % len(body) + body)


async def over_httptools(base_url: str, bodies: list[bytes], in_flight: int) -> int:
    parts, loop, left = urlsplit(base_url), asyncio.get_running_loop(), iter(bodies)
    lines = (f"POST {parts.path}{PATH} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json", "Content-Length: %d")
    head = "".join(f"{line}\r\n" for line in (*lines, "")).encode()
    exchanges = [_Exchange(head, left, loop.create_future()) for _ in range(in_flight)]
    assert parts.hostname is not None, f"no host in {base_url}"
    for exchange in exchanges:
        await loop.create_connection(lambda exchange=exchange: exchange, parts.hostname, parts.port or 80)
    await asyncio.gather(*(exchange.done for exchange in exchanges))
    return sum(exchange.answered for exchange in exchanges)


async def measure(client: str, base_url: str, num_requests: int, in_flight: int) -> dict[str, Any]:
    bodies = make_bodies(base_url, num_requests)
    run = {"engine.teacher.http": over_engine_http, "httptools": over_httptools}[client]
    started, cpu_s = time.perf_counter(), time.process_time()
    answered = await run(base_url, bodies, in_flight)
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    assert answered == num_requests, (answered, num_requests)
    return {
        "completions": answered,
        "completions_per_s": answered / wall_s,
        "cpu_s_per_1k": 1000 * cpu_s / answered,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--client", choices=NAMES, required=True)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--in-flight", type=int, default=64)
    options = parser.parse_args()
    print(json.dumps(uvloop.run(measure(options.client, options.base_url, options.requests, options.in_flight)), indent=2))


if __name__ == "__main__":
    main()
