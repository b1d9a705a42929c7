"""The calls that scripts and notebooks make, and the example that shows them."""

import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

import engine
from engine import api
from engine.api import make_config, run_to_end
from engine.errors import ServerError, UserError
from engine.progress import Silent
from examples import python_api
from tests.engine.builders import make_task
from tests.engine.scripted_runs import FAKE_STUDENT
from tests.scripted_server import scripted_endpoint


def test_every_public_name_is_there_and_importing_is_instant() -> None:
    homes = importlib.import_module("engine")._HOMES
    assert sorted(engine.__all__) == sorted(homes)
    for name in engine.__all__:
        assert getattr(engine, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = engine.nothing  # pyright: ignore[reportAttributeAccessIssue]
    loaded = subprocess.run(
        [sys.executable, "-c", "import engine, sys; print(*sorted(name for name in sys.modules if name.startswith('engine')))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.split() == ["engine"]


@pytest.fixture
def endpoint() -> Iterator[str]:
    with scripted_endpoint() as url:
        yield url


async def test_the_example_runs_where_a_loop_runs_already(
    tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(api, "WORKER", FAKE_STUDENT)
    teacher = engine.TeacherConfig(model="scripted", endpoint=endpoint)
    rows = python_api.write_rows(teacher, tmp_path)
    summary = python_api.teach(teacher, tmp_path)
    assert len(rows) >= 30
    assert summary.rounds == 2
    told = capsys.readouterr().out
    assert "all 30 rows are there" in told
    assert "student 0: macro F1 0.50 on validation after 6 rows" in told
    assert sum(int(str(count["rows"])) for count in python_api.count_rows(tmp_path)) == summary.rows.accepted
    # The same calls find everything done.
    assert python_api.write_rows(teacher, tmp_path) == rows


def test_a_pool_is_labelled_without_a_running_loop(tmp_path: Path, endpoint: str) -> None:
    config = make_config(make_task(), engine.TeacherConfig(model="scripted", endpoint=endpoint), tmp_path / "task")
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(5)))
    summary = engine.label(config, tmp_path / "pool.jsonl", tmp_path / "out.jsonl", tmp_path / "run", progress=Silent())
    assert (summary.labelled, summary.rejected) == (5, 0)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 5


def test_a_task_made_in_python_is_read_back_equal(tmp_path: Path) -> None:
    task = make_task()
    config = make_config(task, engine.TeacherConfig(model="m"), tmp_path / "task", settings={"sampling.temperature": 0.3})
    assert engine.load_task(config.task, config.seed) == task
    assert (config.name, config.sampling.temperature, config.strategy.type) == ("task", 0.3, "pgkd")


def test_settings_change_keys_or_the_method(tmp_path: Path) -> None:
    config = make_config(make_task(), engine.TeacherConfig(model="m"), tmp_path / "task")
    with pytest.raises(UserError, match="the method pgkd needs a student"):
        engine.generate(config, 5, tmp_path / "run")
    with pytest.raises(ServerError, match="no server answers"):
        engine.generate(config, 5, tmp_path / "run", strategy={"type": "zerogen"}, teacher={"endpoint": "http://127.0.0.1:9/v1"})
    with pytest.raises(UserError, match=r"unknown key 'strategy\.rouns'"):
        engine.distil(config, tmp_path / "run", strategy={"rouns": 3})
    assert not (tmp_path / "run").exists()


@contextmanager
def interrupts_raised() -> Generator[None]:
    """As in a notebook; the loop of a test would end its task instead."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


async def test_interrupting_the_caller_stops_the_work_and_waits_for_it() -> None:
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    def interrupt() -> None:
        begun.wait()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with interrupts_raised(), pytest.raises(KeyboardInterrupt):
        run_to_end(work())
    assert ended.is_set()


async def test_the_work_runs_on_uvloop_as_that_of_the_commands_does() -> None:
    async def loop_of_the_work() -> object:
        return asyncio.get_running_loop()

    assert isinstance(run_to_end(loop_of_the_work()), uvloop.Loop)  # beside a loop, in a thread
    assert isinstance(await asyncio.to_thread(lambda: run_to_end(loop_of_the_work())), uvloop.Loop)  # where none runs


async def test_interrupting_without_a_running_loop_cancels_the_work() -> None:
    program = """
import asyncio, os, signal
from engine.api import run_to_end

async def work():
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
    try:
        await asyncio.sleep(60)
    finally:
        print("cleaned up")

try:
    run_to_end(work())
except KeyboardInterrupt:
    print("interrupted")
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert output.decode().split("\n")[:2] == ["cleaned up", "interrupted"]
