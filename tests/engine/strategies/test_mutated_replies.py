"""Whatever a teacher writes: no crash, every row accounted for, and valid rows around a broken one kept.

REFLUX_MUTATED_REPLIES=10000 looks at so many instead of some hundreds.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config import SamplingConfig
from engine.desk import Desk
from engine.gates.gates import Gatekeeper
from engine.labels.marking import check_spans
from engine.parsing import (
    parse_label_sets,
    parse_labels,
    parse_marked_rows,
    parse_marks,
    parse_pair_rows,
    parse_pairs,
    parse_rows,
    parse_set_rows,
    parse_strings,
    parse_texts,
)
from engine.prompting import Prompter
from engine.records import (
    ONE_LABEL,
    Call,
    Completion,
    FinishReason,
    Marking,
    Outcome,
    Rejection,
    Request,
    RowCounts,
    Sample,
    TaskSpec,
    Timings,
    Usage,
)
from engine.strategies import STRATEGIES
from engine.testing.teacher import write_rows
from prompts import PromptLibrary
from tests.engine.strategies.label_sets import make_set_config, make_set_task, report_on_sets
from tests.engine.strategies.pairs import make_pair_config, make_pair_task, report_on_pairs
from tests.engine.strategies.schooling import LABELS, TAUGHT, make_config, make_task, report_on
from tests.engine.strategies.tagging import TYPES, make_ner_config, make_ner_task, report_on_spans

NUM_REPLIES = int(os.environ.get("REFLUX_MUTATED_REPLIES", "200"))
ASKING = [name for name in TAUGHT if name != "eda"]
GOOD = {"text": "a valid row", "label": LABELS[0]}

CORPUS = [
    "",
    "null",
    "[]",
    "{}",
    "[[[[",
    "}" * 50,
    '{"text":',
    '"text"',
    "I am sorry, but I cannot help with that.",
    "```json\n[]\n```",
    '[{"text": "a", "label": null}]',
    '[{"text": ["a"], "label": {"b": "c"}}]',
    '[{"text": "a", "text": "b", "label": "c", "label": "d"}]',
    '{"rows": [{"text": "a"}, 3, null, "x", [{"text": "b"}]]}',
    '[{"text": "\\ud800", "label": "\\udfff"}]',
    "[{\"text\": 'single', \"label\": 'quotes'}]",
    '[{"text": "a\nb", "label": "raw line break"}]',
    '[{"text": "\x00\x1b[31m\u202e", "label": "\ufeff"}]',
    '[{"text": NaN, "label": Infinity}]',
    '{"text": 1' + "0" * 5000 + ', "label": "a"}',
    '{"a":' * 3000 + "1" + "}" * 3000,
    '[{"text": "a", "label": "b"}, {"a": ' + "[" * 5000 + "]" * 5000 + "}]",
    '[{"number": 1, "label": "a"}, {"number": 1, "label": "b"}, {"number": 99, "label": "a"}, {"number": true, "label": "a"}]',
    '{"number": 9007199254740993, "label": "a"}',
    "\ud800" + json.dumps([GOOD]),
]


MARKED_CORPUS = [
    '[{"text": "<PER>a</PER><PER>b</PER>"}, {"text": "<PER>"}, {"text": "</PER><PER>"}, {"text": "<PER></PER>"}]',
    '[{"text": "' + "<PER>" * 2000 + '"}]',
    '[{"text": "' + "a" * 3000 + '", "entities": [' + ", ".join(['{"text": "a", "type": "PER"}'] * 300) + "]}]",
    '[{"text": "a", "entities": {"text": "a"}}, {"text": "a", "entities": [null, 3, {"text": 1, "type": []}]}]',
    '[{"text": "a a", "entities": [{"text": "a", "type": "PER", "nth": -1}, {"text": "a", "type": "PER", "nth": true}]}]',
    '{"entities": [{"text": "scripted", "type": "PER"}]}',
    '[{"number": 1, "entities": "a"}, {"number": 1, "text": "<PER>scripted</PER>"}]',
]


SET_CORPUS = [
    json.dumps([{"text": "a", "labels": [LABELS[0], LABELS[0]]}, {"text": "b", "labels": ["x"]}, {"text": "c", "labels": [*LABELS]}]),
    json.dumps([{"text": "a", "labels": LABELS[0]}, {"text": "b", "labels": {"0": LABELS[0]}}, {"text": "c", "labels": [[3], None]}]),
    json.dumps([{"text": "a", "labels": [LABELS[0]] * 5000}, {"text": "b", "labels": [LABELS[0], True, 1.5]}]),
    json.dumps({"labels": [{"text": "a", "labels": []}]}),
    json.dumps({"labels": [LABELS[0]]}),
    json.dumps([LABELS[0], LABELS[1]]),
    json.dumps([{"number": 1, "labels": []}, {"number": 1, "labels": [LABELS[0]]}, {"number": 2, "labels": "none"}]),
]


PAIR_CORPUS = [
    json.dumps([{"text": "a", "text_pair": ["b"], "label": LABELS[0]}, {"text": "a", "text_pair": None, "label": LABELS[0]}, "a"]),
    json.dumps({"rows": ["a", ["a", "b"], {"text": "a", "text_pair": "b"}]}),
    json.dumps([{"text_pair": "b", "label": LABELS[0]}, {"text": "a", "text_pair": "\ud800", "label": LABELS[0]}]),
]


class Ledger:
    """Stands in for the store: keeps how every row has ended, and fails the test where one ends twice."""

    def __init__(self) -> None:
        self.rows: dict[str, Sample | Rejection] = {}

    def endings(self, request_id: str) -> tuple[()]:
        return ()

    def add_rows(self, request_id: str, rows: Sequence[Sample | Rejection]) -> None:
        for row in rows:
            assert row.id not in self.rows
            assert row.id.startswith(f"{request_id}-")
            self.rows[row.id] = row

    def replay(self, request_id: str) -> None:
        return None

    async def record(self, outcome: Outcome) -> None:
        pass

    async def add_call(self, call: Call) -> None:
        assert call.rows.is_balanced


class Classroom:
    """Methods at a desk without a disk."""

    def __init__(self, folder: Path, kind: str) -> None:
        """`kind`: what is written, a label, any number of labels, or entities marked in one way."""
        self._marking: Marking = kind if kind in ("inline", "json") else "inline"
        make, report, self._configure = {
            "label": (make_task, report_on, make_config),
            "sets": (make_set_task, report_on_sets, make_set_config),
            "pairs": (make_pair_task, report_on_pairs, make_pair_config),
        }.get(kind, (partial(make_ner_task, marking=self._marking), report_on_spans, partial(make_ner_config, marking=self._marking)))
        self._task: TaskSpec = make(folder)
        self._report = report(folder, self._task, 1)
        self._prompter = Prompter(PromptLibrary(), "teacher", SamplingConfig(), 1)

    def work_off(self, method: str, reply: Callable[[Request], str]) -> tuple[RowCounts, Ledger]:
        """The first assignment of a round, and what became of its rows."""
        config, ledger = self._configure(method), Ledger()
        strategy = STRATEGIES[method](config.strategy, self._task, self._prompter, 1)
        known = (row.content for row in self._task.seed)
        gatekeeper = Gatekeeper(self._task.label_names, 100, known=known, held_out=(), kind=self._task.kind)

        async def send(request: Request, priority: int) -> Outcome:
            return Completion(request.id, reply(request), FinishReason.STOP, Usage(1, 1), Timings(0.0, 0.0, 1))

        desk = Desk(strategy, self._prompter, gatekeeper, ledger, send, max_tokens_bound=64)  # pyright: ignore[reportArgumentType]
        assignment = next(iter(strategy.plan(2, self._report)))
        calls = asyncio.run(desk.work_off(assignment, self._report))
        total = sum((call.rows for call in calls), RowCounts())
        assert total.requested == assignment.num_rows
        assert len(ledger.rows) == total.accepted + total.rejected + total.surplus
        assert sum(isinstance(row, Sample) for row in ledger.rows.values()) == total.accepted
        for row in ledger.rows.values():
            if isinstance(row, Sample):
                assert row.text.strip()
                if self._task.kind in ONE_LABEL:
                    assert row.label in LABELS
                    assert self._task.kind != "pair" or (row.annotation is not None and (row.annotation.text_pair or "").strip())
                elif self._task.kind == "multi_label":
                    assert row.annotation is not None
                    assert row.annotation.labels == tuple(label for label in LABELS if label in (row.annotation.labels or ()))
                else:
                    assert row.annotation is not None
                    check_spans(row.text, row.annotation.spans, TYPES)
        return total, ledger


@pytest.fixture(scope="module")
def classrooms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Classroom]:
    return {kind: Classroom(tmp_path_factory.mktemp("task"), kind) for kind in KINDS}


KINDS = ("label", "sets", "pairs", "inline", "json")


@pytest.mark.parametrize(
    ("method", "kind"),
    [*((method, "label") for method in ASKING), *((method, kind) for method in ("pgkd", "evokd", "auggpt") for kind in KINDS[1:])],
)
def test_the_corpus_is_survived_by_every_method_in_every_turn(classrooms: dict[str, Classroom], method: str, kind: str) -> None:
    for reply in (*CORPUS, *MARKED_CORPUS, *SET_CORPUS, *PAIR_CORPUS):
        # Once in the turn in question after good ones, for a later turn is only asked if the earlier ones went well.
        for bad_turn in range(3):
            turns: list[Request] = []

            def say(request: Request, reply: str = reply, bad_turn: int = bad_turn, turns: list[Request] = turns) -> str:
                turns.append(request)
                return reply if len(turns) - 1 == bad_turn else write_rows(request)

            classrooms[kind].work_off(method, say)


FIELDS = ["text", "text_pair", "label", "labels", "kind", "number", "x"]
texts = st.text(st.characters(), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from(LABELS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=3,
)
noise = (
    st.sampled_from(["Sure! ", "```json\n", "\n```", ",", "[", "]", "{", "}", '"', "\\", "\u2028", "\ufeff", "\ud83d", "<think>", " "])
    | texts
)


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[str], str]:
    """What happens to a good reply on its way: cut, doubled, nested, a piece lost or put in, a value of another type, prose around."""
    kind = draw(st.sampled_from(["cut", "double", "wrap", "insert", "delete", "type", "prose", "swap"]))
    place, length, put, value = draw(st.floats(0, 1)), draw(st.integers(1, 12)), draw(noise), draw(values)

    def mutate(reply: str) -> str:
        at = int(place * len(reply))
        match kind:
            case "cut":
                return reply[:at]
            case "double":
                return reply + put + reply
            case "wrap":
                return json.dumps({"rows": reply}) if length % 2 else f'{{"rows": {reply}}}'
            case "insert":
                return reply[:at] + put + reply[at:]
            case "delete":
                return reply[:at] + reply[at + length :]
            case "type":
                rows: Any = json.loads(reply)
                if isinstance(rows, list) and rows:
                    items: list[Any] = rows
                    items[int(place * (len(items) - 1))] = value
                return json.dumps(rows)
            case "prose":
                return f"{put}{reply}{put}"
            case _:
                return reply[at:] + reply[:at]

    return mutate


@pytest.mark.timeout(60 + NUM_REPLIES // 10)
@settings(max_examples=NUM_REPLIES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), method=st.sampled_from(ASKING), turn=st.integers(0, 2), mutate=mutations())
def test_mutated_replies_are_accounted_for(
    classrooms: dict[str, Classroom], kind: str, method: str, turn: int, mutate: Callable[[str], str]
) -> None:
    turns: list[Request] = []

    def say(request: Request) -> str:
        turns.append(request)
        good = write_rows(request)
        return mutate(good) if len(turns) - 1 == turn else good

    classrooms[kind].work_off(method, say)


@pytest.mark.timeout(60 + NUM_REPLIES // 10)
@settings(max_examples=NUM_REPLIES // 2, deadline=None)
@given(st.lists(values.filter(lambda value: value != GOOD), max_size=3), st.booleans(), noise)
def test_valid_rows_around_a_broken_one_are_kept(broken: list[Any], is_list: bool, between: str) -> None:
    """Objects stand for themselves, so that what is between them may be anything but an opening brace or quotation mark."""
    between = between.replace("{", "").replace('"', "")
    pieces = [json.dumps(GOOD), *(json.dumps(value) for value in broken if isinstance(value, dict)), json.dumps(GOOD)]
    reply = f"[{', '.join(pieces)}]" if is_list else between.join(pieces)
    found = [candidate for candidate in parse_rows(reply) if (candidate.text, candidate.label) == (GOOD["text"], GOOD["label"])]
    assert len(found) >= 2
    assert sum(candidate.text == GOOD["text"] for candidate in parse_texts(reply)) >= 2


@pytest.mark.timeout(60 + NUM_REPLIES // 10)
@settings(max_examples=NUM_REPLIES // 2, deadline=None)
@given(
    st.one_of(texts, values.map(lambda value: json.dumps(value)), st.sampled_from([*CORPUS, *SET_CORPUS, *PAIR_CORPUS])), st.integers(1, 5)
)
def test_any_reply_can_be_read_as_anything(reply: str, count: int) -> None:
    assert len(parse_labels(reply, count)) == count
    assert len(parse_label_sets(reply, count, LABELS)) == count
    assert len(parse_strings(reply, count)) <= count
    marked = [candidate for marking in ("inline", "json") for candidate in parse_marked_rows(reply, LABELS, marking)]
    assert all(len(parse_marks(reply, ["a"] * count, LABELS, marking)) == count for marking in ("inline", "json"))
    paired = [*parse_pair_rows(reply), *parse_pairs(reply, ("hard",))]
    for candidate in (*parse_rows(reply), *parse_texts(reply, ("hard",)), *parse_set_rows(reply, LABELS), *paired, *marked):
        assert len(candidate.raw) <= 10_000
        assert candidate.problem != ""
