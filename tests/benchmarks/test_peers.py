"""The driver, with peers made up here: what stands for a peer's environment is a script that starts the Python of these tests."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.peers import environments
from benchmarks.peers import run as driver
from benchmarks.peers.environments import NAMES, REQUIREMENTS, PeerError, make, python_of
from benchmarks.peers.run import CLIENTS, PeerResult, run_peer

CORE = min(os.sched_getaffinity(0))

HEAD = "from peer_client import Job, run_client\nimport os, subprocess, sys, time\n"
TAIL = '\nif __name__ == "__main__":\n    run_client("pytest", pipeline)\n'


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder in which the one peer there is is called `made_up`."""

    folder: Path

    def run(self, pipeline: str, *, time_limit_s: float = 30.0) -> PeerResult:
        (self.folder / "made_up_client.py").write_text(HEAD + pipeline + TAIL)
        return run_peer(
            "made_up",
            base_url="http://127.0.0.1:9/v1",
            model="scripted",
            prompts=self.folder / "prompts.jsonl",
            in_flight=64,
            core=CORE,
            time_limit_s=time_limit_s,
        )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    (tmp_path / "made_up.txt").write_text("made-up==1.0\n")
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"prompt {number}"}) + "\n" for number in range(10)))
    shutil.copy(CLIENTS / "peer_client.py", tmp_path)
    python = tmp_path / "made_up" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(driver, "CLIENTS", tmp_path)
    monkeypatch.setattr(environments, "_is_ready", lambda name: name == "made_up")  # pyright: ignore[reportUnknownLambdaType]
    return Bench(tmp_path)


def test_the_cost_of_the_pipeline_is_told(bench: Bench) -> None:
    result = bench.run(
        "ballast = b'.' * 200_000_000\n"
        "def pipeline(job):\n"
        "    until = time.process_time() + 0.2\n"
        "    while time.process_time() < until: pass\n"
        "    assert (job.base_url, job.model, job.in_flight) == ('http://127.0.0.1:9/v1', 'scripted', 64)\n"
        "    return [prompt.upper() for prompt in job.prompts]\n"
    )
    assert (result.name, result.completions, result.version) == ("made_up", 10, pytest.__version__)
    assert 20 <= result.cpu_s_per_1k < 40
    assert 0 < result.completions_per_s <= 50
    assert 200 < result.peak_rss_mb < 300
    assert result.wall_s >= 0.2


def test_the_time_of_child_processes_counts(bench: Bench) -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    result = bench.run(f"def pipeline(job):\n    subprocess.run([sys.executable, '-c', {spin!r}])\n    return job.prompts\n")
    assert result.cpu_s_per_1k >= 30


def test_a_peer_has_one_core_and_nothing_of_our_environment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    bench.run(
        f"assert os.sched_getaffinity(0) == {{{CORE}}}\n"
        "assert 'OPENAI_API_KEY' not in os.environ\n"
        "assert not [path for path in os.listdir(os.path.expanduser('~')) if path not in ('output.log',)]\n"
        "def pipeline(job):\n    return job.prompts\n"
    )


@pytest.mark.parametrize("lost", ["None", "''"])
def test_a_lost_answer_is_no_result(bench: Bench, lost: str) -> None:
    with pytest.raises(PeerError, match="answered 9 of 10"):
        bench.run(f"def pipeline(job):\n    return [{lost}, *job.prompts[1:]]\n")


def test_a_failure_ends_in_the_last_words_of_the_peer(bench: Bench) -> None:
    with pytest.raises(PeerError, match=r"(?s)made_up ended with status 1:.*RuntimeError: no such model$"):
        bench.run("def pipeline(job):\n    raise RuntimeError('no such model')\n")


def test_a_peer_that_takes_too_long_is_ended_with_its_children(bench: Bench) -> None:
    note = bench.folder / "child.pid"
    with pytest.raises(PeerError, match=r"not done within 1 s"):
        bench.run(
            "def pipeline(job):\n"
            "    child = subprocess.Popen(['sleep', '50'])\n"
            f"    open({str(note)!r}, 'w').write(str(child.pid))\n"
            "    child.wait()\n",
            time_limit_s=1,
        )
    # Killed, and soon reaped by whoever adopts it: a child of a dead parent is not ours to wait for.
    until = time.monotonic() + 10
    while _is_alive(int(note.read_text())):
        assert time.monotonic() < until


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_environment_is_made_once_and_anew_for_new_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "bench")
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    commands: list[list[str]] = []

    def install(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        (tmp_path / "bench" / "peer").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(environments.subprocess, "run", install)
    pins = tmp_path / "peer.txt"
    pins.write_text("peer==1\n")
    with pytest.raises(PeerError, match=r"make it with: python -m benchmarks\.peers\.environments peer"):
        python_of("peer")
    assert make("peer")
    assert python_of("peer") == tmp_path / "bench" / "peer" / "bin" / "python"
    done = len(commands)
    assert not make("peer")
    assert len(commands) == done
    pins.write_text("peer==2\n")
    assert make("peer")


def test_a_failed_installation_says_why_and_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "bench")
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(environments.sys, "executable", shutil.which("false"))
    (tmp_path / "peer.txt").write_text("peer==1\n")
    with pytest.raises(PeerError, match=r"peer could not be installed; all of pip's output is in .*peer\.log"):
        make("peer")
    with pytest.raises(PeerError, match="not ready"):
        python_of("peer")


@pytest.mark.parametrize("name", NAMES)
def test_each_peer_has_a_script_and_exact_pins(name: str) -> None:
    assert (CLIENTS / f"{name}_client.py").is_file()
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+]+|#.*", line)] == []
