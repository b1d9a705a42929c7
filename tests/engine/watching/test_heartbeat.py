import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import ServerError
from engine.progress import Silent
from engine.records import Finish
from engine.rundir import RunDir, write_json
from engine.status import Stage, Status, read_status
from engine.watching import heartbeat
from engine.watching.heartbeat import keep_status
from tests.engine.run_folders import make_config


class Told(Silent):
    """Keeps what it is told, and wakes who waits for it."""

    def __init__(self) -> None:
        self.now: Callable[[], Status]
        self.notices: list[str] = []
        self.noticed = asyncio.Event()

    def follow(self, now: Callable[[], Status]) -> None:
        self.now = now

    def notice(self, text: str) -> None:
        self.notices.append(text)
        self.noticed.set()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    run.create()
    write_json(run.finish, Finish(best_round=0, rounds=0, reason="all 0 rounds done"))
    return run


@pytest.fixture(autouse=True)
def beat_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "PUBLISH_S", 0.01)
    monkeypatch.setattr(heartbeat, "WRITE_S", 0.01)


async def test_the_last_word_says_how_it_ended(run: RunDir) -> None:
    told = Told()
    async with keep_status(run, make_config(), told, wall_s=30.0) as board:
        board.phase("looking for a server")
    status = read_status(run.status)
    assert status is not None
    assert (status.state, status.phase) == (Stage.FINISHED, "all 0 rounds done")
    assert status.wall_s >= 30
    assert told.now() == status


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ServerError("the server died\nwith a log"), "the server died"),
        (asyncio.CancelledError(), "stopped by the user"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
async def test_what_stopped_a_run_is_told(run: RunDir, error: BaseException, words: str) -> None:
    with pytest.raises(type(error)):
        async with keep_status(run, make_config(), Silent()):
            raise error
    status = read_status(run.status)
    assert status is not None
    assert (status.state, status.phase) == (Stage.STOPPED, words)


async def test_it_beats_while_the_work_goes_on(run: RunDir) -> None:
    told = Told()
    async with keep_status(run, make_config(), told) as board:
        first = told.now()
        board.phase("vLLM: loading weights")
        while told.now().phase == first.phase:  # noqa: ASYNC110 - nothing tells of a beat
            await asyncio.sleep(0)
        assert told.now().updated_at > first.updated_at
        while (written := read_status(run.status)) is None or written.phase == first.phase:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert (written.state, written.phase) == (Stage.STARTING, "vLLM: loading weights")


async def test_a_disk_that_takes_no_more_does_not_stop_a_run(run: RunDir) -> None:
    told = Told()
    run.status.mkdir()
    async with keep_status(run, make_config(), told):
        await told.noticed.wait()
        told.noticed.clear()
        run.status.rmdir()
        await told.noticed.wait()
    assert [notice.partition("(")[0].strip() for notice in told.notices] == [
        "status.json cannot be written",
        "status.json is written again",
    ]
    assert "the run goes on" in told.notices[0]
    status = read_status(run.status)
    assert status is not None
    assert status.state is Stage.FINISHED
