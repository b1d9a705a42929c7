from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import StoreError
from engine.records import Sample
from engine.rundir import RunDir
from engine.store import Store, append_evaluation, read_rounds, samples_since, unpack_samples
from engine.store.query import run_query
from tests.engine.store.builders import add_row, make_evaluation, make_round, make_run, make_sample


@pytest.fixture
async def run(tmp_path: Path) -> RunDir:
    """Two rounds are complete and the third has a committed row."""
    run = make_run(tmp_path)
    async with Store(run) as store:
        add_row(store, make_sample("a-0", round=1))
        await store.seal()
        add_row(store, make_sample("b-0", round=1))
        await store.complete_round(make_round(1))
        add_row(store, make_sample("c-0", round=2))
        await store.complete_round(make_round(2))
        add_row(store, make_sample("d-0", round=3))
    return run


def ids(run: RunDir, watermark: int, round: int) -> tuple[list[str], int]:
    table, reached = samples_since(run, watermark, round)
    samples: list[Sample] = unpack_samples(table)
    return [sample.id for sample in samples], reached


def test_the_student_gets_each_row_once_by_its_watermark(run: RunDir) -> None:
    assert ids(run, 0, round=0) == ([], 0)
    assert ids(run, 0, round=1) == (["a-0", "b-0"], 2)
    assert ids(run, 2, round=1) == ([], 2)
    assert ids(run, 2, round=2) == (["c-0"], 3)
    assert ids(run, 0, round=2) == (["a-0", "b-0", "c-0"], 3)


def test_rows_of_a_round_in_progress_are_kept_back(run: RunDir) -> None:
    with pytest.raises(StoreError, match=r"round 3 .* is not complete"):
        samples_since(run, 0, round=3)


def test_rounds_are_read_in_order(run: RunDir) -> None:
    assert read_rounds(run) == [make_round(1), make_round(2)]


def test_a_student_is_scored_once_on_a_split(run: RunDir) -> None:
    (run.table("evaluations") / ".000001.parquet.77.tmp").write_bytes(b"torn")
    assert append_evaluation(run, make_evaluation(1, "validation", macro_f1=0.5))
    assert append_evaluation(run, make_evaluation(1, "test", macro_f1=0.4))
    assert not append_evaluation(run, make_evaluation(1, "validation", macro_f1=0.6))
    rows = run_query(run, "select split, macro_f1 from evaluations order by split").to_pylist()
    assert rows == [{"split": "test", "macro_f1": 0.4}, {"split": "validation", "macro_f1": 0.5}]
    assert sorted(path.name for path in run.table("evaluations").iterdir()) == ["000001.parquet", "000002.parquet"]
