from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from engine.records import Message, Request, SamplingParams
from engine.teacher import backlog as backlog_module
from engine.teacher.backlog import MAX_OVERTAKEN, Backlog

SAMPLING = SamplingParams(temperature=1.0, top_p=0.95, max_tokens=64, seed=0)


@dataclass(slots=True, eq=False)
class Asker:
    request: Request
    priority: int = 0
    is_single: bool = False

    @property
    def text(self) -> str:
        return self.request.messages[-1].content

    @property
    def seed(self) -> int:
        return self.request.sampling.seed


def make_asker(*texts: str, seed: int = 0, priority: int = 0, is_single: bool = False, model: str = "m", **sampling: object) -> Asker:
    messages = tuple(Message("user", text) for text in texts)
    return Asker(Request(model, messages, replace(SAMPLING, seed=seed, **sampling)), priority, is_single)  # pyright: ignore[reportArgumentType]


def make_backlog(askers: list[Asker]) -> Backlog[Asker]:
    backlog: Backlog[Asker] = Backlog()
    for asker in askers:
        backlog.add(asker)
    return backlog


def empty(backlog: Backlog[Asker], most: int = 16) -> list[list[Asker]]:
    taken: list[list[Asker]] = []
    while len(backlog):
        taken.append(backlog.take(most))
    return taken


def texts(taken: list[list[Asker]]) -> list[str]:
    return [asker.text for group in taken for asker in group]


# Order.


def test_nobody_waits() -> None:
    assert make_backlog([]).take(16) == []


def test_prompts_with_the_longest_common_prefix_leave_side_by_side() -> None:
    prompts = [(system, user) for system in ("system a", "system b") for user in ("ask 10", "ask 11", "ask 2", "see")]
    shuffled = Random(0).sample(prompts, len(prompts))
    taken = empty(make_backlog([make_asker(*prompt) for prompt in shuffled]))
    assert [tuple(message.content for message in asker.request.messages) for (asker,) in taken] == prompts


def test_the_walk_goes_on_from_where_it_was_and_then_from_the_beginning() -> None:
    backlog = make_backlog([make_asker(text) for text in "bdf"])
    assert texts([backlog.take(1), backlog.take(1)]) == ["b", "d"]
    for text in "aceg":
        backlog.add(make_asker(text))
    assert texts(empty(backlog)) == ["e", "f", "g", "a", "c"]


def test_of_one_prompt_the_walk_goes_on_with_the_next_seed() -> None:
    backlog = make_backlog([make_asker("a", seed=seed) for seed in (1, 2, 3, 4)])
    backlog.take(2)
    backlog.add(make_asker("a", seed=0))
    assert [asker.seed for group in empty(backlog, 1) for asker in group] == [3, 4, 0]


def test_a_higher_priority_goes_first_and_each_has_a_walk_of_its_own() -> None:
    backlog = make_backlog([make_asker(text, priority=priority) for priority in (0, 2, 1) for text in "bd"])
    assert texts([backlog.take(1) for _ in range(5)]) == ["b", "d", "b", "d", "b"]
    backlog.add(make_asker("a", priority=7))
    backlog.add(make_asker("c"))
    assert texts(empty(backlog)) == ["a", "c", "d"]


def test_equal_requests_leave_in_the_order_in_which_they_came() -> None:
    askers = [make_asker("a") for _ in range(3)]
    assert empty(make_backlog(askers)) == [[asker] for asker in askers]


# Draws.


def test_draws_of_one_prompt_leave_together_as_many_as_may() -> None:
    askers = [make_asker("a", seed=seed) for seed in range(7)]
    backlog = make_backlog(Random(1).sample(askers, 7))
    assert empty(backlog, 3) == [askers[:3], askers[3:6], askers[6:]]


@pytest.mark.parametrize(
    "other",
    [
        make_asker("a", seed=7),
        make_asker("a", seed=5),
        make_asker("b", seed=6),
        make_asker("a", "", seed=6),
        make_asker("a", seed=6, temperature=0.5),
        make_asker("a", seed=6, top_p=0.5),
        make_asker("a", seed=6, max_tokens=128),
        make_asker("a", seed=6, json_schema="{}"),
        make_asker("a", seed=6, regex="[A-B]"),
        make_asker("a", seed=6, top_logprobs=20),
        make_asker("a", seed=6, model="another"),
        make_asker("a", seed=6, is_single=True),
        make_asker("a", seed=6, priority=1),
    ],
)
def test_what_is_asked_otherwise_leaves_by_itself(other: Asker) -> None:
    assert sorted(map(len, empty(make_backlog([make_asker("a", seed=5), other])))) == [1, 1]


def test_equal_texts_in_other_roles_are_another_prompt() -> None:
    asker = make_asker("a", seed=1)
    as_system = Asker(replace(asker.request, messages=(Message("system", "a"),), prompt_hash="", sampling=replace(SAMPLING, seed=2)))
    assert [len(group) for group in empty(make_backlog([asker, as_system]))] == [1, 1]


def test_who_is_single_parts_those_before_from_those_behind() -> None:
    askers = [make_asker("a", seed=seed, is_single=seed == 2) for seed in range(5)]
    assert empty(make_backlog(askers)) == [askers[:2], askers[2:3], askers[3:]]


# Leaving without being asked.


