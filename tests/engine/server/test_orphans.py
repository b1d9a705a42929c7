from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from engine.server.orphans import Owner, end_orphan, end_session, find_orphans
from tests.engine.servers import DEAF, LEAVES_A_CHILD, sleeper


def pids(run: Path) -> list[int]:
    return [pid for orphan in find_orphans() if orphan.owner.run == str(run) for pid in orphan.pids]


def test_a_mark_can_be_read_back() -> None:
    owner = Owner.here(Path("/runs/a:b c"))
    assert Owner.parse(str(owner)) == owner
    assert owner.run == "/runs/a:b c"
    assert not owner.is_gone


def test_a_process_of_an_owner_that_is_gone_is_found(tmp_path: Path) -> None:
    with sleeper(tmp_path) as process:
        [orphan] = [orphan for orphan in find_orphans() if orphan.owner.run == str(tmp_path)]
        assert orphan.pids == (process.pid,)
        assert orphan.since == pytest.approx(psutil.Process(process.pid).create_time(), abs=0.01)
        assert orphan.command == f"kill -9 {process.pid}"
        assert str(process.pid) in str(orphan)
        assert str(tmp_path) in str(orphan)


def test_a_process_of_a_living_owner_is_no_orphan(tmp_path: Path) -> None:
    with sleeper(tmp_path, mark=Owner.here(tmp_path)):
        assert pids(tmp_path) == []


def test_owners_in_another_container_are_not_judged(tmp_path: Path) -> None:
    with sleeper(tmp_path, mark=Owner(1, 1, 1, str(tmp_path))):
        assert pids(tmp_path) == []


def test_a_strange_mark_is_left_alone(tmp_path: Path) -> None:
    with sleeper(tmp_path, mark="not ours") as process:
        assert process.pid not in [pid for orphan in find_orphans() for pid in orphan.pids]


def test_an_orphan_is_asked_to_end(tmp_path: Path) -> None:
    with sleeper(tmp_path) as process:
        [orphan] = [orphan for orphan in find_orphans() if orphan.owner.run == str(tmp_path)]
        end_orphan(orphan, 10)
        assert process.wait(timeout=10) == -signal.SIGTERM


def test_one_that_will_not_is_killed(tmp_path: Path) -> None:
    with sleeper(tmp_path, DEAF) as process:
        [orphan] = [orphan for orphan in find_orphans() if orphan.owner.run == str(tmp_path)]
        end_orphan(orphan, 0.05)
        assert process.wait(timeout=10) == -signal.SIGKILL


def test_only_the_session_asked_for_is_ended(tmp_path: Path) -> None:
    owner = Owner.here(tmp_path)
    with sleeper(tmp_path, mark=owner) as one, sleeper(tmp_path, mark=owner) as other:
        end_session(owner, one.pid, 10)
        assert one.wait(timeout=10) == -signal.SIGTERM
        assert other.poll() is None


def test_a_session_of_somebody_else_with_the_same_number_is_left_alone(tmp_path: Path) -> None:
    with sleeper(tmp_path, mark=Owner.here(tmp_path)) as process:
        end_session(Owner.here(tmp_path / "another"), process.pid, 0.05)
        assert process.poll() is None


def test_what_was_started_while_ending_is_ended_too(tmp_path: Path) -> None:
    owner = Owner.here(tmp_path)
    with sleeper(tmp_path, LEAVES_A_CHILD, mark=owner) as process:
        end_session(owner, process.pid, 10)
        assert process.wait(timeout=10) == 0
        # Its output is ours to read until the last process that holds it is gone.
        assert process.stdout is not None
        assert process.stdout.read() == b""
