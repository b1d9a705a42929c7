"""The prompts of each method, word for word, as a reader would want to see them.

To accept a change on purpose: delete tests/engine/strategies/golden/METHOD.txt and run this twice; the first run writes it anew.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from engine.rehearsal import as_text, make_up_report, rehearse
from prompts import FOLDER
from tests.engine.strategies.schooling import TAUGHT, make_config, make_task

GOLDEN = Path(__file__).parent / "golden"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in TAUGHT},
    "pgkd_as_published": ("pgkd", {"rows_per_round": 32, "rows_per_call": 32}),
    "hybrid_with_labels": ("hybrid", {"labelling": "none", "lengths": (), "styles": ()}),
    "pool_in_batches": ("pool", {"rows_per_call": 4}),
    "pool_soft": ("pool", {"sections": {"labelling": {"soft": True}}}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_prompts_are_word_for_word_the_golden_ones(tmp_path: Path, name: str) -> None:
    method, settings = VARIANTS[name]
    rows: dict[str, Any] = {"rows_per_round": 12, "rows_per_call": 1 if method == "pool" else 4} | settings
    config, task = make_config(method, **rows), make_task(tmp_path)
    text = as_text(rehearse(config, task, make_up_report(config, task)))
    golden = GOLDEN / f"{name}.txt"
    if not golden.exists():
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, encoding="utf-8")
        pytest.fail(f"{golden.name} was missing and is written now; read it, and run again")
    assert text == golden.read_text(encoding="utf-8")


def test_every_template_is_in_a_golden_file() -> None:
    templates = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("*/*.jinja") if path.parent.name != "shared"}
    shown = {name for path in GOLDEN.glob("*.txt") for name in re.findall(r"^## turn .*: (\S+)@", path.read_text(encoding="utf-8"), re.M)}
    assert shown - {"eda/vary"} == templates
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(VARIANTS)
