from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import pytest

from engine.config import HybridConfig, SamplingConfig
from engine.prompting import Prompter
from engine.records import RejectionReason, TaskSpec
from engine.reports import Confusion, Slice, WeaknessReport
from engine.strategies.hybrid import SLICE_ATTRIBUTES, Hybrid
from prompts import PromptLibrary
from student.slices import Entity, Vocabulary, find_entity_slices, find_slices
from tests.engine.builders import LABELS, make_report, make_task
from tests.engine.strategies.test_evokd import Conversation, said

TEXTS = json.dumps([{"text": "one"}, {"text": "two"}])


def make_hybrid(task: TaskSpec | None = None, **settings: Any) -> tuple[Hybrid, Prompter]:
    prompter = Prompter(PromptLibrary(), "teacher", SamplingConfig(), 1)
    config = HybridConfig.model_validate({"rows_per_round": 80, "rows_per_call": 2, **settings})
    return Hybrid(config, task or make_task(), prompter, 1), prompter


def classes(hybrid: Hybrid, round: int, *reports: WeaknessReport) -> Counter[str]:
    *earlier, report = reports
    return Counter(assignment.focus[0] for assignment in hybrid.plan(round, report, earlier) if not assignment.weakness.startswith("easy"))


def test_shares_follow_f1_and_how_far_support_makes_it_believable() -> None:
    hybrid, _ = make_hybrid(easy_share=0.0)
    report = make_report(f1={"cancel": 0.2, "change": 0.9, "track": 0.9})
    many = classes(hybrid, 5, report)
    few = classes(hybrid, 5, replace(report, classes=tuple(replace(score, support=1) for score in report.classes)))
    assert many["cancel"] > few["cancel"] > few["change"] > many["change"]
    assert sum(many.values()) == sum(few.values()) == 40
    assert set(classes(hybrid, 1, report).values()) <= {13, 14}


def test_pairs_that_are_confused_get_requests_of_their_own() -> None:
    hybrid, _ = make_hybrid(easy_share=0.0)
    weaknesses = Counter(a.weakness for a in hybrid.plan(1, make_report(confusions=(Confusion("track", "cancel", 4),))))
    assert weaknesses["pair:track>cancel"] in {6, 7}


def test_a_share_of_easy_rows_of_all_classes_alike() -> None:
    hybrid, _ = make_hybrid(easy_share=0.25)
    weaknesses = Counter(a.weakness for a in hybrid.plan(6, make_report(5, f1={"cancel": 0.0, "change": 1.0, "track": 1.0})))
    easy = {name: count for name, count in weaknesses.items() if name.startswith("easy:")}
    assert sum(easy.values()) == 10
    assert set(easy.values()) <= {3, 4}
    assert len(easy) == 3


def test_a_weakness_that_does_not_move_rests_and_is_tried_again() -> None:
    hybrid, _ = make_hybrid(rest_after=2, min_gain=0.1, easy_share=0.0)
    # change and track get better every time, cancel does not.
    reports = [make_report(round, f1={"cancel": 0.3, "change": 0.1 + round / 8, "track": 0.1 + round / 8}) for round in range(7)]
    asked = [classes(hybrid, round + 1, *reports[: round + 1])["cancel"] > 0 for round in range(7)]
    assert asked == [True, True, False, False, True, True, False]
    assert classes(make_hybrid(rest_after=None)[0], 4, *reports[:4])["cancel"] > 0


def test_a_pair_rests_while_its_class_goes_on() -> None:
    hybrid, _ = make_hybrid(rest_after=1, min_gain=0.1, easy_share=0.0)
    confusions = (Confusion("track", "cancel", 4), Confusion("track", "change", 2))
    before = make_report(0, f1=dict.fromkeys(LABELS, 0.2), confusions=confusions)
    after = make_report(1, f1=dict.fromkeys(LABELS, 0.5), confusions=(Confusion("track", "change", 4), Confusion("track", "cancel", 1)))
    weaknesses = {assignment.weakness for assignment in hybrid.plan(2, after, [before])}
    assert "pair:track>cancel" in weaknesses
    assert "pair:track>change" not in weaknesses
    assert "class:track" in weaknesses


def test_when_all_rest_none_does() -> None:
    hybrid, _ = make_hybrid(rest_after=1, easy_share=0.0)
    assert sum(classes(hybrid, 2, make_report(0), make_report(1)).values()) == 40


def test_planning_again_with_a_new_strategy_gives_the_same_work() -> None:
    reports = [make_report(round) for round in range(4)]
    assert len({tuple(make_hybrid()[0].plan(4, reports[3], reports[:3])) for _ in range(2)}) == 1


async def write(hybrid: Hybrid, prompter: Prompter, *replies: str | None, easy: bool = False) -> tuple[Conversation, list[tuple[str, Any]]]:
    report = make_report(confusions=(Confusion("cancel", "change", 1),))
    conversation = Conversation(prompter, *replies)
    assignments = [a for a in hybrid.plan(1, report) if a.weakness.startswith("easy") == easy]
    (written,) = await hybrid.carry_out(assignments[0], report, conversation.ask)
    assert assignments[0].focus[0] == "cancel"
    return conversation, [(row.label, row.problem and row.reason) for row in written.candidates]


def labels(*names: str) -> str:
    return json.dumps([{"number": number, "label": name} for number, name in enumerate(names, start=1)])


async def test_texts_are_labelled_apart_and_another_label_is_refused() -> None:
    conversation, rows = await write(*make_hybrid(), TEXTS, labels("cancel", "track"))
    assert rows == [("cancel", None), ("track", RejectionReason.DISAGREEMENT)]
    assert "gets these" not in said(conversation.prompts[1])


