"""The controls and neighbours: what each asks for, and what it must not know."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import SamplingConfig
from engine.errors import UserError
from engine.prompting import Prompt, Prompter
from engine.records import Completion, FinishReason, Pool, TaskSpec, Timings, Usage
from engine.reports import MinedRow, PoolRow, WeaknessReport
from engine.strategies import STRATEGIES, Answer, Strategy, Written
from engine.strategies.attributes import draw_profiles
from engine.strategies.eda import split, vary
from engine.task.task import draw_texts
from engine.testing.teacher import fill
from prompts import PromptLibrary
from tests.engine.builders import make_report
from tests.engine.strategies.schooling import HELD_OUT, LABELS, make_config, make_task


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    return make_task(tmp_path_factory.mktemp("task"))


def make_strategy(method: str, task: TaskSpec, **settings: Any) -> tuple[Strategy, Prompter]:
    prompter = Prompter(PromptLibrary(), "teacher", SamplingConfig(), 3)
    return STRATEGIES[method](make_config(method, **settings).strategy, task, prompter, 3), prompter


async def carry_out(
    strategy: Strategy, prompter: Prompter, report: WeaknessReport, round: int = 1, earlier: Sequence[WeaknessReport] = ()
) -> tuple[list[Prompt], list[Written]]:
    """All of a round, at once."""
    asked: list[Prompt] = []

    async def ask(prompt: Prompt) -> Answer:
        request = prompter.request(prompt, "1 0", len(asked))
        asked.append(prompt)
        await asyncio.sleep(0)
        reply = json.dumps(fill(json.loads(prompt.schema), "text {}".format)) if prompt.reply is None else prompt.reply
        return Answer(prompt, request, Completion(request.id, reply, FinishReason.STOP, Usage(1, 1), Timings(0.0, 0.0, 1)))

    assignments = list(strategy.plan(round, report, earlier))
    parts = await asyncio.gather(*(strategy.carry_out(assignment, report, ask) for assignment in assignments))
    return asked, [written for part in parts for written in part]


def said(prompt: Prompt) -> str:
    return "\n".join(message.content for message in prompt.messages)


# Unguided and ZeroGen.


@pytest.mark.parametrize("method", ["unguided", "zerogen", "auggpt", "attrprompt", "eda"])
async def test_what_is_not_guided_does_not_depend_on_the_report(task: TaskSpec, method: str) -> None:
    good, bad = (make_report(f1={"cancel": value, "track": value}, wrong=7) for value in (0.0, 1.0))
    prompts = [sorted(map(said, (await carry_out(*make_strategy(method, task), report))[0])) for report in (good, bad)]
    assert prompts[0] == prompts[1]
    assert "wrong text" not in "".join(prompts[0])
    assert "student" not in "".join(prompts[0])


@pytest.mark.parametrize(("method", "has_examples"), [("unguided", True), ("zerogen", False)])
async def test_only_the_unguided_control_shows_examples(task: TaskSpec, method: str, has_examples: bool) -> None:
    strategy, prompter = make_strategy(method, task, rows_per_round=12)
    prompts, _ = await carry_out(strategy, prompter, make_report())
    assert ["Examples:" in said(prompt) for prompt in prompts] == [has_examples] * 3
    assert strategy.blocks(1, make_report()) == ({"examples": 9} if has_examples else {})


@pytest.mark.parametrize("method", ["unguided", "zerogen"])
def test_all_labels_are_asked_for_alike_over_the_rounds(task: TaskSpec, method: str) -> None:
    strategy, _ = make_strategy(method, task, **({"focus": True} if method == "unguided" else {}))
    counts = Counter(assignment.focus for round in range(1, 7) for assignment in strategy.plan(round, make_report()))
    assert counts == {(label,): 4 for label in LABELS}


def test_one_request_for_a_round_leaves_the_labels_to_the_teacher(task: TaskSpec) -> None:
    strategy, _ = make_strategy("unguided", task)
    assert {assignment.focus for assignment in strategy.plan(1, make_report())} == {()}


# AugGPT, EDA and LLM2LLM: rows out of rows.


@pytest.mark.parametrize("method", ["auggpt", "eda"])
async def test_every_seed_row_is_varied_as_often_as_any_other_and_keeps_its_label(task: TaskSpec, method: str) -> None:
    strategy, prompter = make_strategy(method, task, rows_per_round=12)
    used: Counter[str] = Counter()
    for round in (1, 2, 3):
        prompts, written = await carry_out(strategy, prompter, make_report(), round)
        for prompt, part in zip(prompts, written, strict=True):
            (row,) = [row for row in task.seed if row.text in said(prompt) or json.dumps(row.text, ensure_ascii=False) in said(prompt)]
            used[row.text] += 1
            assert {candidate.label for candidate in part.candidates} == {row.label}
            assert len(part.candidates) == part.num_rows == 4
    assert used == dict.fromkeys([row.text for row in task.seed], 1)


@given(st.text(max_size=40).filter(lambda text: text.strip() != ""), st.floats(0.01, 1), st.integers())
def test_any_text_can_be_varied(text: str, change: float, seed: int) -> None:
    varied = vary(text, ["borrowed"], change, Random(seed))
    assert varied
    assert vary(text, ["borrowed"], change, Random(seed)) == varied


def test_a_small_change_is_one_of_the_words() -> None:
    words: list[str] = ["one", "two", "three", "four", "five", "six"]
    for seed in range(50):
        varied = split(vary(" ".join(words), ["borrowed"], 0.01, Random(seed)))
        assert abs(len(varied) - len(words)) <= 1
        assert sum((Counter(words) - Counter(varied)).values()) <= 1


async def test_a_program_answers_for_eda(task: TaskSpec) -> None:
    strategy, prompter = make_strategy("eda", task)
    prompts, _ = await carry_out(strategy, prompter, make_report())
    assert all(prompt.reply is not None for prompt in prompts)
    assert {prompter.request(prompt, "1 0", 0).model for prompt in prompts} == {"local"}


async def test_llm2llm_varies_wrong_seed_rows_and_no_others(task: TaskSpec) -> None:
    strategy, prompter = make_strategy("llm2llm", task, rows_per_round=12)
    seed = task.seed[4]
    wrong = (MinedRow(seed.text, seed.label, LABELS[2], 0.9), MinedRow("a teacher's row", LABELS[0], LABELS[1], 0.8))
    report = replace(make_report(), wrong=wrong, hard=())
    prompts, written = await carry_out(strategy, prompter, report)
    assert len(prompts) == 3
    assert all(
        seed.text in said(prompt) and f'"student": {json.dumps(LABELS[2], ensure_ascii=False)}' in said(prompt) for prompt in prompts
    )
    assert {candidate.label for part in written for candidate in part.candidates} == {seed.label}
    assert strategy.blocks(1, report) == {"wrong": 1}
    assert list(strategy.plan(2, replace(report, wrong=()))) == []


# AttrPrompt.


async def test_values_are_asked_for_once_a_round_by_whoever_needs_them_first(task: TaskSpec) -> None:
    strategy, prompter = make_strategy("attrprompt", task, rows_per_round=24)
    for round in (1, 2):
        prompts, written = await carry_out(strategy, prompter, make_report(), round)
        kinds = Counter(prompt.template.partition("@")[0] for prompt in prompts)
        assert kinds == {"attrprompt/values": 1 + len(LABELS), "attrprompt/write": 6}
        assert len(written) == 6
    topics = [said(prompt) for prompt in prompts if "sub-topics" in said(prompt)]
    assert all(sum(json.dumps(label, ensure_ascii=False) in text.rpartition("Name")[2] for text in topics) == 1 for label in LABELS)
    assert all("style: text" in said(prompt) and "about: text" in said(prompt) for prompt in prompts if "All 4 rows" in said(prompt))


async def test_styles_that_are_given_are_not_asked_for(task: TaskSpec) -> None:
    strategy, prompter = make_strategy("attrprompt", task, styles=("curt",), lengths=())
    prompts, _ = await carry_out(strategy, prompter, make_report())
    assert not any("styles" in said(prompt) for prompt in prompts)
    assert all('"style: curt; about: ' in said(prompt) for prompt in prompts if "All 4 rows" in said(prompt))


def test_profiles_use_all_values_alike_and_leave_out_what_has_none() -> None:
    lines = draw_profiles([("length", ("short", "long")), ("style", ()), ("about", ("a", "b", "c"))], 6, "a purpose")
    assert Counter(line.split("; ")[0] for line in lines) == {"length: short": 3, "length: long": 3}
    assert Counter(line.split("; ")[1] for line in lines) == {"about: a": 2, "about: b": 2, "about: c": 2}
    assert lines == draw_profiles([("length", ("short", "long")), ("about", ("a", "b", "c"))], 6, "a purpose")
    assert draw_profiles([("style", ())], 3, "") == []


# The pool.


def with_uncertain(texts: Sequence[str] | None) -> WeaknessReport:
    rows = None if texts is None else tuple(PoolRow(text, LABELS[0], 0.4) for text in texts)
    return replace(make_report(), uncertain=rows)


async def test_uncertain_rows_are_labelled_in_their_order_and_keep_their_text(task: TaskSpec) -> None:
    strategy, prompter = make_strategy("pool", task, rows_per_call=1)
    report = with_uncertain(["least sure", " ", task.validation[0].text, "more sure", task.test[1].text.upper()])
    prompts, written = await carry_out(strategy, prompter, report)
    assert [candidate.text for part in written for candidate in part.candidates] == ["least sure", "more sure"]
    assert [prompt.template.partition("@")[0] for prompt in prompts] == ["labelling/label"] * 2
    assert strategy.blocks(1, report) == {"uncertain": 2}
    assert {assignment.weakness for assignment in strategy.plan(1, report)} == {"uncertain"}


@pytest.mark.parametrize(("pick", "uncertain"), [("random", ["sure"]), ("uncertain", None)])
async def test_rows_are_drawn_and_said_to_be_where_no_uncertain_ones_are_wanted_or_there(
    task: TaskSpec, pick: str, uncertain: list[str] | None
) -> None:
    strategy, prompter = make_strategy("pool", task, pick=pick)
    shown: list[str] = []
    for round in range(1, 11):
        report = with_uncertain(uncertain)
        assert {assignment.weakness for assignment in strategy.plan(round, report)} <= {"random"}
        _, written = await carry_out(strategy, prompter, report, round)
        shown += [candidate.text for part in written for candidate in part.candidates]
    assert len(set(shown)) == len(shown) == 60  # the whole pool but for what is of validation and test
    assert not any(word in text for word in HELD_OUT for text in shown)


async def test_rounds_that_answer_one_report_label_different_rows_and_none_that_one_between_may_have(task: TaskSpec) -> None:
    strategy, prompter = make_strategy("pool", task, rows_per_round=2, rows_per_call=1)
    first = with_uncertain([f"text {number}" for number in range(4)])
    second = replace(with_uncertain(["text 2", "text 3", "text 8", "text 9", "text 1"]), round=1)

    async def labelled(round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> list[str]:
        _, written = await carry_out(strategy, prompter, report, round, earlier)
        return [candidate.text for part in written for candidate in part.candidates]

    assert await labelled(1, first) == ["text 0", "text 1"]
    assert await labelled(2, first) == ["text 2", "text 3"]
    # Its report knows of round 1 only; round 2 may have answered either.
    assert await labelled(3, second, [first]) == ["text 8", "text 9"]


def test_a_pool_of_which_all_has_been_asked_about_is_asked_about_no_more(task: TaskSpec) -> None:
    strategy, _ = make_strategy("pool", task)
    assert list(strategy.plan(2, with_uncertain([]))) == []
    assert strategy.blocks(2, with_uncertain([])) == {"uncertain": 0}


def test_the_same_seed_draws_the_same_rows(task: TaskSpec) -> None:
    assert isinstance(task.pool, Pool)
    draws = [draw_texts(task.pool, 20, seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 20


def test_without_a_pool_it_says_what_to_do(task: TaskSpec) -> None:
    with pytest.raises(UserError, match=r"task\.data\.pool"):
        make_strategy("pool", replace(task, pool=None))


def test_the_seed_alone_is_a_run_without_rounds(task: TaskSpec) -> None:
    strategy, _ = make_strategy("seed_only", task)
    assert list(strategy.plan(1, make_report())) == []
    assert make_config("seed_only").strategy.rounds == strategy.rows_per_round == 0
