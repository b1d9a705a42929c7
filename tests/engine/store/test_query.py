from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from engine.errors import StoreError, UserError
from engine.rundir import RunDir
from engine.store import SCHEMAS, Store, append_evaluation, connect, run_query
from tests.engine.store.builders import make_call, make_completion, make_evaluation, make_rejection, make_round, make_run, make_sample


@pytest.fixture
async def run(tmp_path: Path) -> RunDir:
    run = make_run(tmp_path)
    async with Store(run) as store:
        store.add_sample(make_sample("a1-0", "where is it"))
        store.add_sample(make_sample("a1-1", "NUL \0 and half \ud83d <b>'; drop table samples"))
        store.add_rejection(make_rejection("a1-2"))
        await store.record(make_completion("a1"))
        await store.add_call(make_call("a1"))
        await store.complete_round(make_round(1))
        await store.complete_round(make_round(2))
    append_evaluation(run, make_evaluation(1, "validation", macro_f1=0.5))
    append_evaluation(run, make_evaluation(1, "test", macro_f1=0.4))
    return run


def rows(run: RunDir, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in run_query(run, sql).to_pylist()]


def test_tables_that_have_no_file_yet_are_empty_and_have_their_columns(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "not even a folder")
    for name in SCHEMAS:
        result = run_query(run, f"select * from {name}")
        assert result.num_rows == 0
        assert set(result.schema.names) >= set(SCHEMAS[name].names)


def test_every_table_answers(run: RunDir) -> None:
    assert rows(run, "select label, count(*) from samples group by 1") == [("refund", 2)]
    assert rows(run, "select reason from rejections") == [("duplicate",)]
    assert rows(run, "select outcome, endings[1], rows_failed, strftime(started_at, '%Y-%m-%d %H:%M') from calls") == [
        ("completed", "accepted", 1, "2023-11-14 22:13")
    ]
    assert rows(run, "select messages[1].content from calls join prompts using (prompt_hash)") == [("write",)]
    assert run_query(run, "select started_at from calls").schema.field(0).type == pa.timestamp("us", "UTC")
    assert rows(run, "select round, split from evaluations order by split") == [(1, "test"), (1, "validation")]


def test_rounds_stand_beside_the_students_validation_scores(run: RunDir) -> None:
    assert rows(run, "select round, blocks['examples'], macro_f1, loss from rounds order by round") == [
        (1, 16, 0.5, 1.25),
        (2, 16, None, None),
    ]


def test_odd_strings_can_be_asked_for(run: RunDir) -> None:
    assert rows(run, "select id from samples where text like '%' || chr(0) || ' and half ' || chr(64976) || 'd83d%'") == [("a1-1",)]
    assert rows(run, "select id from samples where text = 'where is it' and round > 0") == [("a1-0",)]


async def test_a_query_beside_a_writer_sees_what_is_committed(run: RunDir) -> None:
    count = "select count(*) from samples"
    async with Store(run) as store:
        store.add_sample(make_sample("a9-0", round=3))
        (run.table("samples") / ".000009.parquet.1.tmp").write_bytes(b"half a segment")
        assert rows(run, count) == [(2,)]
        with connect(run) as connection:
            await store.seal()
            assert connection.execute(count).fetchall() == [(2,)]
        assert rows(run, count) == [(3,)]


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('{secret}')",
        "select * from read_csv('{secret}')",
        "select * from '{secret}'",
        "select * from glob('{folder}/*')",
        "select * from sniff_csv('{secret}')",
        "create table t (line varchar); copy t from '{secret}'",
        "copy (select 1) to '{folder}/out.csv'",
        "copy (select 1) to 'out.csv'",
        "copy (select 1) to '.tmp/out.csv'",
        "copy (select 1 as id) to '{segment}' (format parquet)",
        "select * from read_parquet('{segment}')",
        "export database '{folder}/out'",
        "attach '{folder}/new.db'",
        "install httpfs",
        "load httpfs",
        "create persistent secret s (type s3)",
        "select * from 'http://127.0.0.1:9/x.parquet'",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "reset lock_configuration",
        "set allowed_directories = ['/']",
        "set temp_directory = '{folder}'",
        "call enable_logging(storage = 'file', storage_path = '{folder}/log')",
        "pragma profiling_output = '{folder}/out.json'",
        "insert into samples (id) values ('x')",
    ],
)
def test_sql_reaches_no_file_and_no_setting(run: RunDir, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "outside"
    folder.mkdir()
    monkeypatch.chdir(folder)
    secret = folder / "secret.txt"
    secret.write_text("a,b\n")
    spill = folder / ".tmp"
    spill.mkdir()
    segment = run.table("samples") / "000001.parquet"
    before = segment.read_bytes()
    with pytest.raises(UserError):
        run_query(run, sql.format(secret=secret, folder=folder, segment=segment))
    assert set(folder.rglob("*")) == {secret, spill}
    assert segment.read_bytes() == before


def test_sql_sees_no_python_variable(run: RunDir) -> None:
    with connect(run) as connection:
        variable = pa.table({"a": [1]})
        assert variable.num_rows == 1
        with pytest.raises(duckdb.CatalogException):
            connection.execute("select * from variable")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec 1", 'Parser Error: syntax error at or near "selec"'),
        ("select lable from samples", r'Binder Error: .*"lable"[\s\S]*"label"'),
        ("select * from sample", r'Catalog Error: .*sample does not exist![\s\S]*"samples"'),
        ("select cast(text as int) from samples", "Conversion Error"),
        ("", "the SQL returns no rows"),
        ("-- nothing", "the SQL returns no rows"),
        ("select '\udcff'", "surrogates|Unicode|UTF"),
    ],
)
def test_wrong_sql_is_told_in_few_words(run: RunDir, sql: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        run_query(run, sql)
    assert "LINE 1" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_damaged_segment_is_not_the_users_mistake(run: RunDir) -> None:
    (run.table("samples") / "000001.parquet").write_bytes(b"PAR1 but no more PAR1")
    with pytest.raises(StoreError, match=r"000001\.parquet"):
        run_query(run, "select count(*) from samples")
