import json
import re
from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from typing import Any, cast

import pytest

from engine.config import PgkdConfig, SamplingConfig
from engine.prompting import Opening, Prompt, Prompter
from engine.records import Completion, Failure, FailureReason, FinishReason, Outcome, Timings, Usage
from engine.reports import Confusion
from engine.strategies import Answer
from engine.strategies.pgkd import Pgkd
from engine.strategies.planning import draw_examples
from prompts import PromptLibrary
from tests.engine.builders import LABELS, make_report, make_task

TIMINGS = Timings(0.0, 0.1, 1)


def make_pgkd(seed: int = 1, **settings: object) -> tuple[Pgkd, Prompter]:
    prompter = Prompter(PromptLibrary(), "teacher", SamplingConfig(), seed)
    return Pgkd(PgkdConfig.model_validate(settings), make_task(), prompter, seed), prompter


def test_a_round_is_split_into_requests() -> None:
    pgkd, _ = make_pgkd(rows_per_round=20, rows_per_call=8)
    assignments = list(pgkd.plan(2, make_report(1)))
    assert [assignment.number for assignment in assignments] == [0, 1, 2]
    assert [assignment.num_rows for assignment in assignments] == [8, 8, 4]
    assert len({assignment.id for assignment in assignments}) == 3
    assert {(assignment.round, assignment.report) for assignment in assignments} == {(2, 1)}


def test_as_published_a_round_is_one_request_without_focus() -> None:
    pgkd, _ = make_pgkd()
    (assignment,) = pgkd.plan(1, make_report())
    assert (assignment.num_rows, assignment.focus, assignment.weakness) == (32, (), "report")


def test_planning_again_gives_the_same_work() -> None:
    plans = [list(make_pgkd(rows_per_round=40, rows_per_call=4)[0].plan(3, make_report(2))) for _ in range(2)]
    assert plans[0] == plans[1]
    assert len(plans[0]) == 10


def test_requests_with_one_focus_are_neighbours() -> None:
    pgkd, _ = make_pgkd(rows_per_round=300, rows_per_call=4)
    focuses = [assignment.focus for assignment in pgkd.plan(1, make_report(confusions=(Confusion("cancel", "change", 3),)))]
    assert len(set(focuses)) == len(LABELS) + 1
    assert [focus for focus, _ in groupby(focuses)] == sorted(set(focuses))


async def test_what_requests_share_is_rendered_once_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    pgkd, prompter = make_pgkd(rows_per_round=40, rows_per_call=4)
    opened: list[str] = []
    open_template = prompter.open

    def note(template: str, values: Mapping[str, Any]) -> Opening:
        opened.append(template)
        return open_template(template, values)

    monkeypatch.setattr(prompter, "open", note)

    async def ask(prompt: Prompt) -> Answer:
        return Answer(prompt, prompter.request(prompt, "1 0", 0), completion("[]"))

    for round in (1, 2):
        report = make_report(round - 1, wrong=round)
        for assignment in pgkd.plan(round, report):
            (written,) = await pgkd.carry_out(assignment, report, ask)
            assert f"a wrong text {round - 1}" in "\n".join(message.content for message in written.answer.prompt.messages)
        assert len(opened) == round


async def test_prompts_of_a_round_differ_in_their_last_line_only() -> None:
    pgkd, prompter = make_pgkd(rows_per_round=40, rows_per_call=4)
    report = make_report()
    prompts: set[str] = set()

    async def ask(prompt: Prompt) -> Answer:
        prompts.add("\n".join(message.content for message in prompt.messages).strip())
        return Answer(prompt, prompter.request(prompt, "1 0", 0), completion("[]"))

    for assignment in pgkd.plan(1, report):
        await pgkd.carry_out(assignment, report, ask)
    assert len(prompts) == len(LABELS)
    assert len({prompt.rpartition("\n")[0] for prompt in prompts}) == 1


async def ask_for_prompt(pgkd: Pgkd, prompter: Prompter, outcome: Outcome, wrong: int = 1) -> tuple[Prompt, int]:
    """The prompt of a round's first assignment, and how many rows came of the outcome."""
    asked: list[Prompt] = []

    async def ask(prompt: Prompt) -> Answer:
        asked.append(prompt)
        return Answer(prompt, prompter.request(prompt, "1 0", 0), outcome)

    weakness = make_report(wrong=wrong)
    (written,) = await pgkd.carry_out(next(iter(pgkd.plan(1, weakness))), weakness, ask)
    return asked[0], len(written.candidates)


def completion(reply: str) -> Completion:
    return Completion("id", reply, FinishReason.STOP, Usage(1, 1), TIMINGS)


async def test_the_prompt_has_the_published_blocks_in_their_order() -> None:
    pgkd, prompter = make_pgkd(rows_per_call=8, examples=4, focus=True)
    prompt, rows = await ask_for_prompt(pgkd, prompter, completion(json.dumps([{"text": "x", "label": "track"}])), wrong=3)
    text = "\n".join(message.content for message in prompt.messages)
    blocks = ("Labels:", "Examples:", "Write 8 new rows", "JSON list", "The student on validation", "gets these right", "gets these wrong",
              "most confident in these", "All 8 rows: label")  # fmt: skip
    places = [text.index(block) for block in blocks]
    assert places == sorted(places)
    assert text[places[1] : places[2]].count('"text"') == 4
    assert text[places[6] : places[7]].count('"text"') == 3
    assert rows == 1


async def test_the_answer_is_constrained_to_rows_of_the_taxonomy() -> None:
    pgkd, prompter = make_pgkd(rows_per_call=8)
    prompt, _ = await ask_for_prompt(pgkd, prompter, completion("[]"))
    schema = json.loads(prompt.schema)
    assert schema["items"]["properties"]["label"]["enum"] == list(LABELS)
    assert (schema["minItems"], schema["maxItems"]) == (8, 8)


async def test_only_seed_rows_and_mined_rows_are_shown() -> None:
    pgkd, prompter = make_pgkd()
    prompt, _ = await ask_for_prompt(pgkd, prompter, completion("[]"))
    shown = [cast(str, json.loads(text)) for text in re.findall(r'"text": ("(?:[^"\\]|\\.)*")', prompt.messages[1].content)]
    allowed = {row.text for row in make_task().seed} | {"a right text", "a wrong text 0", "a hard text"}
    assert shown
    assert set(shown) <= allowed


async def test_a_failed_request_writes_no_rows() -> None:
    pgkd, prompter = make_pgkd()
    _, rows = await ask_for_prompt(pgkd, prompter, Failure("id", FailureReason.TIMEOUT, "no answer", TIMINGS))
    assert rows == 0


def test_the_blocks_record_what_there_really_was() -> None:
    pgkd, _ = make_pgkd(examples=100)
    assert pgkd.blocks(1, make_report(wrong=2)) == {"examples": 6, "right": 1, "wrong": 2, "hard": 1}


def test_examples_come_from_as_many_classes_as_possible() -> None:
    pgkd, _ = make_pgkd(examples=3)
    assert pgkd.blocks(1, make_report())["examples"] == 3
    labels = Counter(row.label for row in draw_examples(make_task().seed, 3, 1, 1))
    assert labels == dict.fromkeys(LABELS, 1)


def test_one_request_for_a_round_has_no_focus_unless_it_is_told_to() -> None:
    for count, has_focus in ((2, False), (3, True)):
        pgkd, _ = make_pgkd(rows_per_round=4 * count, rows_per_call=4)
        assert [bool(assignment.focus) for assignment in pgkd.plan(1, make_report())] == [has_focus] * count