def test_who_is_discarded_does_not_leave_again() -> None:
    askers = [make_asker("a", seed=seed) for seed in range(4)]
    backlog = make_backlog(askers)
    backlog.discard(askers[1])
    assert len(backlog) == 3
    assert backlog.take(16) == askers[:1]
    backlog.discard(askers[0])  # it has left
    backlog.discard(askers[1])  # twice
    backlog.discard(make_asker("never here"))
    assert backlog.take(16) == askers[2:]
    backlog.discard(askers[2])
    assert len(backlog) == 0
    assert backlog.take(16) == []


def test_who_left_or_was_discarded_may_come_back_with_another_priority() -> None:
    first, second = make_asker("a"), make_asker("b")
    backlog = make_backlog([first, second])
    assert backlog.take(1) == [first]
    backlog.discard(second)
    first.priority = second.priority = 9
    backlog.add(second)
    backlog.add(first)
    backlog.add(make_asker("c", priority=8))
    assert texts(empty(backlog)) == ["a", "b", "c"]


# Nobody starves.


def test_who_was_overtaken_too_often_leaves_next_and_the_walk_goes_on_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "MAX_OVERTAKEN", 5)
    backlog = make_backlog([make_asker("m"), make_asker("a")])
    backlog.take(1)
    left: list[str] = []
    for number in range(8):  # always one that comes just before the oldest
        backlog.add(make_asker(f"b{number}"))
        left += texts([backlog.take(1)])
    assert left == ["b0", "b1", "b2", "b3", "m", "b4", "b5", "b6"]


def test_common_prefixes_stay_together_as_long_as_few_wait() -> None:
    prompts = [f"prompt {number:04d}" for number in range(MAX_OVERTAKEN)]
    taken = empty(make_backlog([make_asker(text) for text in Random(0).sample(prompts, len(prompts))]))
    assert texts(taken) == prompts


class Model(RuleBasedStateMachine):
    """Beside the backlog, a plain list of who waits; each step is looked at from there."""

    most_overtaken = 2

    def __init__(self) -> None:
        super().__init__()
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(backlog_module, "MAX_OVERTAKEN", self.most_overtaken)
        self.backlog: Backlog[Asker] = Backlog()
        self.waiting: list[Asker] = []
        """In the order in which they came."""
        self.gone: list[Asker] = []
        self.overtaken: dict[Asker, int] = {}
        """How often somebody who came later led those who left."""

    def teardown(self) -> None:
        self._patch.undo()

    @rule(
        text=st.sampled_from("abc"),
        seed=st.integers(0, 9),
        priority=st.sampled_from((0, 0, 0, 5)),
        max_tokens=st.sampled_from((64, 64, 128)),
    )
    def add(self, text: str, seed: int, priority: int, max_tokens: int) -> None:
        self._add(make_asker(text, seed=seed, priority=priority, is_single=seed == 4, max_tokens=max_tokens))

    @precondition(lambda self: self.gone)
    @rule(data=st.data(), priority=st.sampled_from((0, 5, 9)))
    def add_again(self, data: st.DataObject, priority: int) -> None:
        asker = data.draw(st.sampled_from(self.gone))
        self.gone.remove(asker)
        asker.priority = priority
        self._add(asker)

    @rule(most=st.integers(1, 4))
    def take(self, most: int) -> None:
        taken = self.backlog.take(most)
        assert len(set(taken)) == len(taken) <= most
        assert bool(taken) == bool(self.waiting)
        assert set(taken) <= set(self.waiting)
        if taken:
            leader = taken[0]
            assert leader.priority == max(asker.priority for asker in self.waiting)
            for one, other in pairwise(taken):
                assert other.request == replace(one.request, sampling=replace(one.request.sampling, seed=one.seed + 1))
                assert other.priority == one.priority
                assert not one.is_single
                assert not other.is_single
            for asker in self.waiting[: self.waiting.index(leader)]:
                if asker.priority == leader.priority and asker not in taken:
                    self.overtaken[asker] += 1
        for asker in taken:
            self.waiting.remove(asker)
        self.gone += taken

    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        if self.waiting or self.gone:
            asker = data.draw(st.sampled_from(self.waiting + self.gone))
            self.backlog.discard(asker)
            if asker in self.waiting:
                self.waiting.remove(asker)
                self.gone.append(asker)

    @invariant()
    def as_many_wait(self) -> None:
        assert len(self.backlog) == len(self.waiting)

    @invariant()
    def nobody_starves(self) -> None:
        assert all(self.overtaken[asker] <= self.most_overtaken for asker in self.waiting)

    def _add(self, asker: Asker) -> None:
        self.backlog.add(asker)
        self.waiting.append(asker)
        self.overtaken[asker] = 0


TestAgainstAPlainModel = Model.TestCase
TestAgainstAPlainModel.settings = settings(max_examples=60, stateful_step_count=30)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(("a", "ab", "b")), st.integers(0, 20)), unique=True), st.integers(1, 16), st.randoms())
def test_everybody_leaves_once_and_as_few_times_as_possible(who: list[tuple[str, int]], most: int, random: Random) -> None:
    askers = [make_asker(text, seed=seed) for text, seed in sorted(who)]
    groups: list[list[Asker]] = []
    for asker in askers:
        last = groups[-1] if groups else []
        if last and len(last) < most and (last[-1].text, last[-1].seed + 1) == (asker.text, asker.seed):
            last.append(asker)
        else:
            groups.append([asker])
    assert empty(make_backlog(random.sample(askers, len(askers))), most) == groups
