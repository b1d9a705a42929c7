"""What holds for every method on a task whose texts have any number of labels, in whole runs against a scripted teacher; and its prompts,
word for word.

To accept a change of a prompt on purpose: delete tests/engine/strategies/golden/multi_label/NAME.txt and run this twice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engine.config import LabellingConfig, SamplingConfig
from engine.prompting import Prompt, Prompter
from engine.records import Annotation, Candidate, Completion, FinishReason, RejectionReason, Request, RowCounts, Timings, Usage
from engine.reports import MinedRow
from engine.rundir import RunDir
from engine.store import connect, read_samples
from engine.strategies import Answer
from engine.strategies.focus import Focus
from engine.strategies.forms import form_of
from engine.teacher.panel import Panel
from engine.testing.teacher import ScriptedTeacher, write_rows
from prompts import PromptLibrary
from tests.engine.strategies import golden_files
from tests.engine.strategies.golden_files import few_rows, sent_and_golden, shown_templates, templates
from tests.engine.strategies.label_sets import make_set_config, make_set_task, report_on_sets
from tests.engine.strategies.schooling import HELD_OUT, LABELS, TAUGHT, teach

METHODS = [name for name in TAUGHT if name != "eda"]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in METHODS),
    ("evokd", {"init_rounds": 1, "first_batch": "unguided"}),
    ("hybrid", {"labelling": "none"}),
    ("pool", {"rows_per_call": 1}),
]


@pytest.mark.parametrize("allow_none", [True, False])
@pytest.mark.parametrize(("method", "settings"), VARIANTS)
async def test_rows_have_labels_and_add_up(tmp_path: Path, method: str, settings: dict[str, Any], allow_none: bool) -> None:
    task = make_set_task(tmp_path / "task", allow_none=allow_none)
    config = make_set_config(method, allow_none=allow_none, **settings)
    records = await teach(tmp_path / "run", config, task, ScriptedTeacher(write_rows), 3, report_on_sets)
    assert all(record.rows.is_balanced for record in records)
    total = sum((record.rows for record in records), RowCounts())
    assert total.accepted > 0
    run = RunDir(tmp_path / "run")
    samples = read_samples(run)
    assert len(samples) == total.accepted
    found = [sample.annotation.labels for sample in samples if sample.annotation is not None]
    assert len(found) == len(samples)
    for labels in found:
        assert labels is not None
        assert labels == tuple(label for label in LABELS if label in labels)
        assert labels or allow_none
    assert {sample.label for sample in samples} == {""}
    with connect(run) as connection:
        prompts = connection.execute("select content from (select unnest(messages, recursive := true) from prompts)").fetchall()
        stored = connection.execute("select labels from samples order by round, id").fetchall()
    assert [text for (text,) in prompts if any(word in text for word in HELD_OUT)] == []
    assert sorted(len(labels) for (labels,) in stored) == sorted(len(labels or ()) for labels in found)


async def test_labels_that_are_none_of_the_task_s_or_repeat_are_refused_with_a_reason(tmp_path: Path) -> None:
    said: list[Any] = [[LABELS[1], LABELS[0]], [], ["unheard of", LABELS[0]], [LABELS[0], LABELS[0]], LABELS[0], [1]]

    def say(request: Request) -> str:
        return json.dumps([{"text": f"text number {number}", "labels": labels} for number, labels in enumerate(said)])

    task, config = make_set_task(tmp_path / "task"), make_set_config("zerogen", rows_per_round=6, rows_per_call=6)
    (record,) = await teach(tmp_path / "run", config, task, ScriptedTeacher(say), 1, report_on_sets)
    assert record.rows == RowCounts(6, accepted=2, rejected=4)
    assert [sample.annotation and sample.annotation.labels for sample in read_samples(RunDir(tmp_path / "run"))] == [LABELS[:2], ()]
    with connect(RunDir(tmp_path / "run")) as connection:
        refused = connection.execute("select reason, detail from rejections order by id").fetchall()
    assert refused == [
        (RejectionReason.UNKNOWN_LABEL, "label 'unheard of'"),
        (RejectionReason.SCHEMA, f"label {LABELS[0]!r} more than once"),
        (RejectionReason.SCHEMA, 'no list "labels" of strings'),
        (RejectionReason.SCHEMA, 'no list "labels" of strings'),
    ]


async def test_a_row_without_labels_is_refused_where_there_must_be_one(tmp_path: Path) -> None:
    reply = json.dumps([{"text": "one", "labels": []}, {"text": "two", "labels": [LABELS[0]]}])
    task, config = make_set_task(tmp_path / "task", allow_none=False), make_set_config("zerogen", rows_per_round=2, allow_none=False)
    (record,) = await teach(tmp_path / "run", config, task, ScriptedTeacher(lambda _: reply), 1, report_on_sets)
    assert record.rows == RowCounts(2, accepted=1, rejected=1)


async def test_a_text_without_the_label_it_was_asked_for_is_a_disagreement(tmp_path: Path) -> None:
    def say(request: Request) -> str:
        schema = json.loads(request.sampling.json_schema or "")
        if "number" not in schema["items"]["properties"]:
            return json.dumps([{"text": f"Ana is {number} {request.id}"} for number in range(4)])
        return json.dumps([{"number": number, "labels": LABELS[:2]} for number in range(1, 4)])

    task, config = make_set_task(tmp_path / "task"), make_set_config("hybrid", rows_per_round=12, easy_share=0)
    (record,) = await teach(tmp_path / "run", config, task, ScriptedTeacher(say), 1, report_on_sets)
    with connect(RunDir(tmp_path / "run")) as connection:
        reasons = connection.execute("select weakness, reason, count(*) from rejections group by 1, 2 order by 1, 2").fetchall()
        details = connection.execute("select distinct detail from rejections where reason = 'disagreement'").fetchall()
    assert record.rows == RowCounts(12, accepted=6, rejected=6)
    assert [(reason, count) for _, reason, count in reasons] == [
        *[("unlabelled", 1), ("unlabelled", 1)],
        *[("disagreement", 3), ("unlabelled", 1)],
    ]
    assert details == [(f"asked for {LABELS[2]!r}, labelled {LABELS[0]!r}, {LABELS[1]!r}",)]


def test_mistakes_shown_are_of_the_very_weakness(tmp_path: Path) -> None:
    form = form_of(make_set_task(tmp_path))
    row = MinedRow("a text", "", "", 0.9, labels=LABELS[:2], predicted_labels=LABELS[1:])
    assert form.missed_in(row) == (LABELS[0], LABELS[2])
    assert form.shows(row, Focus((LABELS[0],)))
    assert form.shows(row, Focus((LABELS[2],)))
    assert not form.shows(row, Focus((LABELS[1],)))
    assert form.shows(row, Focus((LABELS[0], LABELS[2]), "pair"))
    assert not form.shows(row, Focus((LABELS[2], LABELS[0]), "pair"))


def test_variants_have_the_labels_of_their_original(tmp_path: Path) -> None:
    form = form_of(make_set_task(tmp_path))
    original = MinedRow("a text", "", "", 0.9, labels=LABELS[:2], predicted_labels=())
    found = form.parse_variants('[{"text": "one"}, {"text": 3}, {"text": "two", "labels": ["other"]}]', original)
    assert [candidate.annotation for candidate in found] == [Annotation(labels=LABELS[:2]), None, Annotation(labels=LABELS[:2])]


@pytest.mark.parametrize("least", [0.0, 0.8])
async def test_several_teachers_vote_on_each_label(tmp_path: Path, least: float) -> None:
    answers = {"one": [LABELS[0], LABELS[1]], "two": [LABELS[0]], "three": [LABELS[0], LABELS[2]]}
    sampling, labelling = SamplingConfig(), LabellingConfig(min_agreement=least)
    prompter = Prompter(PromptLibrary(), "one", sampling, 1, panel=Panel(["one", "two", "three"], [1, 1, 1]), labelling=labelling)

    async def ask(prompt: Prompt) -> Answer:
        request = prompter.request(prompt, "series", 0)
        text = json.dumps({"labels": answers[request.model]})
        return Answer(prompt, request, Completion(request.id, text, FinishReason.STOP, Usage(1, 1), Timings(0.0, 0.0, 1)))

    labeller = form_of(make_set_task(tmp_path)).labeller(prompter)
    (labelled,) = await labeller.label(["a text"], ask)
    row = labeller.judge(Candidate("a text", "a text"), labelled)
    # All three say the first label, and two of three that the others are not there.
    assert row.annotation == Annotation(labels=LABELS[:1], agreement=7 / 9)
    refusal = RejectionReason.UNCERTAIN, "agreement 0.78, and at least 0.8 is wanted"
    assert row.problem is None if least < 7 / 9 else (row.reason, row.problem) == refusal


def test_methods_that_cannot_are_refused_with_what_can(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"strategy.type = eda borrows words .* there are pgkd, evokd, .*"):
        make_set_config("eda")
    with pytest.raises(ValidationError, match=r"leave it out for task.kind = multi_label"):
        make_set_config("pool", sections={"labelling": {"soft": True}})


# The prompts.

GOLDEN = golden_files.GOLDEN / "multi_label"
SHOWN: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in METHODS},
    "hybrid_with_labels": ("hybrid", {"labelling": "none", "lengths": (), "styles": ()}),
    "pool_in_batches": ("pool", {"rows_per_call": 4}),
    "pool_with_labels_only": ("pool", {"allow_none": False}),
}


@pytest.mark.parametrize("name", SHOWN)
def test_prompts_are_word_for_word_the_golden_ones(tmp_path: Path, name: str) -> None:
    method, settings = SHOWN[name]
    config, task = (
        make_set_config(method, **few_rows(method, settings)),
        make_set_task(tmp_path, allow_none=settings.get("allow_none", True)),
    )
    sent, golden = sent_and_golden(config, task, GOLDEN / f"{name}.txt")
    assert sent == golden


def test_every_template_is_in_a_golden_file() -> None:
    assert shown_templates(GOLDEN) == templates() - {"labelling/code"}  # soft labels are of tasks with one
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(SHOWN)
