"""What holds for every method on a task whose rows are pairs of texts, in whole runs against a scripted teacher; and its prompts, word for
word.

To accept a change of a prompt on purpose: delete tests/engine/strategies/golden/pair/NAME.txt and run this twice.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine.progress import Silent
from engine.records import RejectionReason, Request, RowCounts, content_of
from engine.rundir import RunDir
from engine.store import connect, read_samples
from engine.strategies.forms import form_of
from engine.testing.teacher import ScriptedTeacher, answer, write_rows
from tests.engine.strategies import golden_files
from tests.engine.strategies.golden_files import few_rows, sent_and_golden, shown_templates, templates
from tests.engine.strategies.pairs import make_pair_config, make_pair_task, report_on_pairs
from tests.engine.strategies.schooling import HELD_OUT, LABELS, TAUGHT, generating, teach

METHODS = [*TAUGHT]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in METHODS),
    ("evokd", {"init_rounds": 1, "first_batch": "unguided"}),
    ("hybrid", {"labelling": "none"}),
    ("pool", {"rows_per_call": 1}),
    ("pool", {"sections": {"labelling": {"soft": True}}}),
]


@pytest.mark.parametrize(("method", "settings"), VARIANTS)
async def test_rows_are_pairs_and_add_up(tmp_path: Path, method: str, settings: dict[str, Any]) -> None:
    task, config = make_pair_task(tmp_path), make_pair_config(method, **settings)
    records = await teach(tmp_path / "run", config, task, ScriptedTeacher(answer), 3, report_on_pairs)
    assert all(record.rows.is_balanced for record in records)
    total = sum((record.rows for record in records), RowCounts())
    assert total.accepted > 0
    run = RunDir(tmp_path / "run")
    samples = read_samples(run)
    assert len(samples) == total.accepted
    assert all(sample.annotation is not None and sample.annotation.text_pair for sample in samples)
    assert {sample.label for sample in samples} <= {*LABELS}
    with connect(run) as connection:
        prompts = connection.execute("select content from (select unnest(messages, recursive := true) from prompts)").fetchall()
        stored = connection.execute("select text, text_pair from samples").fetchall()
    assert [text for (text,) in prompts if any(word in text for word in HELD_OUT)] == []
    assert {*stored} == {content_of(sample) for sample in samples}
    if method == "pool":
        assert {re.sub(r"\D", "", first) for first, _ in stored} == {re.sub(r"\D", "", second) for _, second in stored}
    if method == "eda":
        sides = [{row.content[side] for row in task.seed} for side in (0, 1)]
        assert all((first in sides[0]) or (second in sides[1]) for first, second in stored)


def say(*rows: object) -> ScriptedTeacher:
    return ScriptedTeacher(lambda _: json.dumps(rows))


async def test_what_is_no_pair_or_no_new_one_is_refused_with_a_reason(tmp_path: Path) -> None:
    task = make_pair_task(tmp_path)
    known, held_out = task.seed[0], task.validation[0]
    config = make_pair_config("zerogen", rows_per_round=9, rows_per_call=9)
    rows = [
        {"text": "is it open", "text_pair": "from nine to five", "label": LABELS[0]},
        {"text": "Is it open?", "text_pair": "from nine, to five", "label": LABELS[1]},
        {"text": "is it open", "text_pair": "no idea", "label": LABELS[0]},
        {"text": known.text, "text_pair": known.text_pair, "label": LABELS[0]},
        {"text": held_out.text, "text_pair": held_out.text_pair, "label": LABELS[0]},
        {"text": "one text", "label": LABELS[0]},
        {"text": "one text", "text_pair": "  ", "label": LABELS[0]},
        {"text": "one text", "text_pair": "x" * 3000, "label": LABELS[0]},
        {"text": "one text", "text_pair": "another", "label": "unheard of"},
    ]
    (record,) = await teach(tmp_path / "run", config, task, say(*rows), 1, report_on_pairs)
    assert record.rows == RowCounts(9, accepted=2, rejected=7)
    with connect(RunDir(tmp_path / "run")) as connection:
        refused = connection.execute("select reason, detail, text_pair from rejections order by id").fetchall()
        kept = connection.execute("select text_pair from samples order by id").fetchall()
    assert kept == [("from nine to five",), ("no idea",)]
    assert [(reason, detail) for reason, detail, _ in refused] == [
        (RejectionReason.DUPLICATE, "the same text is already there"),
        (RejectionReason.DUPLICATE, "the same text is already there"),
        (RejectionReason.LEAKAGE, "a row of validation or test"),
        (RejectionReason.SCHEMA, 'no string "text_pair"'),
        (RejectionReason.EMPTY, "no second text"),
        (RejectionReason.TOO_LONG, "3000 characters in the second text, at most 2000"),
        (RejectionReason.UNKNOWN_LABEL, "label 'unheard of'"),
    ]
    assert refused[0][2] == "from nine, to five"


async def test_a_label_given_to_a_pair_leaves_it_a_pair(tmp_path: Path) -> None:
    def reply(request: Request) -> str:
        schema = json.loads(request.sampling.json_schema or "")
        if "number" in schema["items"]["properties"]:
            return json.dumps([{"number": number, "label": LABELS[0]} for number in range(1, 5)])
        return json.dumps([{"text": f"question {number} {request.id}", "text_pair": f"answer {number}"} for number in range(4)])

    config = make_pair_config("hybrid", rows_per_round=12, easy_share=0, disagreement="keep")
    (record,) = await teach(tmp_path / "run", config, make_pair_task(tmp_path), ScriptedTeacher(reply), 1, report_on_pairs)
    assert record.rows == RowCounts(12, accepted=12)
    samples = read_samples(RunDir(tmp_path / "run"))
    assert {(sample.label, sample.annotation and sample.annotation.text_pair) for sample in samples} == {
        (LABELS[0], f"answer {number}") for number in range(4)
    }


def test_variants_are_pairs_with_the_label_of_their_original(tmp_path: Path) -> None:
    task = make_pair_task(tmp_path)
    found = form_of(task).parse_variants('[{"text": "a", "text_pair": "b"}, {"text": "c"}, "d"]', task.seed[0])
    assert [(content_of(row), row.label, row.problem) for row in found] == [
        (("a", "b"), task.seed[0].label, None),
        ("", task.seed[0].label, 'no string "text_pair"'),
    ]


async def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """What was answered is not asked again, and the gates know the pairs of before."""
    task, config = make_pair_task(tmp_path), make_pair_config("zerogen")
    whole = ScriptedTeacher(write_rows)
    await teach(tmp_path / "whole", config, task, whole, 2, report_on_pairs)
    first, second = ScriptedTeacher(write_rows), ScriptedTeacher(write_rows)
    await teach(tmp_path / "parts", config, task, first, 1, report_on_pairs)
    async with generating(tmp_path / "parts", config, task, second) as generation:
        assert generation.last_round == 1
        await generation.ask_round(2, report_on_pairs(tmp_path / "parts", task, 1), Silent())
    assert {request.id for request in whole.requests} == {request.id for request in (*first.requests, *second.requests)}
    rows = [{(row.id, content_of(row)) for row in read_samples(RunDir(tmp_path / name))} for name in ("whole", "parts")]
    assert rows[0] == rows[1]


# The prompts.

GOLDEN = golden_files.GOLDEN / "pair"
SHOWN: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in METHODS if name != "eda"},
    "hybrid_with_labels": ("hybrid", {"labelling": "none", "lengths": (), "styles": ()}),
    "pool_in_batches": ("pool", {"rows_per_call": 4}),
    "pool_with_codes": ("pool", {"sections": {"labelling": {"soft": True, "calibrate": "none"}}}),
}


@pytest.mark.parametrize("name", SHOWN)
def test_prompts_are_word_for_word_the_golden_ones(tmp_path: Path, name: str) -> None:
    method, settings = SHOWN[name]
    config, task = make_pair_config(method, **few_rows(method, settings)), make_pair_task(tmp_path)
    sent, golden = sent_and_golden(config, task, GOLDEN / f"{name}.txt")
    assert sent == golden


def test_every_template_is_in_a_golden_file() -> None:
    assert shown_templates(GOLDEN) == templates()
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(SHOWN)
