"""Every text gets its own answer, however they come; who comes when too many wait is sent away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records import TaskKind
from engine.text import Content, whole
from student.batching import Batcher, BusyError
from student.predictions import AnyPredictions, Predictions


class Numbers:
    """A text is a number, and that is its log-probability. Computes a batch only when it may."""

    labels = ("a", "b")
    max_length = 8
    kind: TaskKind = "classification"

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[str]] = []
        self.may_go_on = threading.Event()
        if not held:
            self.may_go_on.set()

    def predict_texts(self, texts: Sequence[Content], batch_size: int = 64) -> Predictions:
        self.may_go_on.wait(5)
        self.batches.append([*map(whole, texts)])
        return Predictions(self.labels, np.array([[float(whole(text)), 0] for text in texts]), 0)


async def settle() -> None:
    """All that can run without the student's thread has run."""
    for _ in range(10):
        await asyncio.sleep(0)


def said(predictions: AnyPredictions) -> list[int]:
    return [int(row[0]) for row in predictions.log_probabilities]


async def test_what_comes_while_a_batch_is_computed_is_the_next_one() -> None:
    predictor = Numbers(held=True)
    async with Batcher(predictor, batch_size=4) as batcher:
        first = asyncio.create_task(batcher.predict(["0"]))
        await settle()
        others = [asyncio.create_task(batcher.predict([str(number)])) for number in range(1, 7)]
        await settle()
        assert batcher.num_waiting == 6
        predictor.may_go_on.set()
        assert [said(await asking) for asking in [first, *others]] == [[number] for number in range(7)]
    assert predictor.batches == [["0"], ["1", "2", "3", "4"], ["5", "6"]]


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 7))
def test_requests_of_any_size_get_their_own_answers(sizes: list[int], batch_size: int) -> None:
    async def ask_all() -> None:
        predictor = Numbers()
        async with Batcher(predictor, batch_size=batch_size) as batcher:
            requests = [[str(10 * index + number) for number in range(size)] for index, size in enumerate(sizes)]
            answers = await asyncio.gather(*map(batcher.predict, requests))
            assert [said(answer) for answer in answers] == [[int(text) for text in texts] for texts in requests]
            assert batcher.num_waiting == 0
        assert all(len(batch) <= batch_size for batch in predictor.batches)

    asyncio.run(ask_all())


async def test_too_many_are_sent_away_and_places_come_back() -> None:
    predictor = Numbers(held=True)
    async with Batcher(predictor, batch_size=1, max_waiting=2) as batcher:
        taken = asyncio.create_task(batcher.predict(["0"]))
        await settle()
        waiting = asyncio.create_task(batcher.predict(["1", "2"]))
        await settle()
        with pytest.raises(BusyError):
            await batcher.predict(["3"])
        waiting.cancel()
        await settle()
        assert batcher.num_waiting == 0
        again = asyncio.create_task(batcher.predict(["4"]))
        await settle()
        predictor.may_go_on.set()
        assert [said(await taken), said(await again)] == [[0], [4]]
    assert predictor.batches == [["0"], ["4"]]


async def test_a_batch_that_fails_fails_for_those_in_it_only() -> None:
    async with Batcher(Numbers(), batch_size=2) as batcher:
        failing = asyncio.create_task(batcher.predict(["1", "no number", "3"]))
        with pytest.raises(ValueError, match="no number"):
            await failing
        assert said(await batcher.predict(["4"])) == [4]
        assert batcher.num_waiting == 0


async def test_leaving_cancels_those_who_wait() -> None:
    predictor = Numbers(held=True)
    async with Batcher(predictor, batch_size=1) as batcher:
        waiting = [asyncio.create_task(batcher.predict([text])) for text in "012"]
        await settle()
    predictor.may_go_on.set()
    assert all(isinstance(ending, asyncio.CancelledError) for ending in await asyncio.gather(*waiting, return_exceptions=True))
