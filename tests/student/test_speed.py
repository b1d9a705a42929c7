from pathlib import Path

import pytest

from student import export
from student.model import new_student, save_student
from student.speed import longest, open_ways, time_ways
from tests.student.builders import LABELS, make_config, make_encoder, make_rows

pytest.importorskip("onnxruntime")
TEXTS = [row.text for row in make_rows(8)]
LONG = " ".join(TEXTS)
WAYS = {"torch float32 cpu", "torch bfloat16 cpu", "onnx float32 cpu", "onnx int8 cpu"}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speed")
    config = make_config(folder / "run", make_encoder(folder / "encoder"), student={"max_length": 16})
    save_student(new_student(config.student, LABELS, 0), folder / "student")
    return folder / "student"


def test_every_way_says_how_much_it_reads_and_cuts(student: Path) -> None:
    with open_ways(student, TEXTS) as ways:
        assert {*ways} >= WAYS
        assert {way.max_length for way in ways.values()} == {16}
        timed = time_ways(ways, [TEXTS[:4], [*TEXTS[:3], LONG], TEXTS[:4]])
    for seconds, cut_share in timed.values():
        assert len(seconds) == 2  # the first batch warms up
        assert cut_share == pytest.approx(1 / 12)


def test_a_student_can_be_made_to_read_all_that_its_encoder_can(student: Path) -> None:
    assert longest(student) == 48
    with open_ways(student, TEXTS, 48) as ways:
        assert {way.max_length for way in ways.values()} == {48}
        assert {way.predict_texts([LONG, TEXTS[0]]).num_cut for way in ways.values()} == {1}


def test_a_graph_that_would_not_be_exported_is_timed_and_said(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(export.MIN_SAME_LABELS, "onnx-int8", 1.1)
    told: list[str] = []
    with open_ways(student, TEXTS, on_notice=told.append) as ways:
        assert {*ways} >= WAYS
    (notice,) = told
    assert notice.startswith("onnx int8 cpu says the same as the student on ")


def test_the_only_batch_counts(student: Path) -> None:
    with open_ways(student, TEXTS) as ways:
        assert {len(timed.seconds) for timed in time_ways(ways, [TEXTS[:2]]).values()} == {1}
