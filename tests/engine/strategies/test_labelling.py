from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.labels.label_codes import label_codes
from engine.prompting import Prompt, open_prompter
from engine.records import (
    Alternative,
    Assignment,
    Candidate,
    Completion,
    Example,
    Failure,
    FailureReason,
    FinishReason,
    Label,
    Outcome,
    RejectionReason,
    Request,
    TaskSpec,
    Timings,
    Usage,
)
from engine.strategies.forms import form_of
from engine.strategies.labelling import Labeller
from engine.strategies.strategy import Answer
from tests.engine.strategies.schooling import make_config

TIMINGS = Timings(0.0, 0.0, 1)
ASSIGNMENT = Assignment("r0001-a0000", 0, 1, 0, "none", (), 1)


def make_task(num_labels: int, seed: tuple[tuple[str, str], ...] = ()) -> TaskSpec:
    labels = tuple(Label(f"label{number}", "") for number in range(num_labels))
    held_out = (Example("a validation text", "label0"),)
    return TaskSpec("classification", "messages", labels, tuple(Example(*row) for row in seed), held_out, held_out)


def code_of(label: str, num_labels: int) -> str:
    return label_codes(num_labels, 20)[int(label.removeprefix("label"))]


def text_of(request: Request) -> str:
    return re.findall('"(.*)"', request.messages[-1].content)[-1]


def teach(num_labels: int, beliefs: Callable[[str, str], Mapping[str, float]]) -> Callable[[Request], Completion]:
    """A teacher that believes each label of a text as far as `beliefs` (model, text) say, and tells so in codes, as vLLM would."""

    def answer(request: Request) -> Completion:
        shares = {code_of(label, num_labels): share for label, share in beliefs(request.model, text_of(request)).items()}
        allowed = {code: share for code, share in shares.items() if re.fullmatch(request.sampling.regex or ".*", code)}
        code = max(allowed, key=lambda code: allowed[code])
        places: list[tuple[Alternative, ...]] = []
        for place, character in enumerate(code):
            behind = {other: share for other, share in shares.items() if other.startswith(code[:place])}
            known: dict[str, float] = {}
            for other, share in behind.items():
                known[other[place]] = known.get(other[place], 0.0) + share
            whole = sum(behind.values()) if place else 1.0
            written = Alternative(character, math.log(known.pop(character) / whole))
            places.append((written, *(Alternative(other, math.log(share / whole)) for other, share in known.items())))
        return Completion(request.id, code, FinishReason.LENGTH, Usage(1, len(code)), TIMINGS, tuple(places))

    return answer


class Asking:
    """Stands in for the desk; answers come in the reverse of the order in which they were asked for."""

    def __init__(self, labeller: Labeller, answer: Callable[[Request], Outcome | str], **prompter: object) -> None:
        self.labeller = labeller
        self.requests: list[Request] = []
        self.prompts: list[Prompt] = []
        self._answer = answer
        self._turn = 0

    async def ask(self, prompt: Prompt) -> Answer:
        request = self.labeller._prompter.assigned(prompt, ASSIGNMENT, self._turn)  # pyright: ignore[reportPrivateUsage]
        self._turn += 1
        self.requests.append(request)
        self.prompts.append(prompt)
        for _ in range(20 - min(self._turn, 19)):
            await asyncio.sleep(0)
        outcome = self._answer(request)
        if isinstance(outcome, str):
            outcome = Completion(request.id, outcome, FinishReason.STOP, Usage(1, 1), TIMINGS)
        return Answer(prompt, request, outcome)


def make_asking(task: TaskSpec, answer: Callable[[Request], Outcome | str], others: tuple[str, ...] = (), **labelling: object) -> Asking:
    teachers = [{"model": other} for other in others]
    config = make_config("pool", sections={"labelling": labelling, "teachers": teachers})
    return Asking(Labeller(task, open_prompter(config, "one", others=others), form_of(task).values), answer)


def texts(*names: str) -> list[Candidate]:
    return [Candidate(name, text=name) for name in names]


async def test_one_call_a_text_tells_the_distribution_over_two_labels() -> None:
    asking = make_asking(make_task(2), teach(2, lambda _, text: {"label0": 0.7, "label1": 0.2}), soft=True)
    (row,) = await asking.labeller.complete(texts("hello"), asking.ask)
    assert (row.label, row.problem) == ("label0", None)
    assert row.annotation is not None
    assert row.annotation.probabilities == pytest.approx((7 / 9, 2 / 9))
    assert row.annotation.agreement == max(row.annotation.probabilities or ())
    (request,) = asking.requests
    assert (request.sampling.regex, request.sampling.top_logprobs, request.sampling.max_tokens) == ("[A-B]", 20, 1)
    assert (request.sampling.json_schema, request.sampling.temperature) == (None, 0.0)


