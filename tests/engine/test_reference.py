"""The reference pages against the code that they are made from."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from engine.config import METHODS, RunConfig
from engine.reference import FOLDER, _kind, outdated, pages, write  # pyright: ignore[reportPrivateUsage]
from engine.store import SCHEMAS

REPOSITORY = Path(__file__).parents[2]


def test_the_committed_pages_are_those_of_the_code() -> None:
    assert outdated(REPOSITORY / FOLDER) == [], "run `make docs`"


def test_a_page_that_differs_or_is_missing_is_named(tmp_path: Path) -> None:
    assert outdated(tmp_path) == [*pages()]
    write(tmp_path)
    assert outdated(tmp_path) == []
    (tmp_path / "tables.md").write_text("# Tables of a run\n")
    assert outdated(tmp_path) == ["tables.md"]


def all_keys(section: type[BaseModel], name: str = "") -> list[str]:
    """Of a section and of those within it, without the methods'."""
    keys: list[str] = []
    for key, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += all_keys(field.annotation, key if not name else f"{name}.{key}")
        elif key != "strategy":
            keys.append(f"{name} {key}".strip())
    return keys


def test_every_key_of_every_section_and_method_is_there() -> None:
    page = pages()["configuration.md"]
    parts = re.split(r"^##+ ", page, flags=re.MULTILINE)
    for key in all_keys(RunConfig):
        section, _, name = key.rpartition(" ")
        part = next(part for part in parts if part.startswith(f"[{section}]" if section else "# Configuration"))
        assert f"| `{name}` |" in part or f"[[{section}.{name}]]" in page, key
    for method, config in METHODS.items():
        part = next(part for part in parts if part.startswith(f'[strategy] type = "{method}"'))
        assert all(f"| `{name}` |" in part for name in config.model_fields), method


def test_every_key_has_words_of_its_own() -> None:
    """But `type`, which chooses the method whose section says what it is."""
    silent = [line for line in pages()["configuration.md"].splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert [line for line in silent if not line.startswith("| `type` |")] == [], "say what it is, in a docstring below the key"


def test_every_column_of_every_table_is_there() -> None:
    parts = re.split(r"^## ", pages()["tables.md"], flags=re.MULTILINE)[1:]
    assert [part.split()[0] for part in parts] == [*SCHEMAS]
    for part, schema in zip(parts, SCHEMAS.values(), strict=True):
        assert re.findall(r"^\| `(\w+)` ", part, flags=re.MULTILINE) == schema.names


def test_tables_of_a_page_have_as_many_cells_in_each_row() -> None:
    for name, text in pages().items():
        width = None
        for line in text.splitlines():
            cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
            assert width is None or cells is None or cells == width, f"{name}: {line}"
            width = cells


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "whole number"),
        (str | None, "text"),
        (str | tuple[str, ...] | None, "text or list of text"),
        (dict[str, Path], "table of path"),
        (tuple[RunConfig, ...], "list of sections"),
    ],
)
def test_types_are_said_in_words(annotation: object, words: str) -> None:
    assert _kind(annotation) == words


def test_bounds_are_said() -> None:
    class Section(BaseModel):
        share: float = Field(default=0.5, gt=0, le=1)

    from engine.reference import _keys  # pyright: ignore[reportPrivateUsage]

    (key,) = _keys(Section)
    assert (key.kind, key.default) == ("number, > 0, ≤ 1", "0.5")
