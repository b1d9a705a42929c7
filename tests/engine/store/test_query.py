from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import StoreError, UserError
from engine.rundir import RunDir
from engine.store import SCHEMAS, Store, append_evaluation, connect, open_query, run_query, stored_as_json
from tests.engine.store.builders import (
    add_row,
    make_call,
    make_completion,
    make_evaluation,
    make_rejection,
    make_round,
    make_run,
    make_sample,
)


@pytest.fixture
async def run(tmp_path: Path) -> RunDir:
    run = make_run(tmp_path)
    async with Store(run) as store:
        add_row(store, make_sample("a1-0", "where is it"))
        add_row(store, make_sample("a1-1", "NUL \0 and half \ud83d <b>'; drop table samples"))
        add_row(store, make_rejection("a1-2"))
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
        add_row(store, make_sample("a9-0", round=3))
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
        ("select * from nothing", r"Catalog Error: [\s\S]*\nTables: samples, rejections, calls, prompts, rounds, .*, variants, teachers$"),
        ("select ending from rounds", r"Binder Error: [\s\S]*\nColumns of rounds: round, report, .*, macro_f1, weighted_f1, loss$"),
        ("select error('x')", "Invalid Input Error: x"),
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


# A row at a time, in each of the forms.

VALUES: list[tuple[str, str | None, str]] = [
    (f"{2**127 - 1}::hugeint", str(2**127 - 1), str(2**127 - 1)),
    (f"{2**128 - 1}::uhugeint", str(2**128 - 1), str(2**128 - 1)),
    ("12345678901234567890.10::decimal(22, 2)", "12345678901234567890.10", "12345678901234567890.10"),
    ("0.1::double", "0.1", "0.1"),
    ("'nan'::double", "nan", "null"),
    ("timestamptz '2023-11-14 22:13:20.25+00'", "2023-11-14 22:13:20.25+00", '"2023-11-14 22:13:20.25+00"'),
    ("timestamp 'infinity'", "infinity", '"infinity"'),
    ("date '0044-03-15 (BC)'", "0044-03-15 (BC)", '"0044-03-15 (BC)"'),
    ("interval 3 months", "3 months", '"3 months"'),
    ("null", None, "null"),
    ("true", "true", "true"),
    ("[1, null]", "[1,null]", "[1,null]"),
    ("{'a': [chr(0)], 'b': map {'k': 1.5}}", '{"a":["\\u0000"],"b":{"k":1.5}}', '{"a":["\\u0000"],"b":{"k":1.5}}'),
    ("{'NaN': 'NaN', 'x': 'nan'::double}", '{"NaN":"NaN","x":NaN}', '{"NaN":"NaN","x":null}'),
    ("chr(0) || chr(27) || chr(64976) || 'd83d'", "\0\x1b\ufdd0d83d", '"\\u0000\\u001B\\ud83d"'),
    ("'\\x00'::blob", "\\x00", '"\\\\x00"'),
]


def in_form(run: RunDir, sql: str, form: Any) -> list[tuple[Any, ...]]:
    with open_query(run, sql, form) as result:
        return [row for batch in result.batches for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]


def test_values_of_every_kind_are_written_right(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    sql = "select " + ", ".join(f"{expression} as c{number}" for number, (expression, _, _) in enumerate(VALUES))
    assert in_form(run, sql, "text") == [tuple(text for _, text, _ in VALUES)]
    (row,) = in_form(run, sql, "json")
    written = ["null" if value is None else stored_as_json(value) for value in row]
    assert written == [value for _, _, value in VALUES]
    for value in written:
        json.loads(value)


def test_what_arrow_has_no_type_for_is_text_in_files(tmp_path: Path) -> None:
    sql = "select " + ", ".join(f"{expression} as c{number}" for number, (expression, _, _) in enumerate(VALUES))
    with open_query(RunDir(tmp_path), sql) as result:
        table = pa.Table.from_batches(result.batches, result.schema)
    pq.write_table(table, tmp_path / "all.parquet")
    (row,) = pq.read_table(tmp_path / "all.parquet", columns=["c0", "c1", "c8", "c11"]).to_pylist()
    assert int(row["c0"]) == 2**127 - 1
    assert row["c1"] == str(2**128 - 1)
    assert row["c8"] == "3 months"
    assert row["c11"] == [1, None]


def test_columns_of_one_name_stay_apart(run: RunDir) -> None:
    with open_query(run, "select 1 as a, 2 as a, 3 as a_1") as result:
        assert result.columns == ("a", "a_1", "a_1_1")
        assert [batch.to_pylist() for batch in result.batches] == [[{"a": 1, "a_1": 2, "a_1_1": 3}]]


def test_a_large_result_is_taken_piece_by_piece(run: RunDir) -> None:
    with open_query(run, "select range as number from range(1000000000)", "text") as result:
        sizes = [next(result.batches).num_rows for _ in range(3)]
        assert max(sizes) <= 10_000
    assert result.is_number == (True,)


def test_a_wrong_value_late_in_a_result_is_told(run: RunDir) -> None:
    sql = "select if(range = 900000, error('too late'), range) from range(1000000)"
    with pytest.raises(UserError, match="too late"), open_query(run, sql) as result:
        for _ in result.batches:
            pass


def test_sums_that_need_more_memory_than_there_may_be(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.store.query.MAX_MEMORY", 32 * 2**20)
    with pytest.raises(UserError, match="more memory than it may have"):
        run_query(run, "select list(range || repeat('x', 100)) from range(3000000)")


# Files that the SQL was allowed to read.


def read_allowed(run: RunDir, sql: str, *allow: Path) -> list[tuple[Any, ...]]:
    with open_query(run, sql, "arrow", allow) as result:
        return [tuple(row.values()) for batch in result.batches for row in batch.to_pylist()]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "a.csv").write_text("id,mark\na1-0,7\n")
    (tmp_path / "secret.csv").write_text("a\n1\n")
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    return folder


def test_a_folder_or_a_file_may_be_allowed(run: RunDir, outside: Path) -> None:
    sql = f"select mark from samples join '{outside}/a.csv' using (id)"
    assert read_allowed(run, sql, outside) == read_allowed(run, sql, outside / "a.csv") == [(7,)]


@pytest.mark.parametrize(
    "sql",
    [
        "select * from '{outside}/../secret.csv'",
        "select * from '{outside}/link.csv'",
        "select * from '{segment}'",
        "copy (select 1) to '{outside}/new.csv'",
        "select 1; copy (select 1) to '{outside}/new.csv'",
        "explain analyze copy (select 1) to '{outside}/new.csv'",
        "attach '{outside}/new.db'",
        "create table t as select 1",
        "pragma profiling_output = '{outside}/out.json'",
    ],
)
def test_nothing_else_is_read_and_nothing_is_written(run: RunDir, outside: Path, sql: str) -> None:
    before = sorted(outside.iterdir())
    with pytest.raises(UserError):
        read_allowed(run, sql.format(outside=outside, segment=run.table("samples") / "000001.parquet"), outside)
    assert sorted(outside.iterdir()) == before


def test_what_is_allowed_is_there(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.csv: no such file or folder"):
        read_allowed(run, "select 1", tmp_path / "nowhere.csv")
