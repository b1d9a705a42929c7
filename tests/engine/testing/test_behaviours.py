from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.testing import behaviours as module
from engine.testing.behaviours import PARAMETERS, PLAIN, Behaviour, Behaviours, Ending, Generation, Treatment, garble
from engine.testing.token_rate import TokenRateModel


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nonsense", "there are: instant, latency, "),
        ("", "there are: "),
        ("reset", "the form is reset:EVERY"),
        ("instant:1", "the form is instant"),
        ("status:503", "the form is status:CODE:EVERY"),
        ("vllm:8", r"the form is vllm:KNEE:TOKENS_PER_S\[:MAX_RUNNING\[:KV_TOKENS\]\]"),
        ("vllm:8:100:4:1000:1", "the form is vllm:"),
        ("latency:soon", "SECONDS is a number of at least 0, not 'soon'"),
        ("latency:-1", "SECONDS is a number of at least 0, not '-1'"),
        ("latency:nan", "SECONDS is a number"),
        ("latency:inf", "SECONDS is a number"),
        ("reset:0", "EVERY is a whole number of at least 1, not '0'"),
        ("reset:1.5", "EVERY is a whole number"),
        ("status:99:1", "CODE is a whole number from 200 to 599, not '99'"),
        ("tokens:9:8", "LEAST is more than MOST"),
    ],
)
def test_a_mistake_is_told_with_what_would_be_right(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{text!r} is no behaviour; {why}"):
        Behaviour.parse(text)


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["overload:1", "overload:2"], "overload is told twice"),
        (["tokens:1:2"], "tokens is about the answers of vllm, which was not told"),
    ],
)
def test_behaviours_that_contradict_each_other(texts: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Behaviours.parse(texts)


def test_every_behaviour_is_in_the_documents_table() -> None:
    assert module.__doc__ is not None
    told = {line.split()[0].partition(":")[0] for line in module.__doc__.splitlines() if line.startswith("    ") and line[4] != " "}
    assert told == set(PARAMETERS)


@pytest.mark.parametrize(
    ("texts", "number", "expected"),
    [
        (["instant"], 1, PLAIN),
        (["latency:0.5"], 1, Treatment(wait_s=0.5)),
        (["latency:0.5", "latency:0.25"], 7, Treatment(wait_s=0.75)),
        (["status:503:2"], 1, PLAIN),
        (["status:503:2"], 4, Treatment(Ending.STATUS, status=503)),
        (["latency:1", "reset:1"], 1, Treatment(Ending.RESET, wait_s=1.0)),
        (["reset:1", "latency:1"], 1, Treatment(Ending.RESET)),
        (["malformed:3", "status:500:1"], 3, Treatment(Ending.MALFORMED)),
        (["die:2"], 2, PLAIN),
        (["die:2"], 3, Treatment(Ending.DEATH)),
        (["truncated:2", "badjson:3", "stall:6", "drip:2:1"], 6, Treatment(PLAIN.ending, 0.0, 200, True, True, 2.0, True)),
        (["truncated:2", "badjson:3", "stall:6", "drip:2:5"], 3, Treatment(is_garbled=True)),
    ],
)
def test_what_a_request_meets(texts: list[str], number: int, expected: Treatment) -> None:
    assert Behaviours.parse(texts).treat(number) == expected


@given(every=st.integers(1, 9), total=st.integers(0, 60))
def test_one_of_every_so_many_is_struck(every: int, total: int) -> None:
    behaviours = Behaviours.parse([f"reset:{every}"])
    endings = Counter(behaviours.treat(number).ending for number in range(1, total + 1))
    assert endings[Ending.RESET] == total // every


@given(name=st.integers(0, 2**128 - 1).map("{:032x}".format), max_tokens=st.none() | st.integers(1, 100))
def test_how_long_answers_are(name: str, max_tokens: int | None) -> None:
    behaviours = Behaviours.parse(["vllm:8:100", "tokens:10:20"])
    drawn = behaviours.draw_tokens(name, max_tokens, is_exact=False)
    assert drawn == behaviours.draw_tokens(name, max_tokens, is_exact=False)
    assert min(10, max_tokens or 10) <= drawn <= min(20, max_tokens or 20)
    if max_tokens is not None:
        assert behaviours.draw_tokens(name, max_tokens, is_exact=True) == max_tokens


def test_garbled_rows_are_of_three_kinds() -> None:
    text = json.dumps([{"text": "where is my card", "label": "card_lost"}] * 2)
    amid_talk, half, wrong = (garble(text, name) for name in ("0", "1", "2"))
    assert text in amid_talk
    for no_json in (amid_talk, half):
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            json.loads(no_json)
    assert json.loads(wrong)[0]["label"] is None


async def test_a_job_is_finished_with_the_last_of_its_sequences() -> None:
    finished: asyncio.Queue[str] = asyncio.Queue()
    generation = Generation(TokenRateModel(knee=1, tokens_per_s=2000), finished.put_nowait)
    assert generation.submit("long", 10, [5, 40])
    assert generation.submit("short", 10, [10])
    assert generation.gauges().running == 3
    assert [await finished.get(), await finished.get()] == ["short", "long"]
    assert generation.gauges().running == 0
    assert generation.gauges().generation_tokens in (54, 55)  # the fluid model counts fractions


async def test_a_job_cancelled_is_forgotten() -> None:
    finished: asyncio.Queue[str] = asyncio.Queue()
    generation = Generation(TokenRateModel(knee=1, tokens_per_s=1000, max_running=1), finished.put_nowait)
    generation.set_capacity(1e-6)
    generation.submit("cancelled", 10, [10, 10])
    generation.submit("next", 10, [1])
    assert (generation.gauges().running, generation.gauges().waiting) == (1, 2)
    generation.cancel("cancelled")
    generation.cancel("cancelled")
    assert (generation.gauges().running, generation.gauges().waiting) == (1, 0)
    generation.set_capacity(1.0)
    assert await finished.get() == "next"
    assert finished.empty()


async def test_all_sequences_of_a_job_are_taken_or_none() -> None:
    generation = Generation[str](TokenRateModel(knee=1, tokens_per_s=1, max_running=1, max_waiting=1), lambda _: None)
    assert not generation.submit("three", 10, [5, 5, 5])
    assert (generation.gauges().running, generation.gauges().waiting) == (0, 0)
    assert generation.submit("two", 10, [5, 5])
    generation.cancel("two")


async def test_what_never_fits_is_an_error_and_leaves_nothing() -> None:
    generation = Generation[str](TokenRateModel(knee=1, tokens_per_s=1, kv_tokens=100), lambda _: None)
    with pytest.raises(ValueError, match="never fit"):
        generation.submit("big", 10, [5, 500])
    assert (generation.gauges().running, generation.gauges().waiting) == (0, 0)
