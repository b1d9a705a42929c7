from dataclasses import replace
from pathlib import Path

import pytest

from engine.status import FORMAT, read_status, write_status
from tests.engine.views.dashboard.statuses import make_status


def test_a_status_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    for status in (make_status(), make_status(curve=(), round_left=None, budget=(), limit=None)):
        write_status(path, status)
        assert read_status(path) == status
    assert [found.name for found in tmp_path.iterdir()] == ["status.json"]


def test_what_is_no_status_is_none(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    assert read_status(path) is None
    for content in (b"", b"{", b'{"name": "x"}', b"\xff"):
        path.write_bytes(content)
        assert read_status(path) is None
    write_status(path, replace(make_status(), format=FORMAT + 1))
    assert read_status(path) is None


def test_where_nothing_can_be_written_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.mkdir()  # nothing can be renamed to it
    with pytest.raises(OSError, match="directory"):
        write_status(path, make_status())
    assert [found.name for found in tmp_path.iterdir()] == ["status.json"]
