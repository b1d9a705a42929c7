"""Rows in and out: each once, in order, with what it came with, whatever the kind of file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UserError
from engine.records import TaskKind
from engine.text import Content
from student import row_reader
from student.labelling import Tally, label_rows
from student.predictions import Predictions
from student.row_reader import count_rows, lines_at_once, read_chunks, read_lines, read_objects
from student.row_writer import writing

ROWS = [
    {"id": "007", "text": "a tool", "score": 1.5},
    {"id": "8", "text": "", "score": 2.0},
    {"id": "9", "text": "beasts, all", "score": 3.0},
]


class Lengths:
    """Says `long` of more than five characters; cuts at eight."""

    labels = ("short", "long")
    max_length = 8
    kind: TaskKind = "classification"

    def __init__(self) -> None:
        self.windows: list[int] = []

    def predict_texts(self, texts: Sequence[Content], batch_size: int = 64) -> Predictions:
        self.windows.append(len(texts))
        probabilities = np.array([[0.25, 0.75] if len(text) > 5 else [1.0, 1e-30] for text in texts]).reshape(-1, 2)
        return Predictions(self.labels, np.log(probabilities), sum(len(text) > 8 for text in texts))


def write_rows(path: Path, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    table = pa.Table.from_pylist(list(rows))
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".csv":
            pa_csv.write_csv(table, path)
        case _:
            pq.write_table(table, path)
    return path


def read_back(path: Path) -> list[dict[str, Any]]:
    match path.suffix:
        case ".jsonl":
            return [json.loads(line) for line in path.read_text().splitlines()]
        case ".csv":
            return pa_csv.read_csv(path, convert_options=pa_csv.ConvertOptions(strings_can_be_null=True)).to_pylist()
        case _:
            return pq.read_table(path).to_pylist()


def label(source: Path, target: Path, column: str = "text") -> Tally:
    predictor = Lengths()
    with writing(target, predictor.labels) as write:
        return label_rows(predictor, read_chunks(source, column), write, probabilities=True)


@pytest.mark.parametrize("before", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("after", [".jsonl", ".csv", ".parquet"])
def test_every_kind_of_file_becomes_every_other(before: str, after: str, tmp_path: Path) -> None:
    tally = label(write_rows(tmp_path / f"in{before}"), tmp_path / f"out{after}")
    rows = read_back(tmp_path / f"out{after}")
    assert [row["predicted"] for row in rows] == ["long", "short", "long"]
    assert [row["confidence"] for row in rows] == [0.75, 1, 0.75]
    # In CSV everything is text, until somebody reads it as something else.
    assert [str(row["id"]).lstrip("0") for row in rows] == ["7", "8", "9"]
    assert [float(row["score"]) for row in rows] == [1.5, 2, 3]
    assert [row["text"] or "" for row in rows] == ["a tool", "", "beasts, all"]
    found = rows[0]["probabilities"]
    assert (json.loads(found) if after == ".csv" else found) == {"short": 0.25, "long": 0.75}
    assert all(row.get("problem") is None for row in rows)
    assert tally == Tally(rows=3, cut=1, empty=1)
    assert {path.name for path in tmp_path.iterdir()} == {f"in{before}", f"out{after}"}


def test_types_survive_parquet(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "at": pa.array([1, 2], pa.timestamp("ns")), "few": pa.array(["x", "x"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "in.parquet")
    label(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").select(table.column_names).cast(table.schema) == table


def test_bad_rows_stay_in_their_place_and_say_why(tmp_path: Path) -> None:
    lines = ['{"text": "a tool", "n": 1}', "{no json", "[1]", "", '{"n": 2}', '{"text": 5}', '{"text": null}', '{"text": "ok"}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    tally = label(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    rows = read_back(tmp_path / "out.jsonl")
    assert [row["predicted"] for row in rows] == ["long", None, None, None, None, None, "short"]
    assert [row.get("problem", "").split(":")[0] for row in rows] == ["", "line 2", "line 3", "line 5", "line 6", "line 7", ""]
    assert "'text' is int, expected a string" in rows[4]["problem"]
    assert rows[3]["n"] == 2
    assert (tally.rows, tally.problems) == (7, 5)
    assert tally.first_problem.startswith("line 2: no JSON")


def test_a_null_is_no_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array(["a", None, "c"])}), tmp_path / "in.parquet")
    assert label(tmp_path / "in.parquet", tmp_path / "out.parquet").first_problem == "row 2: 'text' has no text"
    assert [row["predicted"] for row in read_back(tmp_path / "out.parquet")] == ["short", None, "short"]


def test_memory_holds_one_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_reader, "WINDOW_ROWS", 10)
    for kind in (".jsonl", ".parquet", ".csv"):
        path = write_rows(tmp_path / f"in{kind}", [{"text": f"text {number}"} for number in range(95)])
        predictor = Lengths()
        texts: list[Content] = []
        label_rows(predictor, read_chunks(path, "text"), lambda chunk, _, texts=texts: texts.extend(chunk.texts))
        assert texts == [f"text {number}" for number in range(95)]
        assert max(predictor.windows) == 10
    assert count_rows(tmp_path / "in.parquet") == 95
    assert count_rows(tmp_path / "in.csv") is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.jsonl", '{"text": "a", "predicted": "b"}\n', "have a column 'predicted' already"),
        ("in.csv", "text,confidence\na,b\n", "have a column 'confidence' already"),
        ("in.csv", "message\na\n", "no column 'text'; it has message; name another with --text-column"),
        ("in.csv", "text,n\na,1\nb,2,3\n", "not a readable .csv file"),
        ("in.parquet", "no parquet", "not a readable .parquet file"),
        ("in.txt", "a", "unknown kind of file '.txt'"),
    ],
)
def test_what_cannot_be_read_is_told(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        label(tmp_path / name, tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == [name], "half a file was left"


def test_a_field_that_comes_late_fits_into_json_lines_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_reader, "WINDOW_ROWS", 1)
    write_rows(tmp_path / "in.jsonl", [{"text": "a"}, {"text": "b", "n": 1}])
    label(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(UserError, match=r"the field 'n' comes only after the first rows; give a name that ends in \.jsonl"):
        label(tmp_path / "in.jsonl", tmp_path / "out.parquet")


def test_an_earlier_output_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": "b", "problem": 1}\n')
    (tmp_path / "out.jsonl").write_text("earlier")
    with pytest.raises(UserError):
        label(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "earlier"


@pytest.mark.parametrize(("name", "message"), [("out.txt", "unknown kind of file"), ("nowhere/out.csv", "there is no folder")])
def test_where_nothing_can_be_written(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        label(write_rows(tmp_path / "in.jsonl"), tmp_path / name)


class Pieces:
    """A pipe that gives what its writer wrote at once."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    def read1(self, size: int = -1, /) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def test_a_line_is_answered_before_the_next_is_written() -> None:
    windows = read_lines(lines_at_once(Pieces([b"one\n", b"two\nthr", b"ee\n\nfour"])), "text")
    assert [list(window.texts) for window in windows] == [["one"], ["two"], ["three", ""], ["four"]]


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]))), st.randoms())
def test_lines_come_whole_however_a_pipe_cuts_them(texts: list[str], random: Any) -> None:
    content = "".join(f"{text}\n" for text in texts).encode()
    cuts = sorted(random.randint(0, len(content)) for _ in range(5))
    pieces = [content[first:last] for first, last in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    found = [text for chunk in read_lines(lines_at_once(Pieces(pieces)), "text") for text in chunk.texts]
    assert found == texts


def test_json_lines_on_a_pipe() -> None:
    (chunk,) = read_objects(lines_at_once(Pieces([b'{"text": "a", "n": [1]}\n'])), "text")
    assert chunk.records == [{"text": "a", "n": [1]}]


def test_a_pipe_without_an_end_of_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_reader, "MAX_LINE_BYTES", 4)
    with pytest.raises(UserError, match="a line of more than"):
        list(lines_at_once(Pieces([b"abcdef"])))
