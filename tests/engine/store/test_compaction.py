from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StoreError, UserError
from engine.rundir import RunDir
from engine.store import (
    SCHEMAS,
    Compacted,
    Store,
    compact,
    compaction,
    connect,
    query,
    read_samples,
    run_query,
    samples_since,
    tables,
    unpack_samples,
)
from engine.store.schemas import pack_samples
from engine.store.segments import committed, read_parts, write_segment
from tests.engine.store.builders import add_row, make_call, make_completion, make_round, make_run, make_sample


class CrashError(Exception):
    pass


@pytest.fixture
async def run(tmp_path: Path) -> RunDir:
    """Three rounds of two segments, of which the last is in progress."""
    run = make_run(tmp_path)
    async with Store(run) as store:
        for round in (1, 2, 3):
            for request_id in (f"{round}a", f"{round}b"):
                await store.record(make_completion(request_id, request_id))
                add_row(store, make_sample(f"{request_id}-0", round=round))
                await store.add_call(make_call(request_id, round, outcome=make_completion(request_id, request_id)))
                await store.seal()
            if round < 3:
                await store.complete_round(make_round(round))
    return run


ALL_IDS = ["1a-0", "1b-0", "2a-0", "2b-0", "3a-0", "3b-0"]


def ids(run: RunDir) -> list[str]:
    return [sample.id for sample in read_samples(run)]


def names(run: RunDir, table: str = "samples") -> list[str]:
    return sorted(path.name for path in run.table(table).iterdir())


def rows(run: RunDir) -> dict[str, list[str]]:
    with connect(run) as connection:
        found = {name: connection.sql(f"select * from {name}").to_arrow_table() for name in SCHEMAS}
    return {name: sorted(map(str, table.to_pylist())) for name, table in found.items()}


def since(run: RunDir, watermark: int, round: int) -> tuple[list[str], int]:
    rows, reached = samples_since(run, watermark, round)
    return [sample.id for sample in unpack_samples(rows)], reached


def test_small_segments_become_one_and_the_last_stays(run: RunDir) -> None:
    assert Compacted("samples", merged=5, into=1) in compact(run)
    assert names(run) == ["000001-000005.parquet", "000006.parquet"]
    assert ids(run) == ALL_IDS
    assert compact(run) == [Compacted(name, 0, 0) for name in SCHEMAS]


def test_large_segments_are_left_and_merged_ones_do_not_outgrow_the_limit(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    size = max(segment.path.stat().st_size for segment in committed(run.table("samples")))
    monkeypatch.setattr(compaction, "MAX_MERGED_BYTES", 2 * size)
    compact(run)
    assert names(run) == ["000001-000002.parquet", "000003-000004.parquet", "000005.parquet", "000006.parquet"]
    monkeypatch.setattr(compaction, "SMALL_BYTES", size)
    compact(run)
    assert names(run) == ["000001-000002.parquet", "000003-000004.parquet", "000005.parquet", "000006.parquet"]
    assert ids(run) == ALL_IDS


@pytest.mark.parametrize("watermark", range(6))
@pytest.mark.parametrize("round", [1, 2])
def test_a_student_reads_the_same_rows_by_any_watermark_merged_or_not(run: RunDir, watermark: int, round: int) -> None:
    before = since(run, watermark, round)
    compact(run)
    assert since(run, watermark, round) == before


async def test_the_writer_goes_on_behind_a_merged_segment_and_replays_what_is_in_it(run: RunDir) -> None:
    async with Store(run) as store:
        assert store.replay("1a") == make_completion("1a", "1a")
        compact(run)
        assert store.replay("3a") == make_completion("3a", "3a")
        assert store.replay("2b") == make_completion("2b", "2b")
        assert not add_row(store, make_sample("2b-0", round=3))
        add_row(store, make_sample("3c-0", round=3))
        await store.complete_round(make_round(3))
    assert names(run) == ["000001-000005.parquet", "000006.parquet", "000007.parquet"]
    assert since(run, 4, 3) == (["3a-0", "3b-0", "3c-0"], 7)
    compact(run)
    assert ids(run) == [*ALL_IDS, "3c-0"]


def test_readers_that_lose_a_file_under_their_feet_list_again(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = since(run, 0, 2)

    def lose(segment: Any, schema: Any) -> Any:
        monkeypatch.setattr(tables, "read_parts", read_parts)
        compact(run)
        return read_parts(segment, schema)

    monkeypatch.setattr(tables, "read_parts", lose)
    assert since(run, 0, 2) == expected


def test_a_query_that_loses_a_file_asks_again(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect_and_lose(run: RunDir, **options: Any) -> Any:
        monkeypatch.setattr(query, "connect", connect)
        connection = connect(run, **options)
        compact(run)
        return connection

    monkeypatch.setattr(query, "connect", connect_and_lose)
    assert run_query(run, "select count(*) as n from samples where text <> ''").to_pylist() == [{"n": 6}]


def test_a_listing_taken_while_files_move_is_taken_again(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = Path.iterdir

    def half_way(folder: Path) -> Any:
        # As if the merged file had come behind where the listing was, and the others gone before it got there.
        monkeypatch.setattr(Path, "iterdir", listed)
        compact(run)
        return [path for path in listed(folder) if "-" not in path.name]

    monkeypatch.setattr(Path, "iterdir", half_way)
    assert [segment.path.name for segment in committed(run.table("samples"))] == ["000001-000005.parquet", "000006.parquet"]


def test_killed_at_any_step_it_leaves_each_row_visible_once(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(run)
    steps = 0
    limit = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            if steps >= limit:
                raise CrashError
            steps += 1
            return function(*args, **kwargs)

        return step

    is_done = False
    while not is_done:
        # What is half-done stays half-done, and each time one step more is taken from there.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", counted(os.fstat))
            for name in ("rename", "unlink"):
                patch.setattr(Path, name, counted(getattr(Path, name)))
            steps, limit = 0, limit + 1
            try:
                compact(run)
                is_done = True
            except CrashError:
                pass
        assert rows(run) == before
    assert limit > 5
    assert names(run) == ["000001-000005.parquet", "000006.parquet"]


def test_two_compactions_at_once_are_one(run: RunDir) -> None:
    with run.lock("compaction"), pytest.raises(UserError, match="another compaction works on it"):
        compact(run)


def test_a_damaged_segment_stops_it_and_nothing_is_deleted(run: RunDir) -> None:
    path = run.table("samples") / "000003.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    before = names(run)
    with pytest.raises(StoreError, match=r"000003\.parquet"):
        compact(run)
    assert [name for name in names(run) if not name.startswith(".")] == before


def test_rows_keep_their_order_over_row_groups(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "row_group_rows", lambda schema: 4)  # pyright: ignore[reportUnknownLambdaType]
    folder = run.table("samples")
    for first in range(0, 30, 5):
        write_segment(folder, pack_samples([make_sample(f"{first + number:02x}-0") for number in range(5)]))
    before = ids(run)
    compact(run)
    assert ids(run) == before
