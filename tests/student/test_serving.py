"""The endpoint as a client meets it, on a real socket."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest

from engine.errors import UserError
from student.serving import ServingLimits, serving
from tests.student.test_batching import Numbers, settle


class Client:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def post(self, body: bytes | dict[str, Any]) -> tuple[int, Any]:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        async with self._session.post(f"{self.url}/predict", data=data) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> tuple[int, str]:
        async with self._session.get(self.url + path) as response:
            return response.status, await response.text()


LIMITS = ServingLimits(max_body_bytes=1000, max_texts=4, max_waiting=5)


@pytest.fixture
async def client() -> AsyncGenerator[Client]:
    async with serving(Numbers(), host="127.0.0.1", port=0, limits=LIMITS) as url, aiohttp.ClientSession() as session:
        yield Client(url, session)


async def test_labels_come_in_order_and_probabilities_when_asked_for(client: Client) -> None:
    assert await client.post({"texts": ["-1", "2"]}) == (
        200,
        {"predictions": [{"label": "b", "confidence": 1.0}, {"label": "a", "confidence": pytest.approx(7.389056)}]},
    )
    _, answer = await client.post({"texts": ["-1"], "probabilities": True})
    assert answer["predictions"][0]["probabilities"] == {"a": 0.367879, "b": 1.0}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"no json", 400, r"JSON is malformed.*; expected \{\"texts\""),
        (b"\xff", 400, "expected"),
        ({"texts": "one"}, 400, r"Expected `array`, got `str` - at `\$.texts`"),
        ({"texts": [1]}, 400, r"Expected `str \| array`"),
        ({"text": ["one"]}, 400, "unknown field `text`"),
        ({"texts": []}, 400, "texts is empty"),
        ({"texts": ["1"] * 5}, 400, "5 texts; expected 4 at most"),
        ({"texts": ["1" * 1000]}, 413, "larger than 1000 bytes"),
        ({"texts": ["no number"]}, 500, "the student failed"),
    ],
)
async def test_what_is_wrong_is_said(body: bytes | dict[str, Any], status: int, message: str, client: Client) -> None:
    found, answer = await client.post(body)
    assert found == status
    assert re.search(message, answer["error"])
    assert (await client.post({"texts": ["1"]}))[0] == 200


async def test_other_places_and_methods(client: Client) -> None:
    assert "expected POST /predict" in (await client.get("/"))[1]
    status, text = await client.get("/predict")
    assert (status, json.loads(text)["error"]) == (405, "GET is not for /predict; expected POST")


async def test_health_and_metrics(client: Client) -> None:
    await client.post({"texts": ["1", "2"]})
    await client.post({"texts": []})
    status, text = await client.get("/health")
    assert (status, json.loads(text)) == (200, {"status": "ok", "labels": ["a", "b"], "max_length": 8, "waiting": 0})
    _, metrics = await client.get("/metrics")
    for line in (
        'reflux_student_requests_total{status="200"} 1.0',
        'reflux_student_requests_total{status="400"} 1.0',
        "reflux_student_texts_total 2.0",
        "reflux_student_batch_texts_sum 2.0",
        "reflux_student_waiting_texts 0.0",
    ):
        assert line in metrics.splitlines()


async def test_too_many_get_a_503_and_a_stop_answers_what_was_taken() -> None:
    predictor = Numbers(held=True)
    async with aiohttp.ClientSession() as session:
        async with serving(predictor, host="127.0.0.1", port=0, batch_size=1, limits=LIMITS) as url:
            client = Client(url, session)
            taken = [asyncio.create_task(client.post({"texts": ["1", "2", "3"]}))]
            while (await client.get("/health"))[1].count('"waiting":2') == 0:
                await settle()
            taken.append(asyncio.create_task(client.post({"texts": ["4", "5", "6"]})))
            while (await client.get("/health"))[1].count('"waiting":5') == 0:
                await settle()
            assert await client.post({"texts": ["7"]}) == (503, {"error": "5 texts wait already, 5 may; try again, or send fewer at once"})
            predictor.may_go_on.set()
        assert [status for status, _ in await asyncio.gather(*taken)] == [200, 200]
    assert len(predictor.batches) == 6


async def test_a_port_in_use() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match="choose another --port"):
            async with serving(Numbers(), host="127.0.0.1", port=other.getsockname()[1]):
                pass