async def test_of_150_labels_each_likely_first_letter_gets_a_call() -> None:
    beliefs = {"label17": 0.5, "label12": 0.1, "label22": 0.3, "label93": 0.06, "label149": 0.04}
    asking = make_asking(make_task(150), teach(150, lambda _, text: beliefs), soft=True)
    (row,) = await asking.labeller.complete(texts("hello"), asking.ask)
    assert row.label == "label17"
    assert row.annotation is not None
    assert row.annotation.probabilities is not None
    known = {f"label{place}": share for place, share in enumerate(row.annotation.probabilities) if share > 0.01}
    assert known == pytest.approx({name: share for name, share in beliefs.items() if name != "label149"}, abs=1e-6)
    assert sum(row.annotation.probabilities) == pytest.approx(1.0, abs=1e-5)
    # What is behind O was not worth a call: its labels share it.
    assert row.annotation.probabilities[140:] == pytest.approx([0.004] * 10, abs=1e-6)
    assert [request.sampling.regex for request in asking.requests] == ["[A-O][0-9]", "C[0-9]", "J[0-9]"]
    assert {request.sampling.max_tokens for request in asking.requests} == {2}
    assert len({request.prompt_hash for request in asking.requests}) == 1


async def test_a_server_that_does_not_do_as_it_is_told_is_not_asked_the_same_twice() -> None:
    def answer(request: Request) -> Completion:
        told = teach(50, lambda _model, _text: {"label3": 0.5, "label13": 0.3, "label23": 0.2})(replace_regex(request))
        return replace(told, request_id=request.id)

    asking = make_asking(make_task(50), answer, soft=True)
    (row,) = await asking.labeller.complete(texts("hello"), asking.ask)
    assert row.label == "label3"
    assert [request.sampling.regex for request in asking.requests] == ["[A-E][0-9]", "B[0-9]", "C[0-9]"]


def replace_regex(request: Request) -> Request:
    return replace(request, sampling=replace(request.sampling, regex=None))


async def test_rows_nobody_is_sure_of_are_uncertain() -> None:
    def beliefs(_: str, text: str) -> Mapping[str, float]:
        return {"sure": {"label0": 0.9, "label1": 0.1}, "torn": {"label0": 0.55, "label1": 0.45}}.get(text, {"label0": 0.2})

    asking = make_asking(make_task(2), teach(2, beliefs), soft=True, min_agreement=0.6)
    rows = await asking.labeller.complete(texts("sure", "torn", "lost"), asking.ask)
    assert [row.problem and row.reason for row in rows] == [None, RejectionReason.UNCERTAIN, RejectionReason.UNCERTAIN]
    assert [row.problem for row in rows[1:]] == ["agreement 0.55, and at least 0.6 is wanted", "80% of the probability is on no label"]
    assert [row.label for row in rows] == ["label0"] * 3


@pytest.mark.parametrize(
    ("share", "label", "reason"),
    [(0.9, "label0", None), (0.45, "label0", None), (0.3, "label1", RejectionReason.DISAGREEMENT)],
)
async def test_the_label_asked_for_is_borne_out_by_its_probability(share: float, label: str, reason: RejectionReason | None) -> None:
    asking = make_asking(make_task(2), teach(2, lambda _model, _text: {"label0": share, "label1": 1 - share}), soft=True, min_agreement=0.4)
    (row,) = await asking.labeller.complete(texts("hello"), asking.ask, asked="label0")
    assert (row.label, row.problem and row.reason) == (label, reason)
    assert row.annotation is not None
    assert row.annotation.agreement == pytest.approx(share if reason is None else 1 - share)
    if reason is not None:
        assert row.problem == "asked for 'label0' (0.30), labelled 'label1' (0.70)"


async def test_teachers_give_one_distribution_together() -> None:
    beliefs = {"one": {"label0": 0.9, "label1": 0.1}, "two": {"label0": 0.4, "label1": 0.6}}
    asking = make_asking(make_task(2), teach(2, lambda model, _: beliefs[model]), ("two",), soft=True)
    (row,) = await asking.labeller.complete(texts("hello"), asking.ask)
    assert row.annotation is not None
    assert row.annotation.probabilities == pytest.approx((0.65, 0.35))
    assert [request.model for request in asking.requests] == ["one", "two"]


async def test_teachers_without_probabilities_vote() -> None:
    votes = {"one": ["label1", "label0", "label0"], "two": ["label1", "label1", "labelX"], "three": ["label1", "label1", None]}

    def answer(request: Request) -> str:
        return str([{"number": place, "label": vote} for place, vote in enumerate(votes[request.model], 1) if vote]).replace("'", '"')

    asking = make_asking(make_task(2), answer, ("two", "three"), min_agreement=0.6)
    rows = await asking.labeller.complete(texts("a", "b", "c"), asking.ask)
    assert [(row.label, row.annotation and row.annotation.agreement) for row in rows] == [
        ("label1", 1.0),
        ("label1", pytest.approx(2 / 3)),
        ("label0", 0.5),
    ]
    assert [row.problem and row.reason for row in rows] == [None, None, RejectionReason.UNCERTAIN]
    assert all(row.annotation is not None and row.annotation.probabilities is None for row in rows)
    assert len(asking.requests) == 3


