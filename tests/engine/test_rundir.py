from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from engine.errors import StoreError
from engine.rundir import TABLES, RunDir, write_json


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was synced, in order."""
    paths: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: paths.append(Path(f"/proc/self/fd/{descriptor}").readlink()))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    return paths


def test_the_folders_of_a_new_run_survive_a_power_cut_and_are_synced_once(tmp_path: Path, synced: list[Path]) -> None:
    run = RunDir(tmp_path / "run")
    run.create()
    assert set(synced) == {tmp_path, run.root, run.tables}
    assert all(run.table(name).is_dir() for name in TABLES)
    synced.clear()
    run.create()
    assert synced == []


def test_a_file_is_synced_before_it_has_its_name_and_its_folder_after(tmp_path: Path, synced: list[Path]) -> None:
    write_json(tmp_path / "run.json", {"a": 1})
    assert [path.suffix for path in synced] == [".tmp", ""]
    assert synced[1] == tmp_path


def test_what_a_killed_process_began_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".run.json.7.tmp").touch()
    (tmp_path / "run.json").touch()
    RunDir(tmp_path).clear_temporaries()
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_folder_in_which_nothing_can_be_written_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (tmp_path / ".run.json.7.tmp").touch()
    for name in ("open", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(StoreError, match=r"cannot write .*engine\.lock: Read-only file system"), RunDir(tmp_path).lock("engine"):
        pass
    with pytest.raises(StoreError, match=r"cannot write .*run\.json: Read-only file system"):
        write_json(tmp_path / "run.json", {})
    with pytest.raises(StoreError, match=r"cannot write in .*: Read-only file system"):
        RunDir(tmp_path).clear_temporaries()
