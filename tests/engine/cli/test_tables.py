"""`query`, `show` and `replay` as a user meets them: every form of output, and nothing that a teacher wrote reaches a terminal raw."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from engine.cli import app, tables
from engine.errors import UserError
from engine.records import RowCounts
from engine.rundir import RunDir, write_json
from engine.runs.manifest import Manifest
from engine.store import Store, unescape
from tests.engine.store.builders import add_row, make_call, make_completion, make_rejection, make_round, make_run, make_sample

REQUEST = "a1" + "0" * 30
HOSTILE = 'half \ud83d, NUL \0, \x1b[2J \x9b2J \u202e "quoted", [bold]\nline'


@pytest.fixture
async def run(tmp_path: Path) -> RunDir:
    run = make_run(tmp_path)
    server = {"command": ["vllm", "\x1b[2J"], "environment": {}}
    write_json(run.run_json, Manifest({"teacher": {"model": "teacher \x1b[2J"}}, {"python": "3.11"}, "2026-01-01", servers=(server,)))
    outcome = make_completion(REQUEST, HOSTILE)
    async with Store(run) as store:
        await store.record(outcome)
        add_row(store, replace(make_sample(f"{REQUEST}-0", HOSTILE), label=HOSTILE))
        add_row(store, replace(make_rejection(f"{REQUEST}-1"), raw=HOSTILE, detail=HOSTILE))
        await store.add_call(make_call(REQUEST, rows=RowCounts(2, accepted=1, rejected=1), outcome=outcome))
        await store.complete_round(make_round(1, RowCounts(2, accepted=1, rejected=1)))
    return run


def reflux(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def assert_inert(output: str) -> None:
    assert not any(character in output for character in "\0\x1b\x9b\u202e")
    output.encode()


def test_a_table_for_people(run: RunDir) -> None:
    result = reflux("query", run.root, "select id, text, 1.50 as price, null as nothing, [1, 2] as list from samples")
    assert_inert(result.stdout)
    assert result.stdout.split()[:5] == ["id", "text", "price", "nothing", "list"]
    assert "\\ud83d" in result.stdout
    assert "[bold]" in result.stdout
    assert "1.50  null" in " ".join(result.stdout.split("\n"))
    assert "1 row" in result.stderr


def test_json_is_the_text_itself(run: RunDir) -> None:
    result = reflux("query", run.root, "select text, 170141183460469231731687303715884105727::hugeint as n from samples", "--json")
    assert json.loads(result.stdout) == [{"text": HOSTILE, "n": 2**127 - 1}]
    assert_inert(result.stdout)
    assert json.loads(reflux("query", run.root, "select 1 where false", "--json").stdout) == []


def test_csv_keeps_texts(run: RunDir) -> None:
    result = reflux("query", run.root, "select text, null as nothing, {'a': text} as nested from samples", "--csv")
    header, row = csv.reader(io.StringIO(result.stdout_bytes.decode(), newline=""))
    assert header == ["text", "nothing", "nested"]
    assert row[:2] == [HOSTILE.replace("\ud83d", "\\ud83d"), ""]
    assert json.loads(row[2]) == {"a": HOSTILE}


def test_parquet_keeps_types(run: RunDir, tmp_path: Path) -> None:
    target = tmp_path / "rows.parquet"
    result = reflux("query", run.root, "select text, latency_s, started_at, interval 1 day as i from calls", "--parquet", target)
    assert "1 row in" in result.stderr.replace("\n", " ")
    table = pq.read_table(target)
    assert unescape(table.column("text")[0].as_py()) == HOSTILE
    assert [str(kind) for kind in table.schema.types] == ["string", "double", "timestamp[us, tz=UTC]", "string"]
    assert [path.name for path in tmp_path.glob(".*.tmp")] == []


def test_a_large_table_is_cut_and_counted(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_SHOWN", 3)
    result = reflux("query", run.root, "select range as n from range(25000)")
    assert result.stdout.split() == ["n", "0", "1", "2"]
    assert "25,000 rows; the first 3 are shown" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--json", "--csv"), "exclude each other"),
        (("--parquet", "{run}/tables/samples/000001.parquet"), "within the run"),
        (("--parquet", "{run}/../nowhere/a.parquet"), "no file that can be written"),
        (("--allow", "nowhere"), "nowhere: no such file or folder"),
    ],
)
def test_wrong_options_of_query(run: RunDir, options: tuple[str, ...], message: str) -> None:
    before = {path: path.read_bytes() for path in run.tables.rglob("*.parquet")}
    with pytest.raises(UserError, match=message):
        reflux("query", run.root, "select 1", *(option.format(run=run.root) for option in options))
    assert {path: path.read_bytes() for path in run.tables.rglob("*.parquet")} == before


def test_allowed_files(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "marks.csv").write_text("mark\n7\n")
    sql = f"select mark from '{tmp_path}/marks.csv'"
    assert json.loads(reflux("query", run.root, sql, "--json", "--allow", tmp_path / "marks.csv").stdout) == [{"mark": 7}]
    with pytest.raises(UserError, match="disabled by configuration"):
        reflux("query", run.root, sql)


@pytest.mark.parametrize("id", [f"{REQUEST}-0", f"{REQUEST}-1", REQUEST])
def test_a_story_is_inert(run: RunDir, id: str) -> None:
    result = reflux("show", run.root, id)
    assert_inert(result.stdout)
    assert REQUEST in result.stdout
    assert "write" in result.stdout.splitlines()
    told = reflux("show", run.root, id, "--json")
    assert_inert(told.stdout)
    story = json.loads(told.stdout)
    assert story["call"]["outcome"]["text"] == HOSTILE
    assert story["prompt"] == [{"role": "user", "content": "write"}]


def test_replay_refuses_what_it_cannot_do(run: RunDir) -> None:
    with pytest.raises(UserError, match=r"cannot change strategy\.rounds"):
        reflux("replay", run.root, "--set", "strategy.rounds=3")


@pytest.mark.parametrize("command", [["show", "nowhere", "a1"], ["replay", "nowhere"]])
def test_a_folder_that_is_no_run(command: list[str]) -> None:
    with pytest.raises(UserError, match="nowhere is no run directory"):
        reflux(*command)
