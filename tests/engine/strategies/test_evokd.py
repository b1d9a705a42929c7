from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from engine.config import EvokdConfig, SamplingConfig
from engine.prompting import Prompt, Prompter
from engine.records import (
    Assignment,
    Candidate,
    Completion,
    Failure,
    FailureReason,
    FinishReason,
    RejectionReason,
    TaskSpec,
    Timings,
    Usage,
)
from engine.reports import WeaknessReport
from engine.strategies import Answer, Ask, Written
from engine.strategies.evokd import Evokd
from prompts import PromptLibrary
from tests.engine.strategies.schooling import LABELS, make_task, report_on

TIMINGS = Timings(0.0, 0.1, 1)
ANALYSIS = '["It trusts the word card.", "\\ud800 half a pair"]'
TEXTS = json.dumps(
    [{"kind": "hard", "text": "h1"}, {"kind": "easy", "text": "e1"}, {"kind": "hard", "text": "h2"}, {"kind": "easy", "text": "e2"}]
)
NUMBERED = json.dumps([{"number": number, "label": LABELS[0]} for number in range(1, 5)])


class Conversation:
    """Answers turn after turn; None fails."""

    def __init__(self, prompter: Prompter, *replies: str | None) -> None:
        self._prompter = prompter
        self._replies = iter(replies)
        self.prompts: list[Prompt] = []

    async def ask(self, prompt: Prompt) -> Answer:
        request = self._prompter.request(prompt, f"1 {len(self.prompts)}", 0)
        self.prompts.append(prompt)
        reply = next(self._replies)
        if reply is None:
            return Answer(prompt, request, Failure(request.id, FailureReason.TIMEOUT, "no answer", TIMINGS))
        return Answer(prompt, request, Completion(request.id, reply, FinishReason.STOP, Usage(1, 1), TIMINGS))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    return make_task(tmp_path_factory.mktemp("task"), seed_per_class=30)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, task: TaskSpec) -> WeaknessReport:
    return report_on(tmp_path_factory.mktemp("run"), task, 0)


def make_evokd(task: TaskSpec, **settings: Any) -> tuple[Evokd, Prompter]:
    prompter = Prompter(PromptLibrary(), "teacher", SamplingConfig(), 1)
    config = EvokdConfig.model_validate({"rows_per_round": 12, "rows_per_call": 4, **settings})
    return Evokd(config, task, prompter, 1), prompter


def first(evokd: Evokd, report: WeaknessReport, round: int = 1) -> Assignment:
    return next(iter(evokd.plan(round, report)))


async def carry_out(evokd: Evokd, report: WeaknessReport, ask: Ask) -> Written:
    (written,) = await evokd.carry_out(first(evokd, report), report, ask)
    return written


def said(prompt: Prompt) -> str:
    return "\n".join(message.content for message in prompt.messages)


async def test_three_turns_as_published(task: TaskSpec, report: WeaknessReport) -> None:
    evokd, prompter = make_evokd(task)
    conversation = Conversation(prompter, ANALYSIS, TEXTS, NUMBERED)
    written = await carry_out(evokd, report, conversation.ask)
    analyse, write, label = conversation.prompts

    # Turn 1 shows rows the student got right and rows it got wrong, and asks for the patterns.
    text = said(analyse)
    places = [text.index(part) for part in ("Labels:", "gets these right", "gets these wrong", "Which patterns")]
    assert places == sorted(places)
    assert (text[places[1] : places[2]].count('"text"'), text[places[2] : places[3]].count('"student"')) == (8, 8)
    # Turn 2 goes on from the analysis, asks for hard and easy texts, and for no labels.
    assert write.messages[: len(analyse.messages)] == analyse.messages
    assert [message.role for message in write.messages] == ["system", "user", "assistant", "user"]
    assert "It trusts the word card." in write.messages[2].content
    assert "2 that the student would get wrong" in write.messages[3].content
    assert "2 that it would get right" in write.messages[3].content
    assert "label" not in json.loads(write.schema)["items"]["properties"]
    # Turn 3 is a request of its own, with what each label means, one label each, and nothing of the conversation.
    assert "gets these" not in said(label)
    assert "h1" not in analyse.messages[1].content
    assert all(f"all about {name}" in said(label) for name in LABELS)
    assert json.loads(label.schema)["items"]["properties"]["label"] == {"type": "string", "enum": list(LABELS)}
    assert label.temperature == 0

    assert written.answer.prompt is write
    assert written.num_rows == 4
    assert [(row.text, row.label, row.weakness) for row in written.candidates] == [
        (text, LABELS[0], kind) for text, kind in (("h1", "hard"), ("e1", "easy"), ("h2", "hard"), ("e2", "easy"))
    ]


async def test_conversations_of_a_round_are_about_rows_of_their_own(task: TaskSpec, report: WeaknessReport) -> None:
    evokd, prompter = make_evokd(task)
    shown: set[str] = set()
    for assignment in evokd.plan(1, report):
        conversation = Conversation(prompter, ANALYSIS, TEXTS, NUMBERED)
        await evokd.carry_out(assignment, report, conversation.ask)
        shown.add(said(conversation.prompts[0]))
    assert len(shown) == 3


