"""What is counted of a teacher's replies, and the card that is made of it. Nothing is asked here but a scripted teacher."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, cast

import pytest
from examination import CONFIGS, METHODS, TOGETHER, Row, Writing, examine
from judge import Judge
from lessons import HERE, read_rows
from measure_teacher import calibration_error, label_figures, mark_figures, masked, method_figures, prompt_figures, write_card

from engine.gates.gates import Refusal
from engine.prompting import CodeForm, Prompt, rows_schema
from engine.records import Annotation, Candidate, Completion, Example, FinishReason, Outcome, RejectionReason, Span, Timings, Usage
from engine.reports import Scores
from engine.strategies import Answer
from engine.teacher.batcher import Batcher
from engine.testing.teacher import ScriptedTeacher
from tests.engine.asking import make_lane, make_request

LABELS = ("cancel_order", "track_order")


class Agreeable:
    """A judge that agrees with half of everything."""

    own = Scores(0.9, 0.9, 0.9, 800, micro_f1=0.8)

    def agrees(self, rows: list[Example]) -> Scores:
        return Scores(0.5, 0.5, 0.5, len(rows), micro_f1=0.5)


def answer(text: str, *, template: str = "pgkd/generate@1", code: CodeForm | None = None) -> Answer:
    request = make_request()
    schema = rows_schema(LABELS, 2) if code is None else json.dumps({"enum": ["A", "B"]})
    prompt = Prompt(template, request.messages, schema, "hash", code=code)
    return Answer(prompt, request, Completion(request.id, text, FinishReason.STOP, Usage(1, 1), Timings(0.0, 0.1, 1)))


def rows(*labels: str) -> str:
    return json.dumps([{"text": "x", "label": label} for label in labels])


def test_a_reply_is_valid_whatever_its_number_of_rows_and_exact_with_it() -> None:
    one, two, unknown, prose = rows("track_order"), rows(*LABELS), rows("track_order", "other"), "Here: []"
    found = prompt_figures(map(answer, (one, two, unknown, prose)))
    assert found == {"pgkd/generate": {"replies": 4, "valid": 0.5, "valid_with_the_number_asked_for": 0.25}}


def test_a_code_is_valid_if_it_is_one() -> None:
    form = CodeForm("[A-B]", 1, 20)
    found = prompt_figures(answer(text, template="labelling/code@1", code=form) for text in ("A", "C"))
    assert found["labelling/code"]["valid"] == 0.5


def test_rows_are_counted_by_what_they_are_and_what_was_asked_for() -> None:
    learned = read_rows(HERE / "data" / "teacher.jsonl")[0].text
    refused = Refusal(RejectionReason.DUPLICATE, "twice")
    found = method_figures(
        Writing(
            4,
            (
                Row(Candidate("", text=learned, label="track_order"), None, "track_order"),
                Row(Candidate("", text="something new", label="cancel_order"), refused, "track_order"),
                Row(Candidate("", problem="cut off"), Refusal(RejectionReason.SCHEMA, "cut off"), "track_order"),
            ),
            (),
        ),
        cast(Judge, Agreeable()),
        is_ner=False,
    )
    assert (found["rows_asked"], found["rows_accepted"], found["yield"]) == (4, 1, 0.25)
    assert found["refused"] == {"duplicate": 1, "schema": 1}
    assert (found["as_asked"], found["agreed"], found["verbatim_from_teacher_split"]) == (0.5, 0.5, 0.5)
    assert found["examples"] == [f"track_order: {learned}"]


def test_a_marked_row_is_as_asked_if_the_type_is_among_its_entities() -> None:
    row = Candidate("", text="to Ana in Bern", annotation=Annotation((Span(3, 6, "person"), Span(10, 14, "place"))))
    found = method_figures(Writing(2, (Row(row, None, "place"), Row(row, None, "date")), ()), cast(Judge, Agreeable()), is_ner=True)
    assert found["as_asked"] == 0.5
    assert found["examples"][0] == "to [Ana](person) in [Bern](place)"


def test_numbers_do_not_make_another_message() -> None:
    assert masked("Where is 48-B?") == masked("where is 7711 ?")
    assert masked("where is it") != masked("where is 7")


def test_calibration_error_is_the_gap_between_how_sure_and_how_right() -> None:
    assert calibration_error([0.9, 0.9], [True, False]) == pytest.approx(0.4)
    assert calibration_error([0.75, 0.75, 0.75, 0.75], [True, True, True, False]) == 0.0


async def test_every_method_is_asked_and_the_card_is_written() -> None:
    """With a teacher that answers all alike: each row is accounted for, and every figure of the card is there."""

    async def record(_outcome: Outcome) -> None: ...

    script = ScriptedTeacher(lambda _: json.dumps([{"number": 1, "text": "where is it", "label": "track_order"}]))
    async with Batcher([make_lane(script, 64)], attempts=1, random=random.Random(0), record=record) as batcher:
        examinations = [await examine(task, "scripted", batcher, requests=6) for task in CONFIGS]
    figures: dict[str, Any] = {"tokens_per_s": 1, "temperature": 0.7, "top_p": 0.95, "requests": 6, "cut_off": 0}
    replies: list[Answer] = []
    for examination in examinations:
        kind = examination.config.task.kind
        assert list(examination.writing) == list(METHODS)
        for name, writing in examination.writing.items():
            assert writing.num_asked == 6 * (4 if name in ("auggpt", "llm2llm") else 8)
            assert 0 < len(writing.rows) <= writing.num_asked
            replies += writing.replies
        for labelling in examination.labelling.values():
            assert len(labelling.said) == len(examination.task.test)
            replies += labelling.replies
        assert len(examination.labelling["batch"].replies) == -(-len(examination.task.test) // TOGETHER)
        is_ner = kind == "ner"
        figures[kind] = {
            "judge": 0.9,
            "labelling": mark_figures(examination) if is_ner else label_figures(examination),
            "methods": {
                name: method_figures(writing, cast(Judge, Agreeable()), is_ner=is_ner) for name, writing in examination.writing.items()
            },
        }
    labelling = figures["classification"]["labelling"]
    share = sum(row.label == "track_order" for row in examinations[0].task.test) / len(examinations[0].task.test)
    assert labelling["label"]["accuracy"] == pytest.approx(share, abs=1e-3)
    # A teacher without probabilities has none to be sure of.
    labelling["codes"] = {"accuracy": 0.8, "mean_probability": 0.8, "ece": 0.05, **labelling["codes"]}
    figures["prompts"] = prompt_figures(replies)
    training = {"parameters": 4.2, "rows": 1, "minutes": 1.0, "cores": 1, "steps": 1, "loss": 1.0, "layers": 4, "hidden": 256,
                "vocabulary": 4096, "context": 4096, "note": ""}  # fmt: skip
    card = write_card(figures, training)
    assert "{" not in card
    assert all(f"`{name}`" in card for name in (*METHODS, "ner/evokd/analyse", "labelling/code"))


def test_the_shipped_card_is_what_the_measurement_says() -> None:
    folder = Path(HERE) / "teacher"
    measured, training = (json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("measured", "training"))
    assert (folder / "README.md").read_text(encoding="utf-8") == write_card(measured, training)
