from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from engine.errors import ServerError
from engine.server import server as server_module
from engine.server import supervisor as supervisor_module
from engine.server.server import VllmServer
from engine.server.supervisor import MAX_RESTARTS, MIN_MISSES, PROBE_S, SILENCE_LIMIT_S, StallJudge, Supervisor, Vitals, take_vitals
from engine.teacher.endpoint import Endpoint
from tests.engine.servers import make_server, survivors

STALL_S = 200.0
ALIVE, SILENT = Vitals(answers=True, tokens=7), Vitals(answers=False)


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Lane:
    """What a batcher does on its side, and what it is told."""

    def __init__(self) -> None:
        self.answered = 0
        self.in_flight = 0
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.reasons: list[str] = []
        self.notices: list[str] = []
        self.endpoint: Endpoint | None = None
        self.react: Callable[[], None] = lambda: None

    def down(self, reason: str) -> None:
        assert self.is_open.is_set()
        self.is_open.clear()
        self.reasons.append(reason)

    def up(self, endpoint: Endpoint) -> None:
        assert not self.is_open.is_set()
        self.is_open.set()
        self.endpoint = endpoint
        self.react()

    async def ask(self, endpoint: Endpoint) -> None:
        """One request, sent again until it is answered."""
        while True:
            await self.is_open.wait()
            self.in_flight += 1
            try:
                headers = {"Authorization": f"Bearer {endpoint.api_key}"}
                url = f"{endpoint.base_url}/chat/completions"
                async with aiohttp.ClientSession(headers=headers) as session, session.post(url, data=b"{}") as response:
                    assert response.status == 200
                    self.answered += 1
                    return
            except aiohttp.ClientError:
                # Noticed here first, perhaps; the batcher backs off.
                await asyncio.sleep(0)
            finally:
                self.in_flight -= 1


def make_supervisor(server: VllmServer, lane: Lane, clock: Clock | None = None) -> Supervisor:
    """With a `clock`, looks are made as fast as they can be; without one, the first is seconds away."""
    return Supervisor(
        server,
        stall_timeout_s=STALL_S,
        answered=lambda: lane.answered,
        in_flight=lambda: lane.in_flight,
        on_down=lane.down,
        on_up=lane.up,
        on_notice=lane.notices.append,
        clock=clock or time.monotonic,
        sleep=clock.sleep if clock else asyncio.sleep,
    )


@asynccontextmanager
async def watching(supervisor: Supervisor) -> AsyncGenerator[asyncio.Task[None]]:
    watch = asyncio.create_task(supervisor.watch())
    yield watch
    watch.cancel()
    await asyncio.wait([watch])


def kill(folder: Path) -> None:
    [process] = survivors(folder)
    process.kill()


async def is_brought_back(folder: Path) -> None:
    lane, up = Lane(), asyncio.Event()
    lane.react = up.set
    async with make_server(folder) as server:
        supervisor = make_supervisor(server, lane)
        endpoint = server.endpoint
        async with watching(supervisor):
            kill(folder)
            await up.wait()
            assert lane.endpoint == endpoint
            assert (await take_vitals(endpoint)).answers
            assert lane.reasons == ["ended (killed by SIGKILL, perhaps because memory ran out)"]
            [restart] = supervisor.history
            assert restart.reason == lane.reasons[0]
            assert restart.start_s == server.start_s
            assert lane.notices[0] == f"the teacher's server {lane.reasons[0]}; starting it again"
            assert lane.notices[1].startswith("the teacher's server is back after ")
    assert survivors(folder) == []


async def test_a_server_that_is_killed_is_back_in_the_same_place(tmp_path: Path) -> None:
    await is_brought_back(tmp_path)


def test_it_is_back_under_uvloop_too(tmp_path: Path) -> None:
    uvloop.run(is_brought_back(tmp_path))


async def test_a_server_that_never_answers_anything_is_given_up(tmp_path: Path) -> None:
    lane = Lane()
    lane.react = lambda: kill(tmp_path)
    async with make_server(tmp_path) as server:
        supervisor = make_supervisor(server, lane)
        kill(tmp_path)
        with pytest.raises(ServerError) as caught:
            await supervisor.watch()
        assert len(lane.reasons) == MAX_RESTARTS + 1
        assert len(supervisor.history) == MAX_RESTARTS
        assert not lane.is_open.is_set()
    said = str(caught.value)
    assert said.startswith("the teacher's server ended (killed by SIGKILL, perhaps because memory ran out), after 3 restarts that brought")
    assert "server.log ends with:\n" in said
    assert survivors(tmp_path) == []


async def test_an_answer_in_between_allows_another_round_of_restarts(tmp_path: Path) -> None:
    lane = Lane()
    async with make_server(tmp_path, "die:2") as server, watching(make_supervisor(server, lane)) as watch:
        await before(watch, ask_all(lane, server, 2 * (MAX_RESTARTS + 2) + 1))
        assert len(lane.reasons) == MAX_RESTARTS + 2
        assert set(lane.reasons) == {"ended (exit status 3)"}


async def ask_all(lane: Lane, server: VllmServer, number: int) -> None:
    for _ in range(number):
        await lane.ask(server.endpoint)