async def test_another_label_can_be_kept() -> None:
    assert (await write(*make_hybrid(disagreement="keep"), TEXTS, labels("cancel", "track")))[1] == [("cancel", None), ("track", None)]


async def test_labels_can_be_taken_from_who_wrote_the_rows() -> None:
    rows = json.dumps([{"text": "one", "label": "track"}])
    conversation, found = await write(*make_hybrid(labelling="none"), rows)
    assert (len(conversation.prompts), found) == (1, [("track", None)])


async def test_the_blocks_stand_in_their_order_and_each_row_has_its_line() -> None:
    conversation, _ = await write(*make_hybrid(examples=4), TEXTS, None)
    text = said(conversation.prompts[0])
    parts = ("Labels:", "Examples:", "Write 2 new texts", "JSON list", "The student on validation", "gets these right", "gets these wrong",
             "most confident in these", "All 2: label", "It was wrong about:", "One row for each line:")  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert text[places[1] : places[2]].count('"text"') == 4
    assert text[places[9] :].count('"student": "change"') == 1
    assert text[places[10] :].count("length: ") == text[places[10] :].count("style: ") == 2


async def test_easy_rows_are_asked_for_as_typical_and_show_no_mistake() -> None:
    conversation, _ = await write(*make_hybrid(), TEXTS, None, easy=True)
    text = said(conversation.prompts[0])
    assert "typical and unmistakable" in text
    assert "It was wrong about" not in text


async def test_a_few_neighbours_of_one_weakness_are_draws_of_one_prompt() -> None:
    hybrid, prompter = make_hybrid(easy_share=0.0)
    report = make_report()
    shown: list[tuple[str, str]] = []
    for assignment in hybrid.plan(1, report):
        conversation = Conversation(prompter, TEXTS, None)
        await hybrid.carry_out(assignment, report, conversation.ask)
        shown.append((assignment.weakness, said(conversation.prompts[0])))
    assert len(set(shown)) == len({text for _, text in shown}) == 12  # 40 in fours, and where the weakness changes within one
    assert [prompt for prompt, _ in groupby(shown)] == list(dict.fromkeys(shown))


async def test_requests_of_a_round_share_all_but_their_end() -> None:
    hybrid, prompter = make_hybrid()
    report = make_report()
    texts: list[str] = []
    for assignment in hybrid.plan(1, report):
        conversation = Conversation(prompter, TEXTS, None)
        await hybrid.carry_out(assignment, report, conversation.ask)
        texts.append(said(conversation.prompts[0]))
    assert len({text.partition("All 2: label")[0] for text in texts}) == 1


def test_the_blocks_record_what_there_really_was() -> None:
    hybrid, _ = make_hybrid(examples=100)
    assert hybrid.blocks(1, make_report(wrong=2)) == {"examples": 6, "right": 1, "wrong": 2, "hard": 1, "weak_slices": 0}


def with_slices(*names: str, p_value: float = 0.0001) -> WeaknessReport:
    return replace(make_report(), slices=tuple(Slice(name, "", 40, 0.4, 0.9, p_value) for name in names))


async def lines_of(hybrid: Hybrid, prompter: Prompter, report: WeaknessReport) -> dict[bool, list[str]]:
    """Of rows that are to be easy, and of the others."""
    lines: dict[bool, list[str]] = {True: [], False: []}
    for assignment in hybrid.plan(1, report):
        conversation = Conversation(prompter, TEXTS, None)
        await hybrid.carry_out(assignment, report, conversation.ask)
        asked = said(conversation.prompts[0]).splitlines()
        lines[assignment.weakness.startswith("easy:")] += [line for line in asked if "style: " in line]
    return lines


async def test_every_second_request_about_a_weakness_is_also_about_the_weak_slices() -> None:
    hybrid, prompter = make_hybrid()
    report = with_slices("length:short", "words:unseen", "length:long")
    lines = await lines_of(hybrid, prompter, report)
    about = [line for line in lines[False] if "words: unusual ones" in line]
    assert 0.3 < len(about) / len(lines[False]) < 0.7
    assert all("length: a few words" in line for line in about), "of slices that contradict each other the surest counts"
    assert not any("unusual" in line for line in lines[True])
    assert hybrid.blocks(1, report)["weak_slices"] == 3


async def test_a_slice_that_may_be_chance_changes_nothing() -> None:
    hybrid, prompter = make_hybrid()
    assert await lines_of(hybrid, prompter, with_slices("words:rare", p_value=0.2)) == await lines_of(hybrid, prompter, make_report())


@pytest.mark.parametrize("name", [*SLICE_ATTRIBUTES, "length:short", "length:long"])
async def test_every_slice_that_a_report_may_name_can_be_asked_for(name: str) -> None:
    hybrid, prompter = make_hybrid()
    assert await lines_of(hybrid, prompter, with_slices(name)) != await lines_of(hybrid, prompter, make_report())


def test_the_slices_of_reports_are_known() -> None:
    rows, hits = [[1, 2], [3], [4, 5, 6], [7]] * 10, np.tile([True, True, True, False], 10)
    vocabulary = Vocabulary()
    vocabulary.add([[1, 2], [3]])
    entities = [Entity([1], is_first=True, is_found=True), Entity([1, 2], is_first=False, is_found=False)]
    vocabulary.add_entities([[1]])
    found = {slice.name for slice in (*find_slices(rows, hits, vocabulary), *find_entity_slices(entities, vocabulary))}
    assert found == {*SLICE_ATTRIBUTES, "length:short", "length:long"}
