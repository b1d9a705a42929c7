import re
from collections import Counter
from itertools import islice

import pytest
from corpus import (
    ENTITY_TYPES,
    MAX_OPENING_SHARE,
    MIN_DISTINCT_TRIGRAMS,
    CorpusError,
    Span,
    distinct_trigram_ratio,
    near_copies,
    opening_shares,
    parse_line,
    problems,
    read_corpus,
)
from lessons import HERE, LessonMaker, read_rows
from method_lessons import MethodLessons
from split import SIZES, split

from engine.config import load_config
from engine.task.task import load_task

CORPUS = read_corpus()
SPLITS = {name: read_rows(HERE / "data" / f"{name}.jsonl") for name in ("teacher", *SIZES)}


def test_there_are_enough_intents_and_rows() -> None:
    assert len(CORPUS) >= 14
    assert min(len(rows) for rows in CORPUS.values()) >= 200


def test_every_entity_type_is_common() -> None:
    counts = Counter(span.type for rows in CORPUS.values() for row in rows for span in row.spans)
    assert set(counts) == set(ENTITY_TYPES)
    assert min(counts.values()) >= 200


def test_rows_are_written_and_not_expanded_from_templates() -> None:
    assert distinct_trigram_ratio(row.text for rows in CORPUS.values() for row in rows) >= MIN_DISTINCT_TRIGRAMS
    for intent, rows in CORPUS.items():
        _, most = opening_shares([row.text for row in rows]).most_common(1)[0]
        assert most <= MAX_OPENING_SHARE * len(rows), intent


def test_template_rows_would_be_noticed() -> None:
    rows = [parse_line(f"where is my order number {number} please tell me") for number in range(40)]
    found = problems("track_order", rows)
    assert any("3-gram ratio" in problem for problem in found)
    assert any("open with 'where is my'" in problem for problem in found)


def test_no_row_has_a_near_copy_in_another_split() -> None:
    names = list(SPLITS)
    for index, left in enumerate(names):
        for right in names[index + 1 :]:
            pairs = near_copies([row.text for row in SPLITS[left]], [row.text for row in SPLITS[right]])
            assert not pairs, (left, right, pairs[:3])


def test_near_copies_are_found() -> None:
    pairs = near_copies(["please tell me where my parcel is right now"], ["please tell me where my parcel is right now then", "no"])
    assert [(i, j) for i, j, _ in pairs] == [(0, 0)]


def test_split_files_are_what_the_script_makes() -> None:
    for name, rows in split(CORPUS).items():
        assert [(label, row.text) for label, row in rows] == [(row.label, row.text) for row in SPLITS[name]]


def test_the_teacher_never_sees_seed_validation_or_test_rows() -> None:
    held_out = {row.text for name in SIZES for row in SPLITS[name]}
    first, later = LessonMaker(SPLITS["teacher"], seed=0).lessons(), MethodLessons(SPLITS["teacher"], seed=0).lessons()
    lessons = (*islice(first, 60), *islice(later, 120))
    taught = "\n".join(content for lesson in lessons for chat in lesson.chats for _, content in chat)
    taught += re.sub(rf"</?({'|'.join(ENTITY_TYPES)})>", "", taught)
    assert not {row.text for row in SPLITS["teacher"]} & held_out
    # A short message may stand inside a longer one of another person; whole quoted texts must not.
    assert [text for text in held_out if f'"{text}"' in taught] == []


def test_the_task_file_loads_and_knows_every_intent() -> None:
    config = load_config(HERE / "quickstart.toml")
    task = load_task(config.task, seed=1)
    assert set(task.label_names) == set(CORPUS)
    assert Counter(row.label for row in task.seed) == dict.fromkeys(task.label_names, 2)


def test_the_task_of_entities_loads_and_draws_every_type() -> None:
    task = load_task(load_config(HERE / "ner.toml").task, seed=1)
    assert task.label_names == ENTITY_TYPES
    assert len(task.test) == len(SPLITS["test"])
    counts = Counter(span.type for row in task.seed for span in row.spans)
    assert min(counts[name] for name in ENTITY_TYPES) >= 8
    assert len(task.seed) < len(SPLITS["seed"]) / 2


def test_marks_become_spans() -> None:
    row = parse_line("where is [48213-B](order_number), [Ana](person)?")
    assert row.text == "where is 48213-B, Ana?"
    assert [row.text[span.start : span.end] for span in row.spans] == ["48213-B", "Ana"]
    assert row.spans[0] == Span(9, 16, "order_number")


@pytest.mark.parametrize(
    ("line", "message"),
    [("a [b](colour)", "unknown entity type"), ("a [b] c", "square bracket"), ("a  b", "more than one space"), ("[ b](date)", "space")],
)
def test_bad_marks_are_refused(line: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        parse_line(line)
