"""The model card says what the run did, and whatever a label or a description holds stays text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from engine.config import RunConfig
from engine.records import Finish, RoundRecord, RowCounts
from engine.reports import ClassScore, Confusion, FinalReport, Scores, StudentScores, WeaknessReport
from engine.rundir import RunDir, write_json
from engine.store.schemas import pack_rounds
from engine.store.segments import write_segment
from student.card import as_markdown, render_card
from tests.student.builders import LABELS, make_config, make_run

HOSTILE = "a|b](http://evil)<script>alert(1)</script>\n---\n# h `x` ![i](http://e) $x$ www.e.com {{ 7*7 }} \x1b[31m"


def make_finished_run(root: Path, config: RunConfig, labels: tuple[str, ...]) -> tuple[RunDir, FinalReport]:
    run = make_run(root, config)
    write_segment(run.table("rounds"), pack_rounds([RoundRecord(1, 0, 1, 1, RowCounts(10, 8, 1, 1), 10, 10, 0.1)]))
    classes = tuple(ClassScore(label, 0.5, 0.25, 0.1 * number, number) for number, label in enumerate(labels))
    sides: list[StudentScores] = []
    for round, f1 in ((0, 0.4567), (1, 0.7891)):
        scores = Scores(f1, f1, f1, 18)
        report = WeaknessReport(round, 1.0, scores, classes, (), "out_of_fold", (), (), (), 6 + 8 * round, 1.0, 3)
        write_json(run.report(round), report)
        sides.append(StudentScores(round, scores, classes, (Confusion(labels[0], labels[1], 4),)))
    write_json(run.finish, Finish(1, 1, "all 1 rounds done"))
    return run, FinalReport(sides[0], sides[1], config.student.encoder, 12345, "float32")


@pytest.fixture
def card(tmp_path: Path) -> str:
    config = make_config(tmp_path / "data", tmp_path / "encoders" / "tiny")
    return render_card(*make_finished_run(tmp_path / "run", config, LABELS), max_length=48)


def test_it_says_what_the_run_did(card: str, tmp_path: Path) -> None:
    for words in (
        "| seed | 6 |",
        "| taught | 8 |",
        "asked for 10 rows: 8 were accepted, 1 rejected by a check, and 1 never came",
        "| macro F1 | 0.457 | 0.789 |",
        "| tool |  | 0.500 | 0.250 | 0.100 | 1 |",
        "1. fruit, taken for tool: 4 rows",
        "longer than 48 tokens",
        "Never tested, as test has no row of them: fruit.",
        "12,345 parameters",
        'pipeline("text-classification", model="path/to/this/folder")',
    ):
        assert words in card
    assert str(tmp_path) not in card
    assert "apple" not in card, "a row was shown"


def test_the_front_matter_is_what_the_hub_reads(card: str) -> None:
    _, front, _ = card.split("---\n", 2)
    data = yaml.safe_load(front)
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "text-classification")
    assert {"reflux", "pgkd"} <= set(data["tags"])
    assert "base_model" not in data, "a folder of this machine is no model of the hub"
    metrics = data["model-index"][0]["results"][0]["metrics"]
    assert {metric["name"]: metric["value"] for metric in metrics} == {"accuracy": 0.7891, "macro F1": 0.7891, "weighted F1": 0.7891}


def test_hostile_labels_stay_text(tmp_path: Path) -> None:
    labels = (HOSTILE[:150], "-->", "other")
    config = make_config(tmp_path / "data", tmp_path / "tiny")
    names = [{"name": name, "description": HOSTILE} for name in labels]
    config = RunConfig.model_validate(config.model_dump() | {"task": config.task.model_dump() | {"labels": names, "domain": HOSTILE[:150]}})
    card = render_card(*make_finished_run(tmp_path / "run", config, labels), max_length=48)
    plain = render_card(*make_finished_run(tmp_path / "plain", make_config(tmp_path / "d", tmp_path / "tiny"), LABELS), max_length=48)
    assert structure(card) == structure(plain)
    assert "\x1b" not in card


def structure(card: str) -> list[str]:
    """The kinds of things that Markdown sees, without the front matter; text is no kind."""
    kinds: list[str] = []
    for token in MarkdownIt("gfm-like", {"linkify": False}).parse(card.split("---\n", 2)[2]):
        kinds.append(token.type)
        kinds += [child.type for child in token.children or () if child.type not in ("text", "text_special", "softbreak")]
    return kinds


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    rendered = MarkdownIt("gfm-like", {"linkify": False}).renderInline(f"x {as_markdown(text)} x")
    assert not re.search(r"<(?!br)", rendered)
    assert "\n" not in as_markdown(text)


def test_labels_of_the_usual_kind_are_left_alone() -> None:
    assert as_markdown("card_not_received") == "card_not_received"
    assert as_markdown("_a_") == r"\_a\_"
    assert as_markdown("www.e.com http://x") == r"www\.e.com http\://x"
