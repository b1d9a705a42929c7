"""The benchmark itself, on a server that writes what a schema asks for, and nonsense without one."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from benchmarks import structured
from benchmarks.structured import ROWS, fits_label, fits_rows, judge, run_all, show, summarize, usable_rows
from engine.records import Completion, FinishReason, Timings, Usage
from engine.testing.server import ScriptedServer

NAMES = frozenset({"a", "b"})
GOOD = [{"text": f"row {number}", "label": "ab"[number % 2]} for number in range(ROWS)]


@pytest.mark.parametrize(
    ("reply", "fits", "usable"),
    [
        (json.dumps(GOOD), True, ROWS),
        (json.dumps(GOOD[1:]), False, ROWS - 1),
        (json.dumps([*GOOD, GOOD[0]]), False, ROWS),
        (f"Sure: {json.dumps(GOOD)}", False, ROWS),
        (json.dumps(GOOD)[:-1], False, ROWS),
        (json.dumps([*GOOD[1:], {"text": "x", "label": "c"}]), False, ROWS - 1),
        (json.dumps([*GOOD[1:], {"text": "", "label": "a"}]), False, ROWS - 1),
        (json.dumps([*GOOD[1:], {"text": "x", "label": "a", "why": 1}]), False, ROWS),
        (json.dumps([*GOOD[1:], {"text": "x", "label": ["a"]}]), False, ROWS - 1),
        ("[" * 100_000, False, 0),
        ("", False, 0),
    ],
)
def test_a_reply_fits_its_schema_or_not_and_its_rows_can_be_used_or_not(reply: str, fits: bool, usable: int) -> None:
    assert fits_rows(reply, NAMES) is fits
    assert usable_rows(reply, NAMES, 100) == usable


@pytest.mark.parametrize(("reply", "fits"), [('{"label": "a"}', True), ('{"label": "c"}', False), ("a", False), ('{"label": []}', False)])
def test_a_label_fits_or_not(reply: str, fits: bool) -> None:
    assert fits_label(reply, NAMES) is fits


def test_what_was_cut_off_is_no_failure_of_the_schema() -> None:
    def completion(text: str, reason: FinishReason) -> Completion:
        return Completion("0", text, reason, Usage(10, 50), Timings(0.0, 1.0, 1))

    completions = [completion(json.dumps(GOOD), FinishReason.STOP), completion(json.dumps(GOOD)[:-4], FinishReason.LENGTH),
                   completion("no", FinishReason.STOP)]  # fmt: skip
    one = judge("rows", "free", completions, 2.0, NAMES, 100)
    assert (one.replies, one.schema_failures, one.cut_off, one.asked, one.usable) == (3, 1, 1, 3 * ROWS, 2 * ROWS - 1)
    assert (one.failure_share, one.tokens_per_s, one.rows_per_1000_tokens) == (0.5, 75.0, 100.0)


async def test_both_ways_are_asked_the_same_and_only_one_is_constrained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structured, "DRAWS", 2)
    monkeypatch.setattr(structured, "NUM_TEXTS", 16)
    async with ScriptedServer() as server:
        first, passes = await run_all(2, server.base_url)
    assert [(one.kind, one.mode) for one in first] == [(kind, mode) for kind in ("rows", "labels") for mode in ("constrained", "free")]
    assert len(passes) == 8
    lines = {(line["kind"], line["mode"]): line for line in summarize(passes)}
    for kind in ("rows", "labels"):
        constrained, free = lines[kind, "constrained"], lines[kind, "free"]
        assert constrained["replies"] == free["replies"] > 0
        assert (constrained["schema_failure_share"], constrained["usable_share"]) == (0.0, 1.0)
        # Without a schema the scripted server knows neither labels nor how many rows.
        assert (free["schema_failure_share"], free["usable_share"]) == (1.0, 0.0)
    shown = io.StringIO()
    show(list(lines.values()), Console(file=shown, width=160))
    assert "constrained" in shown.getvalue()