async def test_a_failed_analysis_fails_the_rows_that_were_to_follow(task: TaskSpec, report: WeaknessReport) -> None:
    evokd, prompter = make_evokd(task)
    conversation = Conversation(prompter, None)
    written = await carry_out(evokd, report, conversation.ask)
    assert (written.candidates, written.num_rows, written.answer.prompt) == ((), 4, conversation.prompts[0])


async def test_texts_that_failed_are_not_labelled(task: TaskSpec, report: WeaknessReport) -> None:
    evokd, prompter = make_evokd(task)
    conversation = Conversation(prompter, ANALYSIS, None)
    written = await carry_out(evokd, report, conversation.ask)
    assert (written.candidates, written.num_rows, written.answer.prompt) == ((), 4, conversation.prompts[1])


@pytest.mark.parametrize(
    ("labels", "problems"),
    [
        (None, ["the request for labels failed"] * 4),
        ("sorry", ["no label for it"] * 4),
        (json.dumps([{"number": 1, "label": LABELS[0]}, {"number": 1, "label": LABELS[1]}, {"number": 3, "label": LABELS[2]}]),
         ["no label for it", "no label for it", None, "no label for it"]),
    ],
)  # fmt: skip
async def test_a_text_without_one_label_is_refused_for_that(
    task: TaskSpec, report: WeaknessReport, labels: str | None, problems: list[str | None]
) -> None:
    evokd, prompter = make_evokd(task)
    written = await carry_out(evokd, report, Conversation(prompter, ANALYSIS, TEXTS, labels).ask)
    assert [row.problem for row in written.candidates] == problems
    assert {row.reason for row in written.candidates if row.problem} == {RejectionReason.UNLABELLED}


async def test_broken_and_surplus_texts_are_not_sent_to_be_labelled(task: TaskSpec, report: WeaknessReport) -> None:
    evokd, prompter = make_evokd(task)
    texts = (
        '[{"kind": "hard", "text": "h1"}, {"kind": 3, "text": 4}, {"text": " "}, {"text": "no kind"}, {"kind": "easy", "text": "too many"}]'
    )
    conversation = Conversation(
        prompter, ANALYSIS, texts, json.dumps([{"number": 2, "label": LABELS[1]}, {"number": 1, "label": LABELS[0]}])
    )
    written = await carry_out(evokd, report, conversation.ask)
    assert conversation.prompts[2].messages[-1].content.endswith('\n\n1. "h1"\n2. "no kind"')
    rows: list[Candidate] = list(written.candidates)
    assert [(row.text, row.label) for row in rows] == [("h1", LABELS[0]), ("", ""), ("", ""), ("no kind", LABELS[1]), ("too many", "")]
    assert rows[1].problem == 'no string "text"'


async def test_without_anything_mined_the_seed_is_shown(task: TaskSpec, report: WeaknessReport) -> None:
    nothing = replace(report, right=(), wrong=(), hard=())
    evokd, prompter = make_evokd(task, shown=3)
    conversation = Conversation(prompter, ANALYSIS, TEXTS, NUMBERED)
    await carry_out(evokd, nothing, conversation.ask)
    assert said(conversation.prompts[0]).count('"text": "seed row') == 3
    assert evokd.blocks(1, nothing)["examples"] == 3
    assert evokd.blocks(1, report)["examples"] == 0


@pytest.mark.parametrize(("share", "said_so"), [(0.0, "4 that the student would get wrong"), (1.0, "4 that it would get right")])
async def test_hard_or_easy_alone(task: TaskSpec, report: WeaknessReport, share: float, said_so: str) -> None:
    evokd, prompter = make_evokd(task, easy_share=share)
    conversation = Conversation(prompter, ANALYSIS, TEXTS, NUMBERED)
    await carry_out(evokd, report, conversation.ask)
    turn = conversation.prompts[1]
    assert f"new texts: {said_so}" in turn.messages[-1].content
    assert len(json.loads(turn.schema)["items"]["properties"]["kind"]["enum"]) == 1


async def test_init_and_the_first_batch_come_before(task: TaskSpec, report: WeaknessReport) -> None:
    evokd, prompter = make_evokd(task, init_rounds=2, first_batch="unguided")
    templates: list[str] = []
    for round in (1, 2, 3, 4):
        conversation = Conversation(prompter, ANALYSIS, TEXTS, NUMBERED)
        await evokd.carry_out(first(evokd, report, round), report, conversation.ask)
        templates.append(conversation.prompts[0].template.partition("@")[0])
        assert sum(assignment.num_rows for assignment in evokd.plan(round, report)) == 12
    assert templates == ["auggpt/rephrase", "auggpt/rephrase", "unguided/generate", "evokd/analyse"]
    assert evokd.blocks(3, report) == {"examples": 16}


def test_all_rounds_are_done_unless_patience_is_asked_for() -> None:
    assert EvokdConfig().patience is None
    assert EvokdConfig(patience=2).patience == 2