async def test_texts_are_asked_about_in_as_small_parts_as_is_wanted() -> None:
    def answer(request: Request) -> str:
        return (
            '[{"number": 1, "label": "label0"}, {"number": 2, "label": "label1"}]'
            if " 2 " in request.messages[-1].content
            else '{"label": "label1"}'
        )

    asking = make_asking(make_task(2), answer, texts_per_request=2)
    rows = await asking.labeller.complete(texts("a", "b", "c", "d", "e"), asking.ask)
    assert [row.label for row in rows] == ["label0", "label1", "label0", "label1", "label1"]
    assert len(asking.requests) == 3
    alone = make_asking(make_task(2), answer, texts_per_request=1)
    assert [row.label for row in await alone.labeller.complete(texts("a", "b"), alone.ask)] == ["label1", "label1"]
    assert len(alone.requests) == 2


async def test_one_teacher_without_probabilities_knows_no_agreement() -> None:
    asking = make_asking(make_task(2), lambda _: '{"label": "label1"}', min_agreement=1.0)
    (row,) = await asking.labeller.complete(texts("a"), asking.ask)
    assert (row.label, row.problem, row.annotation) == ("label1", None, None)


@pytest.mark.parametrize("soft", [True, False])
async def test_a_teacher_who_fails_leaves_the_others_word(soft: bool) -> None:
    def answer(request: Request) -> Outcome | str:
        if request.model == "one":
            return Failure(request.id, FailureReason.TIMEOUT, "", TIMINGS)
        return teach(2, lambda _model, _text: {"label0": 0.2, "label1": 0.8})(request) if soft else '{"label": "label1"}'

    asking = make_asking(make_task(2), answer, ("two",), soft=soft)
    (row,) = await asking.labeller.complete(texts("a"), asking.ask)
    assert (row.label, row.problem) == ("label1", None)
    everybody = make_asking(make_task(2), lambda request: Failure(request.id, FailureReason.TIMEOUT, "", TIMINGS), ("two",), soft=soft)
    (row,) = await everybody.labeller.complete(texts("a"), everybody.ask)
    assert (row.reason, row.problem) == (RejectionReason.UNLABELLED, "the request for labels failed")


async def test_a_server_that_tells_no_probabilities_gives_labels() -> None:
    asking = make_asking(make_task(2), lambda _: " B", soft=True)
    (row,) = await asking.labeller.complete(texts("a"), asking.ask)
    assert (row.label, row.annotation) == ("label1", None)


async def test_a_teacher_is_calibrated_on_the_seed_once_before_its_word_counts() -> None:
    seed = tuple((f"seed {number}", f"label{number % 2}") for number in range(40))

    def beliefs(_: str, text: str) -> Mapping[str, float]:
        # Of the seed it is right in three of four, and always as sure.
        number = int(text.removeprefix("seed ")) if text.startswith("seed") else 0
        says = number % 2 if number % 4 < 3 else 1 - number % 2
        return {f"label{says}": 0.98, f"label{1 - says}": 0.02}

    asking = make_asking(make_task(2, seed), teach(2, beliefs), soft=True, calibration_rows=32)
    rows = await asking.labeller.complete(texts("a", "b"), asking.ask)
    assert all(
        row.annotation is not None and row.annotation.agreement is not None and 0.7 < row.annotation.agreement < 0.85 for row in rows
    )
    known = [prompt for prompt in asking.prompts if prompt.is_once]
    assert (len(known), len(asking.prompts)) == (32, 34)
    assert not any("validation" in message.content for request in asking.requests for message in request.messages)
    again = make_asking(make_task(2, seed), teach(2, beliefs), soft=True, calibration_rows=32)
    assert await again.labeller.complete(texts("a", "b"), again.ask) == rows
    assert {request.id for request in again.requests} == {request.id for request in asking.requests}
    as_it_is = make_asking(make_task(2, seed), teach(2, beliefs), soft=True, calibrate="none")
    (row, _) = await as_it_is.labeller.complete(texts("a", "b"), as_it_is.ask)
    assert row.annotation is not None
    assert row.annotation.agreement == pytest.approx(0.98)
    assert len(as_it_is.prompts) == 2


async def test_requests_are_the_same_in_whatever_order_answers_come(tmp_path: Path) -> None:
    beliefs = {"label3": 0.5, "label33": 0.3, "label43": 0.2}
    orders: list[set[str]] = []
    for delay in (0, 5):
        asking = make_asking(make_task(50), teach(50, lambda _model, _text: beliefs), ("two",), soft=True)
        asking._turn = delay  # pyright: ignore[reportPrivateUsage]
        await asking.labeller.complete(texts("a", "b", "a"), asking.ask)
        orders.append({request.id for request in asking.requests})
        assert len(asking.requests) == len(orders[-1]) == 3 * 2 * 3
    assert orders[0] == orders[1]


async def test_the_first_error_is_raised_as_it_is() -> None:
    class BrokenError(Exception):
        pass

    def answer(request: Request) -> str:
        raise BrokenError

    asking = make_asking(make_task(2), answer, soft=True)
    with pytest.raises(BrokenError):
        await asking.labeller.label(["a", "b"], asking.ask)
