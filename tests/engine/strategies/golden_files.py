"""Prompts as a reader would want to see them, in `golden/`, a folder a kind of task.

To accept a change on purpose: delete the file and run its test twice; the first run writes it anew.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from engine.config import RunConfig
from engine.records import TaskSpec
from engine.rehearsal import as_text, make_up_report, rehearse
from prompts import FOLDER

GOLDEN = Path(__file__).parent / "golden"


def few_rows(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a round that is short to read."""
    rows: dict[str, Any] = {"rows_per_round": 12, "rows_per_call": 1 if method == "pool" else 4} | settings
    return rows | (dict.fromkeys(("right", "wrong", "hard", "examples"), 2) if method in ("pgkd", "hybrid") else {})


def sent_and_golden(config: RunConfig, task: TaskSpec, golden: Path) -> tuple[str, str]:
    """What a round of this run would send, and what the file says. One that is missing is written, and fails the test."""
    text = as_text(rehearse(config, task, make_up_report(config, task)))
    if not golden.exists():
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, encoding="utf-8")
        pytest.fail(f"{golden.name} was missing and is written now; read it, and run again")
    return text, golden.read_text(encoding="utf-8")


def templates(pattern: str = "*/*.jinja") -> set[str]:
    """By name; what they share is none."""
    return {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob(pattern) if path.parent.name != "shared"}


def shown_templates(folder: Path) -> set[str]:
    """In its golden files."""
    return {name for path in folder.glob("*.txt") for name in re.findall(r"^## turn .*: (\S+)@", path.read_text(encoding="utf-8"), re.M)}
