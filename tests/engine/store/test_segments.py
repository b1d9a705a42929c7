# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs)

from __future__ import annotations

import resource
from pathlib import Path

import pyarrow as pa
import pytest
from msgspec.structs import replace

from engine.errors import StoreError
from engine.records import Alternative
from engine.rundir import RunDir
from engine.store import compact, read_calls, read_samples
from engine.store.answers import CommittedCalls
from engine.store.schemas import SCHEMAS, VERSION_KEY, pack_calls, pack_prompts, pack_samples, unpack_samples
from engine.store.segments import committed, covered, prepare_folder, read_parts, read_table, write_segment
from tests.engine.store.builders import make_call, make_completion, make_origin, make_request, make_sample

SAMPLES = SCHEMAS["samples"]


def write(folder: Path, *ids: str) -> int:
    return write_segment(folder, pack_samples([make_sample(id) for id in ids]))


def ids(table: pa.Table) -> list[str]:
    return [sample.id for sample in unpack_samples(table)]


def names(folder: Path, after: int = 0) -> list[str]:
    return [segment.path.name for segment in committed(folder, after)]


def test_segments_are_numbered_and_read_in_order(tmp_path: Path) -> None:
    assert [write(tmp_path, "a-0", "a-1"), write(tmp_path, "b-0")] == [1, 2]
    assert ids(read_table(tmp_path, SAMPLES)) == ["a-0", "a-1", "b-0"]
    assert names(tmp_path) == ["000001.parquet", "000002.parquet"]
    assert names(tmp_path, after=1) == ["000002.parquet"]


def test_order_is_by_number_past_a_million(tmp_path: Path) -> None:
    (tmp_path / "000001-999999.parquet").touch()
    assert write(tmp_path, "a-0") == 1_000_000
    assert names(tmp_path) == ["000001-999999.parquet", "1000000.parquet"]


def test_a_merged_segment_counts_instead_of_those_in_it(tmp_path: Path) -> None:
    for name in ("000001.parquet", "000002.parquet", "000002-000003.parquet", "000003.parquet", "000001-000003.parquet", "000004.parquet"):
        (tmp_path / name).touch()
    assert names(tmp_path) == ["000001-000003.parquet", "000004.parquet"]
    assert names(tmp_path, after=2) == ["000001-000003.parquet", "000004.parquet"]
    assert names(tmp_path, after=3) == ["000004.parquet"]
    assert sorted(path.name for path in covered(tmp_path)) == [
        "000001.parquet",
        "000002-000003.parquet",
        "000002.parquet",
        "000003.parquet",
    ]


def test_a_missing_segment_is_an_error_not_fewer_rows(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, f"{number}-0")
    (tmp_path / "000002.parquet").unlink()
    with pytest.raises(StoreError, match=r"segment 2 is missing in .*cannot be read without it"):
        read_table(tmp_path, SAMPLES)


def test_what_has_no_final_name_is_no_segment(tmp_path: Path) -> None:
    write(tmp_path, "a-0")
    for name in (".000002.parquet.77.tmp", "notes.txt", "000003.parquet.bak"):
        (tmp_path / name).write_bytes(b"torn")
    assert ids(read_table(tmp_path, SAMPLES)) == ["a-0"]
    prepare_folder(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001.parquet", "000003.parquet.bak", "notes.txt"]


def test_no_segment_yet_is_an_empty_table(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        assert read_table(folder, SAMPLES).schema.names == SAMPLES.names
        assert read_table(folder, SAMPLES, ["id"]).to_pylist() == []


def test_a_disk_that_refuses_is_named_and_nothing_stays(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot write .*000001\.parquet: File too large"):
            write(tmp_path, "a-0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreError, match="No such file"):
        write(tmp_path / "missing", "a-0")


def test_a_segment_of_another_version_is_refused(tmp_path: Path) -> None:
    newer = SAMPLES.with_metadata({VERSION_KEY: b"samples 99"}).empty_table()
    write_segment(tmp_path, newer)
    with pytest.raises(StoreError, match=r"holds 'samples 99', this Reflux reads 'samples 5'"):
        read_table(tmp_path, SAMPLES)


@pytest.mark.parametrize("position", [0, 200, -1])
def test_a_damaged_segment_is_an_error(tmp_path: Path, position: int) -> None:
    write(tmp_path, *(f"a-{number}" for number in range(50)))
    (segment,) = committed(tmp_path)
    path = segment.path
    content = bytearray(path.read_bytes())
    content[position : position + 8 if position >= 0 else None] = b"????????"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"cannot read the table|no Parquet file"):
        read_parts(segment, SAMPLES)


@pytest.mark.parametrize(("version", "lacking"), [(1, "replays"), (4, "text_pair")])
def test_segments_of_an_earlier_version_are_read_beside_new_ones(tmp_path: Path, version: int, lacking: str) -> None:
    columns = [name for name in SAMPLES.names if name != lacking]
    sample = make_sample("a1-0")
    (tmp_path / "tables" / "samples").mkdir(parents=True)
    earlier = pack_samples([sample]).select(columns).replace_schema_metadata({VERSION_KEY: f"samples {version}".encode()})
    replaying = replace(make_sample("a2-0"), origin=replace(make_origin("a2"), replays="a1-1"))
    for rows in (earlier, pack_samples([replaying]), pack_samples([make_sample("a3-0")])):
        write_segment(tmp_path / "tables" / "samples", rows)
    run = RunDir(tmp_path)
    assert [row.origin.replays for row in read_samples(run)] == [None, "a1-1", None]
    first, *_ = committed(run.table("samples"))
    assert unpack_samples(read_parts(first, SAMPLES)[0]) == [sample]
    compact(run)
    assert [segment.last for segment in committed(run.table("samples"))] == [2, 3]
    assert read_samples(run)[:2] == [sample, replaying]


def test_calls_from_before_log_probabilities_are_read_and_merged_with_new_ones(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    folder = run.table("calls")
    for table in ("calls", "prompts"):
        run.table(table).mkdir(parents=True)
    columns = [name for name in SCHEMAS["calls"].names if name not in ("regex", "top_logprobs", "logprobs")]
    earlier = pack_calls([make_call("a1")]).select(columns).replace_schema_metadata({VERSION_KEY: b"calls 3"})
    told = replace(make_completion("a2"), logprobs=((Alternative("A", -0.1), Alternative("B", -2.5)),))
    sampling = replace(make_request().sampling, json_schema=None, regex="[A-B]", top_logprobs=20)
    coded = replace(make_call("a2", outcome=told), request=replace(make_request(), sampling=sampling))
    for rows in (earlier, pack_calls([coded]), pack_calls([make_call("a3")])):
        write_segment(folder, rows)
    write_segment(run.table("prompts"), pack_prompts([make_request()]))
    for _ in range(2):
        assert read_calls(run) == [make_call("a1"), coded, make_call("a3")]
        answers = CommittedCalls(folder)
        assert [(found.outcome, found.round) for name in ("a1", "a2") if (found := answers.find(name))] == [
            (make_completion("a1"), 1),
            (told, 1),
        ]
        compact(run)
