from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys

import pytest

from engine.endpoint import Endpoint
from engine.records import Completion, FailureReason
from engine.teacher import HttpTeacher, TeacherError, find_model
from engine.testing.server import Behaviour, ScriptedServer
from tests.engine.asking import make_request


async def ask(base_url: str, num_requests: int) -> list[str]:
    """What became of each request, one after another: `ok`, or the reason of its failure."""
    ends: list[str] = []
    async with HttpTeacher(Endpoint(base_url, "scripted"), timeout_s=10, concurrency=1) as teacher:
        for seed in range(num_requests):
            try:
                await teacher.complete(make_request(seed))
            except TeacherError as error:
                ends.append(str(error.reason))
            else:
                ends.append("ok")
    return ends


@pytest.mark.parametrize(
    ("behaviours", "expected"),
    [
        (["instant"], ["ok", "ok", "ok", "ok"]),
        (["latency:0.001"], ["ok", "ok", "ok", "ok"]),
        (["status:503:2"], ["ok", "overloaded", "ok", "overloaded"]),
        (["status:400:3"], ["ok", "ok", "refused", "ok"]),
        (["reset:2"], ["ok", "connection", "ok", "connection"]),
        (["malformed:2"], ["ok", "bad_reply", "ok", "bad_reply"]),
        (["status:500:2", "malformed:3"], ["ok", "server_error", "bad_reply", "server_error"]),
        (["die:2"], ["ok", "ok", "connection", "connection"]),
    ],
)
async def test_behaves_as_told(behaviours: list[str], expected: list[str]) -> None:
    async with ScriptedServer(behaviours) as server:
        assert await ask(server.base_url, 4) == expected


async def test_refusing_for_now_says_when_to_come_back() -> None:
    async with (
        ScriptedServer(["status:429:1"]) as server,
        HttpTeacher(Endpoint(server.base_url, "scripted"), timeout_s=10, concurrency=1) as teacher,
    ):
        with pytest.raises(TeacherError) as caught:
            await teacher.complete(make_request())
    assert caught.value.retry_after_s == 1
    assert caught.value.reason is FailureReason.OVERLOADED


async def test_equal_requests_get_equal_rows_and_others_get_others() -> None:
    async with ScriptedServer() as server, HttpTeacher(Endpoint(server.base_url, "scripted"), timeout_s=10, concurrency=3) as teacher:
        one, other, again = await asyncio.gather(*(teacher.complete(make_request(seed)) for seed in (1, 2, 1)))
    assert one.text == again.text
    assert not {row["text"] for row in json.loads(one.text)} & {row["text"] for row in json.loads(other.text)}


async def test_another_model_is_not_served() -> None:
    async with ScriptedServer(model="another") as server:
        assert (await find_model(Endpoint(server.base_url, "another"))).model == "another"


@pytest.mark.parametrize("text", ["nonsense", "", "reset", "status:503", "latency:soon", "latency:-1", "reset:0"])
def test_an_unknown_behaviour_is_a_mistake(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text!r} is no behaviour"):
        Behaviour.parse(text)


def test_as_a_program_it_prints_where_it_listens_and_dies_for_good() -> None:
    command = [sys.executable, "-m", "engine.testing.server", "--port", "0", "--behaviour", "die:1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["base_url"] == f"http://127.0.0.1:{said['port']}/v1"
        assert asyncio.run(ask(said["base_url"], 2)) == ["ok", "connection"]
        assert process.wait(10) == 1


def test_as_a_program_it_ends_quietly_when_interrupted() -> None:
    command = [sys.executable, "-m", "engine.testing.server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, b"")


async def test_a_completion_is_what_the_records_call_one() -> None:
    async with ScriptedServer() as server, HttpTeacher(Endpoint(server.base_url, "scripted"), timeout_s=10, concurrency=1) as teacher:
        assert isinstance(await teacher.complete(make_request()), Completion)
        assert (server.num_requests, server.in_flight, server.peak_in_flight) == (1, 0, 1)
