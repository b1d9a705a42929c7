from __future__ import annotations

import os
import subprocess
import sys

import pytest

from engine.config import TeacherConfig
from engine.machine.cores import CoreShares, divide, parse_processors, share_cores
from engine.server.launch import plan_launch
from engine.server.tether import tethered

FOUR = {0: (0, 4), 1: (1, 5), 2: (2, 6), 3: (3, 7), 4: (0, 4), 5: (1, 5), 6: (2, 6), 7: (3, 7)}
"""Cores of two threads each, numbered as Linux does."""


def test_a_core_is_not_divided_where_there_are_several() -> None:
    assert divide(range(8), FOUR, 0.5) == CoreShares((0, 1, 4, 5), (2, 3, 6, 7))
    assert divide(range(8), FOUR, 0.75) == CoreShares((0, 1, 2, 4, 5, 6), (3, 7))


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_each_side_gets_one_at_least(share: float) -> None:
    parts = divide(range(8), FOUR, share)
    assert parts is not None
    assert 2 in (len(parts.teacher), len(parts.student))


def test_threads_of_a_single_core_are_better_than_none() -> None:
    assert divide([0, 1], {0: (0, 1), 1: (0, 1)}, 0.5) == CoreShares((0,), (1,))
    assert divide([3], {3: (3,)}, 0.5) is None


def test_only_what_this_process_may_use_is_given_out() -> None:
    assert divide([1, 2, 6], FOUR, 0.5) == CoreShares((1,), (2, 6))


def test_the_teacher_computes_once_on_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.machine.cores.siblings", lambda _: FOUR)  # pyright: ignore[reportUnknownLambdaType]
    cores = CoreShares((0, 1, 4, 5), (2, 3, 6, 7))
    launch = plan_launch(TeacherConfig(model="/models/tiny"), device="cpu", port=1, cores=cores)
    assert launch.environment["VLLM_CPU_OMP_THREADS_BIND"] == "0,1"
    several = TeacherConfig(model="/models/tiny", extra_args=("-tp", "2"))
    assert plan_launch(several, device="cpu", port=1, cores=cores).environment["VLLM_CPU_OMP_THREADS_BIND"] == "auto"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in plan_launch(several, device="cpu", port=1).environment


def test_lists_are_read_as_the_kernel_writes_them() -> None:
    assert parse_processors("0-2,8,10-11\n") == [0, 1, 2, 8, 10, 11]
    assert parse_processors("") == []


def test_a_tethered_program_uses_the_cores_that_it_was_given() -> None:
    mine = sorted(os.sched_getaffinity(0))
    program = (sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))")
    for cores in ((), tuple(mine[-1:])):
        said = subprocess.run(tethered(program, cores), check=True, capture_output=True, text=True)
        assert said.stdout.strip() == str(sorted(cores or mine))
    shares = share_cores(0.5)
    assert shares is None if len(mine) == 1 else shares is not None and {*shares.teacher, *shares.student} == {*mine}
