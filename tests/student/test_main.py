from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import student
import student.worker
from engine.errors import StudentError
from student.__main__ import _end_with, main  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text("{}")
    return tmp_path


def test_wrong_input_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'nothing'} is no run directory (it has no run.json); give the folder of a run, e.g. runs/quickstart\n"
    )


def test_what_breaks_is_status_1(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(_: object) -> None:
        raise StudentError("training diverged")

    monkeypatch.setattr(student.worker, "work", diverging)
    assert main([str(run), "--detached"]) == 1
    assert capsys.readouterr().err == "error: training diverged\n"


@pytest.mark.parametrize(("arguments", "watches"), [([], True), (["--detached"], False)])
def test_the_parent_is_watched_unless_detached(arguments: list[str], watches: bool, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[int] = []
    monkeypatch.setattr("student.__main__._end_with", watched.append)
    monkeypatch.setattr(student.worker, "work", lambda _: None)  # pyright: ignore[reportUnknownLambdaType]
    assert main([str(run), *arguments]) == 0
    assert watched == ([os.getppid()] if watches else [])


def test_it_ends_when_its_parent_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = iter([7, 7, 1])
    monkeypatch.setattr("student.__main__.PARENT_POLL_S", 0)
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit, match="1"):
        _end_with(7)
    assert next(parents, None) is None


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, student; assert not {'torch', 'transformers', 'sklearn'} & set(sys.modules); student.check_encoder"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_every_public_name_is_there() -> None:
    for name in student.__all__:
        assert getattr(student, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        student.nothing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
