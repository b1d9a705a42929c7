import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.store import layout
from benchmarks.store.__main__ import WANTED, measure, show
from benchmarks.store.duplicates import ALTERATIONS, measure_accuracy
from benchmarks.store.layout import CANDIDATES
from benchmarks.store.texts import TextSource
from engine.gates.gates import comparable

ROWS = 20_000


@pytest.mark.timeout(180)  # three processes that import all there is, on a machine that may be busy
def test_a_short_run_measures_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(layout, "CANDIDATES", CANDIDATES[:2])
    result = json.loads(json.dumps(measure(ROWS, 1, layout_rows=2_000, judged_rows=500, copies=5, folder=tmp_path)))
    show(result, Console())
    assert all(result[name] > 0 for name in WANTED)
    assert {figures["side"] for figures in result["passes"]} == {"store", "pyarrow"}
    assert all(figures["rows"] == ROWS for figures in result["passes"])
    assert [line["layout"] for line in result["layouts"]["lines"]] == [candidate.name for candidate in CANDIDATES[:2]]
    # One in ten is rejected, and what was written is what the gates read back.
    assert result["gates"]["near"]["known_rows"] == result["gates"]["exact"]["known_rows"] == pytest.approx(0.9 * ROWS, rel=0.02)
    assert set(result["gates"]["accuracy"]["by_alteration"]) == {*ALTERATIONS, "no copy"}
    assert "100,000" in capsys.readouterr().out


def test_the_gate_finds_altered_copies_and_lets_other_rows_in() -> None:
    source = TextSource(seed=5)
    accuracy = measure_accuracy([source.row().text for _ in range(1_000)], copies_of_a_kind=20)
    assert accuracy["recall"] > 0.9
    assert accuracy["precision_within_0.05"] > 0.95
    assert accuracy["by_alteration"]["1 letter"]["refused"] == 1.0
    assert accuracy["by_alteration"]["no copy"]["refused"] == 0.0


def test_texts_are_distinct_and_the_same_for_the_same_seed() -> None:
    rows, again, others = ([source.row() for _ in range(500)] for source in (TextSource(1), TextSource(1), TextSource(2)))
    assert rows == again
    assert rows != others
    assert len({comparable(row.text) for row in rows}) == len(rows)
