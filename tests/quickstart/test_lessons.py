"""Lessons are in the words that the project sends, and answered in the shapes that it reads: for every template there is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import jsonschema
import pytest
from lessons import HERE, Lesson, read_rows
from method_lessons import LATER_TURNS, SHARES, TAUGHT, MethodLessons

from engine.config import load_config
from engine.labels.label_codes import label_codes
from engine.labels.marking import read_inline
from engine.parsing import parse_labels, parse_marked_rows, parse_marks, parse_rows, parse_strings, parse_texts
from engine.prompting import (
    label_schema,
    labels_schema,
    mark_schema,
    marked_rows_schema,
    marks_schema,
    rows_schema,
    strings_schema,
    texts_schema,
)
from engine.strategies.evokd import EASY, HARD
from prompts import FOLDER

TEMPLATES = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.jinja") if path.parent.name != "shared")
LABELS = tuple(label.name for label in load_config(HERE / "quickstart.toml").task.labels)
TYPES = tuple(label.name for label in load_config(HERE / "ner.toml").task.labels)
ROWS = read_rows(HERE / "data" / "teacher.jsonl")
TIMES = 5
"""Lessons of each template: enough for each of its forms."""


@pytest.fixture(scope="module")
def maker() -> MethodLessons:
    return MethodLessons(ROWS, seed=5)


def test_every_template_is_taught() -> None:
    assert sorted({*TAUGHT, *LATER_TURNS}) == TEMPLATES
    assert set(SHARES) == set(TAUGHT) >= set(LATER_TURNS.values())


Check = Callable[[int, str, str], None]
"""Of one answer: how many items its prompt asks for, what the user said, and what the teacher is to answer."""


def fits(answer: str, schema: str) -> None:
    jsonschema.validate(json.loads(answer), json.loads(schema))


def check_rows(count: int, _said: str, answer: str) -> None:
    fits(answer, rows_schema(LABELS, count))
    assert all(row.problem is None for row in parse_rows(answer))


def check_texts(count: int, _said: str, answer: str) -> None:
    fits(answer, texts_schema(count))
    assert len([row for row in parse_texts(answer) if row.problem is None]) == count


def check_hybrid(count: int, said: str, answer: str) -> None:
    (check_rows if "new rows" in said else check_texts)(count, said, answer)


def check_marked_hybrid(count: int, said: str, answer: str) -> None:
    (check_texts if "Mark nothing" in said else check_marked)(count, said, answer)


def check_strings(count: int, _said: str, answer: str) -> None:
    fits(answer, strings_schema(count))
    assert parse_strings(answer, count)


def check_kinds(count: int, said: str, answer: str) -> None:
    wanted = {kind: int(found[1]) for kind in (HARD, EASY) if (found := re.search(rf'(\d+) that [^("]*\("{kind}"\)', said))}
    fits(answer, texts_schema(count, tuple(wanted)))
    written = [row.weakness for row in parse_texts(answer, (HARD, EASY))]
    assert {kind: written.count(kind) for kind in wanted} == wanted


def check_label(_count: int, _said: str, answer: str) -> None:
    fits(answer, label_schema(LABELS))
    assert parse_labels(answer, 1) != [None]


def check_labels(count: int, said: str, answer: str) -> None:
    fits(answer, labels_schema(LABELS, count))
    assert len(last_texts(count, said)) == count
    assert None not in parse_labels(answer, count)


def check_code(_count: int, _said: str, answer: str) -> None:
    assert answer in label_codes(len(LABELS), 20)


def check_marked(count: int, _said: str, answer: str) -> None:
    fits(answer, marked_rows_schema(TYPES, "inline", count))
    assert all(row.problem is None for row in parse_marked_rows(answer, TYPES, "inline"))


def check_marks(_count: int, said: str, answer: str) -> None:
    text = json.loads(said.splitlines()[-1])
    fits(answer, mark_schema(TYPES, "inline"))
    assert read_inline(json.loads(answer)["text"], TYPES).text == text


def check_all_marks(count: int, said: str, answer: str) -> None:
    texts = last_texts(count, said)
    fits(answer, marks_schema(TYPES, "inline", count))
    assert [read_inline(row["text"], TYPES).text for row in json.loads(answer)] == texts
    assert all(isinstance(marks, tuple) for marks in parse_marks(answer, texts, TYPES, "inline"))


def last_texts(count: int, said: str) -> list[str]:
    return [json.loads(text) for text in re.findall(r'^\d+\. (".*")$', said, re.MULTILINE)][-count:]


CHECKS: Mapping[str, Check] = {
    "attrprompt/values": check_strings,
    "attrprompt/write": check_rows,
    "auggpt/rephrase": check_texts,
    "evokd/analyse": check_strings,
    "evokd/write": check_kinds,
    "hybrid/write": check_hybrid,
    "labelling/batch": check_labels,
    "labelling/code": check_code,
    "labelling/label": check_label,
    "llm2llm/variants": check_texts,
    "pgkd/generate": check_rows,
    "unguided/generate": check_rows,
    "zerogen/generate": check_rows,
    "ner/attrprompt/values": check_strings,
    "ner/attrprompt/write": check_marked,
    "ner/auggpt/rephrase": check_marked,
    "ner/evokd/analyse": check_strings,
    "ner/evokd/write": check_kinds,
    "ner/hybrid/write": check_marked_hybrid,
    "ner/labelling/batch": check_all_marks,
    "ner/labelling/label": check_marks,
    "ner/llm2llm/variants": check_marked,
    "ner/pgkd/generate": check_marked,
    "ner/unguided/generate": check_marked,
    "ner/zerogen/generate": check_marked,
}


def exchanges(lesson: Lesson) -> list[tuple[str, str, str]]:
    """(template, what the user says, the answer)."""
    later = {first: second for second, first in LATER_TURNS.items()}
    found: list[tuple[str, str, str]] = []
    for chat in lesson.chats:
        (system, _), *turns = chat
        assert system == "system"
        for number, ((asker, said), (answerer, answer)) in enumerate(zip(turns[::2], turns[1::2], strict=True)):
            assert (asker, answerer) == ("user", "assistant")
            assert number == 0 or lesson.kind in later
            found.append((later[lesson.kind] if number else lesson.kind, said, answer))
    return found


def items_asked(template: str, said: str) -> int:
    """The last line that tells a number wins."""
    found = re.findall(NUMBERS.get(template, r"Write (\d+) new"), said)
    return int(found[-1]) if found else 1


NUMBERS: Mapping[str, str] = {
    "attrprompt/values": r"Name (\d+)",
    "ner/attrprompt/values": r"Name (\d+)",
    "evokd/analyse": r"at most (\d+)",
    "ner/evokd/analyse": r"at most (\d+)",
    "evokd/write": r"write (\d+) new",
    "ner/evokd/write": r"write (\d+) new",
    "labelling/batch": r"of the (\d+) texts",
    "ner/labelling/batch": r"of the (\d+) texts",
    "auggpt/rephrase": r"in (\d+) other ways",
    "ner/auggpt/rephrase": r"in (\d+) other ways",
    "pgkd/generate": r"(?:Write|All) (\d+) ",
}


def test_every_template_has_a_check() -> None:
    assert sorted(CHECKS) == TEMPLATES


@pytest.mark.parametrize("template", TAUGHT)
def test_lessons_are_answered_in_the_shape_that_is_asked_for(maker: MethodLessons, template: str) -> None:
    for _ in range(TIMES):
        lesson = maker.of(template)
        for name, said, answer in exchanges(lesson):
            CHECKS[name](items_asked(name, said), said, answer)


def test_rephrasings_keep_the_label_and_the_types_of_entities(maker: MethodLessons) -> None:
    by_text = {row.text: row for row in ROWS}
    for _ in range(TIMES):
        for _, said, answer in exchanges(maker.of("auggpt/rephrase")):
            label = json.loads(said.splitlines()[-1])["label"]
            known = [by_text[row["text"]].label for row in json.loads(answer) if row["text"] in by_text]
            assert set(known) <= {label}
        for _, said, answer in exchanges(maker.of("ner/auggpt/rephrase")):
            wanted = types_in(json.loads(said.splitlines()[-1])["text"])
            assert all(types_in(row["text"]) == wanted for row in json.loads(answer))


def types_in(marked: str) -> set[str]:
    return {span.type for span in read_inline(marked, TYPES).spans}


def test_each_row_asked_for_with_a_type_of_entity_has_one(maker: MethodLessons) -> None:
    for _ in range(TIMES):
        for _, said, answer in exchanges(maker.of("ner/zerogen/generate")):
            (type,) = re.findall(r'an entity of the type "(\w+)"\.', said)[-1:]
            assert all(type in types_in(row["text"]) for row in json.loads(answer))


def test_labels_and_codes_are_those_of_the_texts(maker: MethodLessons) -> None:
    codes: dict[str, Any] = dict(zip(label_codes(len(LABELS), 20), LABELS, strict=True))
    by_text = {row.text: row.label for row in ROWS}
    checked = 0
    for template in ("labelling/label", "labelling/code"):
        for _, said, answer in exchanges(maker.of(template)):
            text = json.loads(said.splitlines()[-1])
            if text in by_text:
                assert by_text[text] == (codes[answer] if template == "labelling/code" else json.loads(answer)["label"])
                checked += 1
    assert checked > 10


def test_an_analysis_names_labels_that_it_was_shown(maker: MethodLessons) -> None:
    shown = 0
    for _ in range(TIMES):
        _, said, answer = exchanges(maker.of("evokd/analyse"))[0]
        wrong = re.findall(r'"label": "(\w+)", "student": "(\w+)"', said)
        confused = {pair for pair in wrong if pair[0] != pair[1]}
        if confused:
            named = {label for sentence in json.loads(answer) for label in LABELS if re.search(rf"\b{label}\b", sentence)}
            assert named <= {label for pair in confused for label in pair}
            shown += 1
    assert shown
