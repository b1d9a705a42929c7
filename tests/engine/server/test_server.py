from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import psutil
import pytest
import uvloop

from engine.errors import PreflightError, ServerError, UserError
from engine.server import server as server_module
from engine.server.launch import choose_port
from engine.server.server import VllmServer, meaningful_lines
from tests.engine.servers import PROGRAM, fake_smi, make_model, make_server, sleeper, survivors

OWN_SERVER = """
import asyncio, pathlib, sys
from engine.config import TeacherConfig
from engine.server.launch import choose_port
from engine.server.server import VllmServer

async def main():
    config = TeacherConfig(model=sys.argv[1])
    run = pathlib.Path(sys.argv[2])
    async with VllmServer(config, run=run, log=run / "server.log", device="cpu", program=tuple(sys.argv[3:])) as server:
        print(server._life.process.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def get(server: VllmServer, path: str, key: str | None) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(f"http://127.0.0.1:{server.launch.port}{path}") as response:
        return response.status


async def crash(server: VllmServer) -> None:
    with pytest.raises(aiohttp.ClientError):
        await get(server, "/crash", None)


async def serves_and_stops(folder: Path) -> None:
    phases: list[str] = []
    async with make_server(folder, on_phase=phases.append) as server:
        assert await get(server, "/v1/models", server.endpoint.api_key) == 200
        assert await get(server, "/v1/models", "another key") == 401
        assert server.endpoint.base_url == f"http://127.0.0.1:{server.launch.port}/v1"
        assert server.endpoint.model == "tiny"
        assert server.start_s > 0
        server.check()
        [process] = survivors(folder)
        assert process.cmdline()[: len(server.launch.command)] == list(server.launch.command)
        assert server.endpoint.api_key is not None
        assert server.endpoint.api_key not in " ".join(process.cmdline())
        assert os.getsid(process.pid) == process.pid
    assert survivors(folder) == []
    assert phases[0] == "starting the server"
    assert "Starting to load model" in (folder / "run" / "logs" / "server.log").read_text()


async def test_serves_inside_the_block_and_is_gone_after_it(tmp_path: Path) -> None:
    await serves_and_stops(tmp_path)


def test_lives_under_uvloop_too(tmp_path: Path) -> None:
    uvloop.run(serves_and_stops(tmp_path))


async def test_a_server_that_fails_to_start_says_why_in_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ServerError) as caught:
        async with make_server(tmp_path, "fail"):
            pass
    assert str(caught.value).splitlines() == [
        f"the teacher's server did not start (exit status 1); its log {tmp_path}/run/logs/server.log ends with:",
        "    Using LBHNC KV cache layout.",
        "    EngineCore failed to start.",
        "    ValueError: No available memory for the cache blocks.",
        "    RuntimeError: Engine core initialization failed. See root cause above.",
    ]


async def test_last_words_are_those_of_this_start(tmp_path: Path) -> None:
    log = tmp_path / "run" / "logs" / "server.log"
    log.parent.mkdir(parents=True)
    log.write_text("an earlier server's words\n")
    with pytest.raises(ServerError) as caught:
        async with make_server(tmp_path, "fail"):
            pass
    assert "earlier" not in str(caught.value)
    assert log.read_text().startswith("an earlier server's words\n")


async def test_silence_while_starting_has_a_limit(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"no sign of life for 0\.1 s .*server\.log is empty"):
        async with make_server(tmp_path, "silent", start_timeout_s=0.1):
            pass
    assert survivors(tmp_path) == []


async def test_a_server_that_dies_is_noticed(tmp_path: Path) -> None:
    async with make_server(tmp_path) as server:
        watch = asyncio.create_task(server.watch())
        await crash(server)
        with pytest.raises(ServerError, match=r"ended in the middle of the run \(exit status 3\)"):
            await watch
        with pytest.raises(ServerError, match="exit status 3"):
            server.check()


async def test_a_server_that_is_killed_is_named_so(tmp_path: Path) -> None:
    async with make_server(tmp_path) as server:
        [process] = survivors(tmp_path)
        process.kill()
        with pytest.raises(ServerError, match="SIGKILL, perhaps because memory ran out"):
            await server.watch()


async def test_watching_ends_without_complaint_when_we_stop_it(tmp_path: Path) -> None:
    async with make_server(tmp_path) as server:
        watch = asyncio.create_task(server.watch())
        await asyncio.sleep(0)
    await watch


@pytest.mark.parametrize(("mode", "phase"), [("silent", "starting the server"), ("halfway", "loading weights")])
async def test_cancelled_while_starting_leaves_nothing(tmp_path: Path, mode: str, phase: str) -> None:
    reached = asyncio.Event()

    def on_phase(said: str) -> None:
        if said == phase:
            reached.set()

    entering = asyncio.create_task(make_server(tmp_path, mode, on_phase=on_phase).__aenter__())
    await reached.wait()
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert survivors(tmp_path) == []


async def test_what_will_not_end_is_killed_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "STOP_TIMEOUT_S", 0.1)
    async with make_server(tmp_path, "stubborn"):
        assert len(survivors(tmp_path)) == 2
    assert survivors(tmp_path) == []


async def test_children_of_a_server_that_died_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SHORT_STOP_TIMEOUT_S", 0.1)
    async with make_server(tmp_path, "stubborn") as server:
        await crash(server)
        with pytest.raises(ServerError):
            await server.watch()
        assert len(survivors(tmp_path)) == 1
    assert survivors(tmp_path) == []


async def test_cancelled_while_stopping_still_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "STOP_TIMEOUT_S", 0.3)
    server = make_server(tmp_path, "stubborn")
    await server.__aenter__()
    leaving = asyncio.create_task(server.__aexit__(None, None, None))
    for _ in range(3):
        await asyncio.sleep(0)
        leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert survivors(tmp_path) == []


def test_a_server_does_not_outlive_an_owner_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWN_SERVER, str(make_model(tmp_path / "tiny")), str(tmp_path), *PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        process = psutil.Process(int(owner.stdout.readline()))
        os.kill(owner.pid, signal.SIGKILL)
    # A zombie may wait for ever for whatever adopted it; it does not run.
    for _ in range(1000):
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            break
        psutil.wait_procs([process], timeout=0.02)
    else:
        pytest.fail("the server outlived its owner")


async def test_an_orphan_of_the_same_run_is_named_and_ended(tmp_path: Path) -> None:
    notices: list[str] = []
    with sleeper(tmp_path / "run") as orphan:
        async with make_server(tmp_path, on_notice=notices.append):
            assert orphan.wait(timeout=10) == -signal.SIGTERM
    [notice] = [notice for notice in notices if str(tmp_path) in notice]  # others may have left some on this machine
    assert str(orphan.pid) in notice
    assert notice.endswith("ending it")


async def test_an_orphan_of_another_run_is_only_named(tmp_path: Path) -> None:
    notices: list[str] = []
    with sleeper(tmp_path / "other") as orphan:
        async with make_server(tmp_path, on_notice=notices.append):
            assert orphan.poll() is None
    assert [notice for notice in notices if str(tmp_path / "other") in notice and notice.endswith(f"end it with: kill -9 {orphan.pid}")]


async def test_wrong_input_starts_nothing(tmp_path: Path) -> None:
    server = make_server(tmp_path)
    (tmp_path / "tiny" / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json"):
        await server.__aenter__()
    assert not (tmp_path / "run").exists()


async def test_it_can_be_started_again_in_the_same_place(tmp_path: Path) -> None:
    async with make_server(tmp_path) as server:
        endpoint, launch = server.endpoint, server.launch
        [old] = survivors(tmp_path)
        await crash(server)
        with pytest.raises(ServerError):
            await server.watch()
        await server.restart()
        server.check()
        [new] = survivors(tmp_path)
        assert new.pid != old.pid
        assert (server.endpoint, server.launch) == (endpoint, launch)
        assert server.endpoint.api_key == endpoint.api_key
        assert await get(server, "/v1/models", endpoint.api_key) == 200
        assert len(server.starts_s) == 2
        assert server.start_s == server.starts_s[1]
        assert (tmp_path / "run" / "logs" / "server.log").read_text().count("Starting to load model") == 2
    assert survivors(tmp_path) == []


async def test_starting_again_ends_one_that_still_runs_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SHORT_STOP_TIMEOUT_S", 0.1)
    async with make_server(tmp_path, "stubborn") as server:
        old = {process.pid for process in survivors(tmp_path)}
        watch = asyncio.create_task(server.watch())
        await asyncio.sleep(0)
        await server.restart()
        await watch  # that start's, which we ended
        new = {process.pid for process in survivors(tmp_path)}
        assert len(new) == 2
        assert not old & new
        monkeypatch.setattr(server_module, "STOP_TIMEOUT_S", 0.1)


@pytest.mark.parametrize("is_chosen", [True, False])
async def test_a_port_that_was_taken_meanwhile_is_changed(tmp_path: Path, is_chosen: bool) -> None:
    async with make_server(tmp_path, port=choose_port(None) if is_chosen else None) as server:
        endpoint = server.endpoint
        await crash(server)
        with pytest.raises(ServerError):
            await server.watch()
        with socket.create_server(("127.0.0.1", server.launch.port)):
            await server.restart()
        assert server.endpoint != endpoint
        assert server.endpoint.api_key == endpoint.api_key
        assert await get(server, "/v1/models", endpoint.api_key) == 200


async def test_one_that_does_not_start_again_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    async with make_server(tmp_path, f"once:{tmp_path / 'was here'}") as server:
        await crash(server)
        with pytest.raises(ServerError) as caught:
            await server.restart()
        said = str(caught.value)
        assert said.startswith("the teacher's server did not start again (exit status 1)")
        assert said.endswith("See root cause above.")
        assert "Starting to load model" not in said  # the first start's words
        assert survivors(tmp_path) == []


async def test_cancelled_while_starting_again_leaves_nothing(tmp_path: Path) -> None:
    starts = 0
    again = asyncio.Event()

    def on_phase(said: str) -> None:
        nonlocal starts
        starts += said == "starting the server"
        if starts == 2:
            again.set()

    async with make_server(tmp_path, on_phase=on_phase) as server:
        restarting = asyncio.create_task(server.restart())
        await again.wait()
        restarting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await restarting
        assert survivors(tmp_path) == []


async def test_a_gpu_in_use_is_said_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "GPU_PATIENCE_S", 0.0)
    fake_smi(tmp_path / "bin", monkeypatch, gpus="0, GPU-a, 1000, 100, Disabled")
    with pytest.raises(PreflightError, match=r"GPU 0 has 0\.1 of 1\.0 GiB free"):
        async with make_server(tmp_path, device="gpu"):
            pass
    assert not (tmp_path / "run").exists()


async def test_memory_that_becomes_free_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "PROBE_S", 0.0)
    fake_smi(tmp_path / "bin", monkeypatch, gpus="0, GPU-a, 1000, 100, Disabled", later="0, GPU-a, 1000, 900, Disabled")
    async with make_server(tmp_path, device="gpu") as server:
        server.check()


async def test_a_gpu_taken_in_mid_run_ends_the_run_and_blames_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "GPU_PATIENCE_S", 0.0)
    async with make_server(tmp_path, device="gpu") as server:
        fake_smi(tmp_path / "bin", monkeypatch, gpus="0, GPU-a, 1000, 100, Disabled")
        with pytest.raises(ServerError, match=r"cannot be started again: GPU 0 has 0\.1 of"):
            await server.restart()
        assert survivors(tmp_path) == []


def test_progress_bars_count_as_lines() -> None:
    assert meaningful_lines("shards: 0%\rshards: 50%\rshards: 100%\n\n") == ["shards: 0%", "shards: 50%", "shards: 100%"]
