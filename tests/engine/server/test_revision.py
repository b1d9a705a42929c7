from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import TeacherConfig
from engine.server import revision
from engine.server.revision import find_revision


def make_model(folder: Path, content: bytes = b"weights", name: str = "model.safetensors") -> TeacherConfig:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return TeacherConfig(model=str(folder))


def test_a_folder_is_known_by_its_weights_wherever_it_lies(tmp_path: Path) -> None:
    first, copy, other = (find_revision(make_model(tmp_path / name, content)) for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y")))
    assert first == copy != other
    assert first is not None
    assert first.startswith("sha256 2d711642b726b044 ")


@pytest.mark.parametrize("changed", [0, 9])
def test_of_large_weights_beginning_and_end_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: int) -> None:
    monkeypatch.setattr(revision, "_WHOLE_BYTES", 5)
    monkeypatch.setattr(revision, "_PIECE_BYTES", 2)
    content = bytearray(b"0123456789")
    before = find_revision(make_model(tmp_path / "a", bytes(content)))
    content[changed] = 0
    after = find_revision(make_model(tmp_path / "a", bytes(content)))
    assert before != after
    assert before is not None
    assert before.endswith("(of parts of its weights)")


def test_a_revision_that_was_asked_for_is_it(tmp_path: Path) -> None:
    assert find_revision(TeacherConfig(model="org/name", extra_args=("--revision", "abc"))) == "abc"


def test_what_cannot_be_told_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert find_revision(TeacherConfig(model=str(make_model(tmp_path / "m", name="weights.bin").model))) is None
    assert find_revision(TeacherConfig(model="org/never-loaded")) is None
