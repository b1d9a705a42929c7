"""The prompts of each method, word for word, as a reader would want to see them.

To accept a change on purpose: delete tests/engine/strategies/golden/METHOD.txt and run this twice; the first run writes it anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.strategies.golden_files import GOLDEN, sent_and_golden, shown_templates, templates
from tests.engine.strategies.schooling import TAUGHT, make_config, make_task

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
    sent, golden = sent_and_golden(config, task, GOLDEN / f"{name}.txt")
    assert sent == golden


def test_every_template_is_in_a_golden_file() -> None:
    assert shown_templates(GOLDEN) - {"eda/vary"} == templates()
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(VARIANTS)