async def before(watch: asyncio.Task[None], work: Coroutine[Any, Any, None]) -> None:
    """Sees the work through, or raises what ended the watch."""
    task = asyncio.create_task(work)
    await asyncio.wait([task, watch], return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        await watch
    await task


async def test_a_server_that_does_not_come_back_ends_the_run_with_its_last_words(tmp_path: Path) -> None:
    lane = Lane()
    async with make_server(tmp_path, f"once:{tmp_path / 'was here'}") as server:
        supervisor = make_supervisor(server, lane)
        kill(tmp_path)
        with pytest.raises(ServerError, match=r"did not start again \(exit status 1\)[^$]*See root cause above"):
            await supervisor.watch()
        assert supervisor.history == ()
        assert survivors(tmp_path) == []


async def test_a_server_that_hangs_is_ended_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "PROBE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(server_module, "SHORT_STOP_TIMEOUT_S", 0.1)
    lane, up = Lane(), asyncio.Event()
    lane.react = up.set
    async with make_server(tmp_path) as server:
        [hung] = survivors(tmp_path)
        hung.send_signal(signal.SIGSTOP)
        async with watching(make_supervisor(server, lane, Clock())) as watch:
            await up.wait()
            watch.cancel()
        assert lane.reasons[0].startswith("stalled (no answer to /health for ")
        [process] = survivors(tmp_path)
        assert process.pid != hung.pid


async def test_a_server_that_computes_nothing_is_ended_and_what_it_left_is_asked_again(tmp_path: Path) -> None:
    """Each start answers two."""
    lane = Lane()
    async with make_server(tmp_path, "freeze:2") as server:
        async with watching(make_supervisor(server, lane, Clock())) as watch:
            await before(watch, ask_all(lane, server, 5))
        assert lane.answered == 5
        assert lane.reasons == [f"stalled (no token for {STALL_S:.0f} s, with 1 in flight)"] * 2


async def test_cancelled_while_bringing_it_back_leaves_nothing(tmp_path: Path) -> None:
    starts = 0
    again = asyncio.Event()

    def on_phase(said: str) -> None:
        nonlocal starts
        starts += said == "starting the server"
        if starts == 2:
            again.set()

    lane = Lane()
    async with make_server(tmp_path, on_phase=on_phase) as server:
        async with watching(make_supervisor(server, lane)) as watch:
            kill(tmp_path)
            await again.wait()
            watch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await watch
        assert survivors(tmp_path) == []
        assert not lane.is_open.is_set()


async def test_watching_ends_with_the_server_when_others_end_it(tmp_path: Path) -> None:
    lane = Lane()
    async with make_server(tmp_path) as server:
        watch = asyncio.create_task(make_supervisor(server, lane).watch())
        await asyncio.sleep(0)
    await watch
    assert lane.reasons == []


async def test_vitals_are_what_the_server_says(tmp_path: Path) -> None:
    lane = Lane()
    async with make_server(tmp_path) as server:
        await ask_all(lane, server, 3)
        assert await take_vitals(server.endpoint) == Vitals(answers=True, tokens=6)
    assert await take_vitals(server.endpoint) == SILENT


async def test_a_server_that_hangs_shows_no_vitals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "PROBE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(server_module, "STOP_TIMEOUT_S", 0.1)
    async with make_server(tmp_path) as server:
        [process] = survivors(tmp_path)
        process.send_signal(signal.SIGSTOP)
        assert await take_vitals(server.endpoint) == SILENT


def looks(judge: StallJudge, *seen: tuple[float, Vitals], in_flight: int = 1, answered: int = 0) -> list[str | None]:
    return [judge.judge(now, vitals, in_flight=in_flight, answered=answered) for now, vitals in seen]


def test_one_late_answer_is_no_stall() -> None:
    judge = StallJudge(STALL_S, 0.0)
    late = 2 * SILENCE_LIMIT_S
    assert looks(judge, (5.0, ALIVE), (late, SILENT), (late + 5, ALIVE), in_flight=0) == [None] * 3
    assert looks(judge, *((late + 5 + look, SILENT) for look in range(1, 50))) == [None] * 49


def test_silence_is_a_stall_after_many_looks_and_a_long_time() -> None:
    judge = StallJudge(STALL_S, 0.0)
    times = [PROBE_S * look for look in range(1, 1 + round(SILENCE_LIMIT_S / PROBE_S))]
    said = looks(judge, *((time, SILENT) for time in times))
    assert said == [None] * (len(times) - 1) + ["stalled (no answer to /health for 60 s)"]
    assert len(times) > MIN_MISSES


def test_we_may_have_slept_ourselves() -> None:
    said = looks(StallJudge(STALL_S, 0.0), *((1e6 + look, SILENT) for look in range(MIN_MISSES)))
    assert said[:-1] == [None] * (MIN_MISSES - 1)
    assert said[-1] is not None


def test_no_token_for_too_long_is_a_stall_though_health_is_good() -> None:
    said = looks(StallJudge(STALL_S, 0.0), (50.0, ALIVE), (249.0, ALIVE), (250.0, ALIVE))
    assert said == [None, None, "stalled (no token for 200 s, with 1 in flight)"]


@pytest.mark.parametrize(
    ("vitals", "in_flight", "answered"),
    [
        (Vitals(answers=True, tokens=8), 1, 0),
        (Vitals(answers=True, tokens=3), 1, 0),
        (ALIVE, 1, 1),
        (ALIVE, 0, 0),
        (Vitals(answers=True), 1, 0),
    ],
)
def test_what_is_no_stall(vitals: Vitals, in_flight: int, answered: int) -> None:
    """A token, counters that began anew, an answer, nothing to do, and a server without counters."""
    judge = StallJudge(STALL_S, 0.0)
    assert looks(judge, (1.0, ALIVE)) == [None]
    assert looks(judge, (201.0, vitals), in_flight=in_flight, answered=answered) == [None]
    assert looks(judge, (202.0, ALIVE)) == [None]
