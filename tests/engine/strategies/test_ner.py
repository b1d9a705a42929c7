"""What holds for every method on a task that marks entities, in whole runs against a scripted teacher; and its prompts, word for word.

To accept a change of a prompt on purpose: delete tests/engine/strategies/golden/ner/NAME.txt and run this twice.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine.config import LabellingConfig, SamplingConfig
from engine.labels.marking import check_spans
from engine.prompting import Prompt, Prompter
from engine.records import (
    Annotation,
    Candidate,
    Completion,
    FinishReason,
    Marking,
    RejectionReason,
    Request,
    RowCounts,
    Span,
    Timings,
    Usage,
)
from engine.reports import MinedRow
from engine.rundir import RunDir
from engine.store import connect, read_samples
from engine.strategies import Answer
from engine.strategies.focus import Focus, choose_focuses, resting
from engine.strategies.forms import form_of
from engine.teacher.panel import Panel
from engine.testing.teacher import ScriptedTeacher, write_rows
from prompts import PromptLibrary
from tests.engine.strategies import golden_files
from tests.engine.strategies.golden_files import few_rows, sent_and_golden, shown_templates, templates
from tests.engine.strategies.schooling import HELD_OUT, TAUGHT, teach
from tests.engine.strategies.tagging import TYPES, make_ner_config, make_ner_task, report_on_spans

METHODS = [name for name in TAUGHT if name != "eda"]
VARIANTS: list[tuple[str, Marking, dict[str, Any]]] = [
    *((name, "inline", {}) for name in METHODS),
    *((name, "json", {}) for name in ("pgkd", "evokd", "hybrid", "auggpt", "pool")),
    ("evokd", "inline", {"init_rounds": 1, "first_batch": "unguided"}),
    ("hybrid", "inline", {"labelling": "none"}),
    ("pool", "json", {"rows_per_call": 1}),
]


@pytest.mark.parametrize(("method", "marking", "settings"), VARIANTS)
async def test_rows_have_entities_and_add_up(tmp_path: Path, method: str, marking: Marking, settings: dict[str, Any]) -> None:
    task, config = make_ner_task(tmp_path / "task", marking), make_ner_config(method, marking, **settings)
    records = await teach(tmp_path / "run", config, task, ScriptedTeacher(write_rows), 3, report_on_spans)
    assert all(record.rows.is_balanced for record in records)
    total = sum((record.rows for record in records), RowCounts())
    assert total.accepted > 0
    run = RunDir(tmp_path / "run")
    samples = read_samples(run)
    assert len(samples) == total.accepted
    for sample in samples:
        assert sample.label == ""
        assert sample.annotation is not None
        check_spans(sample.text, sample.annotation.spans, TYPES)
        assert [sample.text[span.start : span.end] for span in sample.annotation.spans] == [sample.text.split()[0]]
    with connect(run) as connection:
        prompts = connection.execute("select content from (select unnest(messages, recursive := true) from prompts)").fetchall()
        templates = connection.execute("select distinct template from calls").fetchall()
    assert [text for (text,) in prompts if any(word in text for word in HELD_OUT)] == []
    assert all(name.startswith("ner/") for (name,) in templates)


async def test_what_the_teacher_marks_wrongly_is_refused_with_a_reason(tmp_path: Path) -> None:
    replies = ["<PER>Al</PER> goes", "<CITY>Bern</CITY> calls", "<PER>Al and <日付>May</日付></PER>", "nobody here"]

    def say(request: Request) -> str:
        return json.dumps([{"text": text} for text in replies])

    task, config = make_ner_task(tmp_path / "task"), make_ner_config("zerogen", rows_per_round=4)
    (record,) = await teach(tmp_path / "run", config, task, ScriptedTeacher(say), 1, report_on_spans)
    assert record.rows == RowCounts(4, accepted=2, rejected=2)
    with connect(RunDir(tmp_path / "run")) as connection:
        refused = connection.execute("select reason, detail from rejections order by id").fetchall()
    assert refused == [
        (RejectionReason.SPANS, "unknown type 'CITY'"),
        (RejectionReason.SPANS, "entities overlap: 'PER' is not closed before '日付'"),
    ]


@pytest.mark.parametrize("marking", ["inline", "json"])
async def test_a_text_without_the_type_it_was_asked_for_is_a_disagreement(tmp_path: Path, marking: Marking) -> None:
    def say(request: Request) -> str:
        schema = json.loads(request.sampling.json_schema or "")
        if "number" not in schema["items"]["properties"]:
            return json.dumps([{"text": f"Ana is {number} {request.id}"} for number in range(4)])
        texts = re.findall(r'^\d+\. "(.*)"$', request.messages[-1].content, re.M)
        marked = [text.replace("Ana", "<PER>Ana</PER>") for text in texts]
        if marking == "inline":
            return json.dumps([{"number": number, "text": text} for number, text in enumerate(marked[:-1], start=1)])
        entities = [{"text": "Ana", "type": "PER"}]
        return json.dumps([{"number": number, "entities": entities} for number, _ in enumerate(marked[:-1], start=1)])

    task, config = make_ner_task(tmp_path / "task", marking), make_ner_config("hybrid", marking, rows_per_round=12, easy_share=0)
    (record,) = await teach(tmp_path / "run", config, task, ScriptedTeacher(say), 1, report_on_spans)
    with connect(RunDir(tmp_path / "run")) as connection:
        reasons = connection.execute("select weakness, reason, count(*) from rejections group by 1, 2 order by 1, 2").fetchall()
        details = connection.execute("select distinct detail from rejections where reason = 'disagreement' order by 1").fetchall()
    others = sorted(f"type:{type}" for type in TYPES[1:])
    assert record.rows == RowCounts(12, accepted=3, rejected=9)
    assert reasons == [
        *[("type:PER", "unlabelled", 1)],
        *[(name, reason, count) for name in others for reason, count in (("disagreement", 3), ("unlabelled", 1))],
    ]
    assert details == [(f"asked for {type!r}, marked 'PER'",) for type in sorted(TYPES[1:], key=repr)]


def test_requests_name_types_boundaries_and_pairs(tmp_path: Path) -> None:
    report = report_on_spans(tmp_path, make_ner_task(tmp_path), 0)
    names = {focus.name for focus in choose_focuses(report, 1, 12, single="type")}
    assert names == {*(f"type:{type}" for type in TYPES), f"pair:{TYPES[0]}>{TYPES[1]}", f"boundary:{TYPES[1]}"}
    still = resting([report] * 3, 2, 0.1, single="type")
    assert Focus(TYPES[1:2], "boundary") in still
    assert Focus(TYPES[:1], "type") in still


def test_mistakes_shown_are_of_the_very_weakness(tmp_path: Path) -> None:
    form = form_of(make_ner_task(tmp_path))
    per, place, date = TYPES
    row = MinedRow("Ana in Bern", "", "", 0.9, (Span(0, 3, per), Span(7, 11, place)), (Span(0, 3, date), Span(7, 10, place)))
    assert form.missed_in(row) == (per, place, date)
    assert all(form.shows(row, Focus((type,), "type")) for type in TYPES)
    assert [form.shows(row, Focus((per, other), "pair")) for other in (place, date)] == [False, True]
    assert [form.shows(row, Focus((type,), "boundary")) for type in TYPES] == [False, True, False]


def test_a_variant_with_other_types_than_its_original_is_a_disagreement(tmp_path: Path) -> None:
    task = make_ner_task(tmp_path)
    original = MinedRow("Ana", "", "", 0.9, (Span(0, 3, "PER"),), ())
    reply = json.dumps([{"text": "<PER>Bo</PER> and <PER>Cy</PER>"}, {"text": "Bo"}])
    same, other = form_of(task).parse_variants(reply, original)
    assert same == Candidate(
        '{"text": "<PER>Bo</PER> and <PER>Cy</PER>"}', "Bo and Cy", annotation=Annotation((Span(0, 2, "PER"), Span(7, 9, "PER")))
    )
    assert (other.reason, other.problem) == (RejectionReason.DISAGREEMENT, "asked for 'PER', marked no entity")


@pytest.mark.parametrize("least", [0.5, 0.9])
async def test_several_teachers_vote_on_all_entities_of_a_text_together(tmp_path: Path, least: float) -> None:
    said = {"a": "<PER>Al</PER> and Bo", "b": "<PER>Al</PER> and <PER>Bo</PER>", "c": "<PER>Al</PER> and <PER>Bo</PER>"}
    labelling = LabellingConfig(min_agreement=least)
    prompter = Prompter(PromptLibrary(), "a", SamplingConfig(), 1, panel=Panel(list(said)), labelling=labelling)

    async def ask(prompt: Prompt) -> Answer:
        request = prompter.request(prompt, "x", 0)
        reply = json.dumps({"text": said[request.model]})
        return Answer(prompt, request, Completion(request.id, reply, FinishReason.STOP, Usage(1, 1), Timings(0.0, 0.0, 1)))

    labeller = form_of(make_ner_task(tmp_path)).labeller(prompter)
    (row,) = await labeller.complete([Candidate("", "Al and Bo")], ask, "PER")
    assert row.annotation == Annotation((Span(0, 2, "PER"), Span(7, 9, "PER")), agreement=2 / 3)
    refusal = (RejectionReason.UNCERTAIN, "agreement 0.67, and at least 0.9 is wanted")
    assert row.problem is None if least < 2 / 3 else (row.reason, row.problem) == refusal


# The prompts.

GOLDEN = golden_files.GOLDEN / "ner"
SHOWN: dict[str, tuple[str, Marking, dict[str, Any]]] = {
    **{name: (name, "inline", {}) for name in METHODS},
    "pgkd_json": ("pgkd", "json", {}),
    "evokd_json": ("evokd", "json", {}),
    "hybrid_with_marks": ("hybrid", "inline", {"labelling": "none", "lengths": (), "styles": ()}),
    "pool_json": ("pool", "json", {}),
}


@pytest.mark.parametrize("name", SHOWN)
def test_prompts_are_word_for_word_the_golden_ones(tmp_path: Path, name: str) -> None:
    method, marking, settings = SHOWN[name]
    config, task = make_ner_config(method, marking, **few_rows(method, settings)), make_ner_task(tmp_path, marking)
    sent, golden = sent_and_golden(config, task, GOLDEN / f"{name}.txt")
    assert sent == golden


def test_every_template_is_in_a_golden_file() -> None:
    assert shown_templates(GOLDEN) == templates("ner/*/*.jinja")
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(SHOWN)
