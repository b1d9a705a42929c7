from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.records import Outcome, Request
from engine.store import journal
from tests.engine.store.builders import assert_whole, make_completion, make_failure, make_run, work
from tests.engine.store.disk import CrashError, Disk
from tests.engine.store.writer import NUM_CALLS, NUM_ROUNDS

REPOSITORY = Path(__file__).parents[3]


class Teacher:
    """Answers differently each time it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, request: Request) -> Outcome:
        self.asked.append(request.id)
        return make_failure(request.id) if request.sampling.seed == 2 else make_completion(request.id, f"answer {len(self.asked)}")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(journal, "GATHER_S", 0.0)
    # After tmp_path, whose set-up deletes old folders.
    return Disk(monkeypatch)


async def test_a_crash_before_any_step_on_disk_loses_nothing_and_doubles_nothing(disk: Disk, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    run = make_run(tmp_path / "whole")
    disk.steps = 0
    await work(run, Teacher(), num_rounds=2, num_calls=3)
    num_steps = disk.steps
    assert num_steps > 20
    for crash_at in range(num_steps):
        (tmp_path / str(crash_at)).mkdir()
        run = make_run(tmp_path / str(crash_at))
        teacher = Teacher()
        disk.steps, disk.crash_at = 0, crash_at
        with pytest.raises(CrashError):
            await work(run, teacher, num_rounds=2, num_calls=3)
        disk.crash_at = None
        await work(run, teacher, num_rounds=2, num_calls=3)
        assert_whole(run, num_rounds=2, num_calls=3)
        # In lock-step only what was in flight when the journal refused is asked again: one group of three.
        assert len(teacher.asked) <= 6 + 3


async def test_the_event_loop_never_waits_for_the_disk(disk: Disk, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    disk.threads.clear()
    await work(run, Teacher(), num_rounds=1, num_calls=3)
    assert disk.threads
    assert threading.main_thread() not in disk.threads


def test_sigkill_at_any_moment_loses_nothing_acknowledged(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    choice = random.Random(0)
    acknowledged: set[str] = set()
    finished, num_killed = False, 0
    while not finished:
        lines_to_live = choice.randrange(1, 40) if num_killed < 3 else None
        finished = run_writer(run.root, lines_to_live, acknowledged)
        assert finished or lines_to_live, "the writer failed by itself"
        num_killed += not finished
    assert num_killed == 3
    assert_whole(run, NUM_ROUNDS, NUM_CALLS)


def run_writer(root: Path, lines_to_live: int | None, acknowledged: set[str]) -> bool:
    """Whether it finished before it had said so many lines and was killed. It may not ask for what is acknowledged."""
    command = [sys.executable, "-m", "tests.engine.store.writer", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        for number, line in enumerate(process.stdout, start=1):
            word, request_id = line.split()
            if word == "asked":
                assert request_id not in acknowledged
            else:
                acknowledged.add(request_id)
            if number == lines_to_live:
                process.kill()
    return process.returncode == 0
