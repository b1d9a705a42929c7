from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.config import (
    DataConfig,
    GatesConfig,
    LabelConfig,
    PgkdConfig,
    RunConfig,
    SamplingConfig,
    TaskConfig,
    TeacherConfig,
    change_config,
)
from engine.errors import ServerError, UserError
from engine.generation import open_generation
from engine.loop import run_loop
from engine.progress import Silent
from engine.records import Candidate, Completion, Example, Failure, Finish, FinishReason, Request, RowCounts, Timings, Usage
from engine.replay import Replayed, Wish, asked_again, preview, replay
from engine.replay.dead_letters import find_dead_letters
from engine.replay.fates import Fate
from engine.replay_plan import open_plan
from engine.rundir import RunDir, write_json
from engine.runs.manifest import begin
from engine.server.fleet import Fleet
from engine.store import Store, read_calls, read_rejections, read_rounds, read_samples
from engine.strategies.forms import LabelForm
from engine.task.task import load_task
from engine.teacher import batcher
from engine.teacher.teacher import TeacherError
from engine.testing.server import ScriptedServer
from engine.testing.teacher import Reply, Script, ScriptedTeacher
from tests.engine.asking import make_lane, refused
from tests.engine.builders import LABELS, make_report, make_task
from tests.engine.scripted_runs import FAKE_STUDENT

ROWS_A_CALL = 3


def rows(*texts: str, label: str = "track") -> str:
    return json.dumps([{"text": text, "label": label} for text in texts])


def in_turn(*replies: str | TeacherError) -> Script:
    """A reply for each request, in the order in which they come first; an error as often as it is asked again."""
    given: dict[str, str | TeacherError] = {}

    def script(request: Request) -> Reply:
        return given.setdefault(request.id, replies[len(given) % len(replies)])

    return script


def cut_off(request: Request) -> Completion:
    return Completion(request.id, rows("cut")[:-1], FinishReason.LENGTH, Usage(10, 5), Timings(0.0, 0.1, 1))


FIRST = ("the red parcel is late", "the blue parcel is late", "my letter has not come")
NEAR = ("the red parcel is late again", "what is the way to the shop", "seed text 0 about track")


@dataclass
class Place:
    """A run without a student, whose teacher is a script."""

    run: RunDir
    config: RunConfig
    monkeypatch: pytest.MonkeyPatch

    async def teach(self, script: Script, round: int = 1) -> None:
        """Ask one round, and report on it."""
        self.run.create()
        begin(self.run, self.config)
        write_json(self.run.report(round - 1), make_report(round - 1))
        async with open_generation(self.config, make_task(), self.run, self._fleet(ScriptedTeacher(script))) as generation:
            await generation.ask_round(round, make_report(round - 1), Silent())
        write_json(self.run.report(round), make_report(round))

    async def replay(self, script: Script | None = None, *, model: str = "scripted", **wish: Any) -> Replayed:
        teacher = ScriptedTeacher(refuse if script is None else script)

        @asynccontextmanager
        async def open_fleet(*_: Any) -> AsyncGenerator[Fleet]:
            yield self._fleet(teacher, model)

        self.monkeypatch.setattr(asked_again, "open_fleet", open_fleet)
        try:
            return await replay(self.run, Wish(**wish), Silent())
        finally:
            self.requests = teacher.requests

    def _fleet(self, teacher: ScriptedTeacher, model: str = "scripted") -> Fleet:
        return Fleet((make_lane(teacher, 4),), model, None, 300.0, Silent(), lambda _note: None)

    def assert_conserved(self) -> None:
        """Every call and round adds up, and so do the tables with the rounds; no id comes twice."""
        all_calls, samples, rejections = read_calls(self.run), read_samples(self.run), read_rejections(self.run)
        for record in read_rounds(self.run):
            calls = [call for call in all_calls if call.origin.round == record.round]
            assert all(call.rows.is_balanced for call in calls)
            assert record.rows == sum((call.rows for call in calls), RowCounts())
            assert record.calls == len(calls)
            accepted = [row for row in samples if row.origin.round == record.round]
            rejected = [row for row in rejections if row.origin.round == record.round and row.reason != "surplus"]
            assert (len(accepted), len(rejected)) == (record.rows.accepted, record.rows.rejected)
        ids = [row.id for row in (*samples, *rejections)]
        assert len(set(ids)) == len(ids)
        requests = [call.origin.request_id for call in all_calls]
        assert len(set(requests)) == len(requests)


def refuse(_: Request) -> Reply:
    raise AssertionError("the teacher was asked")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    task = make_task()

    def write(name: str, examples: tuple[Example, ...]) -> Path:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": row.text, "label": row.label}) + "\n" for row in examples))
        return path

    config = RunConfig(
        name="test",
        seed=3,
        task=TaskConfig(
            domain=task.domain,
            labels=tuple(LabelConfig(name=label, description=f"all about {label}") for label in LABELS),
            data=DataConfig(seed=write("seed", task.seed), validation=write("validation", task.validation), test=write("test", task.test)),
        ),
        teacher=TeacherConfig(model="scripted"),
        sampling=SamplingConfig(max_tokens=64, max_tokens_bound=64),
        gates=GatesConfig(remembered_rows=1000),
        strategy=PgkdConfig(rounds=3, rows_per_round=2 * ROWS_A_CALL, rows_per_call=ROWS_A_CALL),
    )
    return Place(RunDir(tmp_path / "run"), config, monkeypatch)


def test_the_task_is_that_of_the_files(place: Place) -> None:
    assert load_task(place.config.task, 0).seed == make_task().seed


# Judged again.

OPEN_GATES = {"gates.near_duplicates": False}


async def test_rows_that_pass_now_are_a_round_of_their_own(place: Place) -> None:
    await place.teach([rows(*FIRST), rows(*NEAR)])
    (near,) = (row for row in read_rejections(place.run) if row.reason == "near_duplicate")
    before = read_samples(place.run)
    replayed = await place.replay(settings=OPEN_GATES)
    assert replayed.round == 2
    assert replayed.fates == (
        Fate("judged", "duplicate", 1, RowCounts()),
        Fate("judged", "near_duplicate", 1, RowCounts(1, accepted=1)),
    )
    (sample,) = (row for row in read_samples(place.run) if row.origin.round == 2)
    assert read_samples(place.run) == [*before, sample]
    assert (sample.text, sample.label) == (near.text, near.label)
    assert sample.origin.replays == near.id
    assert (sample.origin.weakness, sample.origin.report) == (near.origin.weakness, near.origin.report)
    (call,) = (call for call in read_calls(place.run) if call.origin.round == 2)
    assert call.origin.request_id == sample.origin.request_id != near.origin.request_id
    assert isinstance(call.outcome, Completion)
    assert (call.outcome.text, call.outcome.usage, call.outcome.timings.attempts) == (rows(*NEAR), Usage(0, 0), 0)
    assert place.requests == []
    place.assert_conserved()


async def test_what_passed_once_is_no_dead_letter_any_more(place: Place) -> None:
    await place.teach([rows(*FIRST), rows(*NEAR)])
    await place.replay(settings=OPEN_GATES)
    second = await place.replay(settings=OPEN_GATES)
    assert (second.round, second.fates) == (None, (Fate("judged", "duplicate", 1, RowCounts()),))
    assert [record.round for record in read_rounds(place.run)] == [1, 2]
    assert open_plan(place.run) is None
    place.assert_conserved()


async def test_broken_rows_are_parsed_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.teach([rows(*FIRST), '[{"text": "no label to be seen"}, {"label": "track", "text": 5}]'])
    replayed = await place.replay(settings=OPEN_GATES, asks=False)
    assert replayed.round is None

    def parse(self: LabelForm, raw: str) -> list[Candidate]:
        return [Candidate(raw, "mended", "track")]

    monkeypatch.setattr(LabelForm, "parse_rows", parse)
    replayed = await place.replay(asks=False, where="reason = 'schema'")
    assert replayed.rows == RowCounts(1, accepted=1)  # and the second is its duplicate
    place.assert_conserved()


async def test_a_condition_chooses_and_surplus_must_be_chosen(place: Place) -> None:
    await place.teach([rows(*FIRST), rows(*NEAR, "quite another thing to say")])
    everything = preview(place.run, Wish(settings=OPEN_GATES))
    assert [(fate.ended, fate.letters, fate.rows.accepted) for fate in everything.fates] == [("duplicate", 1, 0), ("near_duplicate", 1, 1)]
    chosen = await place.replay(where="reason = 'surplus' and round = 1", settings=OPEN_GATES)
    assert [(fate.ended, fate.rows.accepted) for fate in chosen.fates] == [("surplus", 1)]
    place.assert_conserved()


async def test_a_dry_run_says_the_same_and_writes_nothing(place: Place) -> None:
    await place.teach(in_turn(rows(*FIRST), refused()))
    files = sorted(place.run.root.rglob("*.*"))
    wish = Wish(settings=OPEN_GATES)
    assert preview(place.run, wish).fates == (Fate("asked", "refused", 1, RowCounts()),)
    assert sorted(path for path in place.run.root.rglob("*.*") if path.name != "compaction.lock") == files


# Asked again.


async def test_rows_that_were_never_written_are_asked_for_again(place: Place) -> None:
    await place.teach(in_turn(rows(*FIRST), refused()))
    (failed,) = (call for call in read_calls(place.run) if isinstance(call.outcome, Failure))
    replayed = await place.replay([rows(NEAR[1], "one more", "and yet another text")])
    assert replayed.fates == (Fate("asked", "refused", 1, RowCounts(3, accepted=3)),)
    assert replayed.completion_tokens > 0
    (call,) = (call for call in read_calls(place.run) if call.origin.round == 2)
    assert (call.request.messages, call.request.model) == (failed.request.messages, "scripted")
    assert call.request.sampling.seed != failed.request.sampling.seed
    assert call.origin.replays == failed.origin.request_id
    assert {sample.origin.replays for sample in read_samples(place.run)} == {None, failed.origin.request_id}
    assert call.origin.assignment == f"r0002-{failed.origin.assignment}"
    place.assert_conserved()
    assert (await place.replay()).fates == ()


async def test_a_reply_that_was_cut_off_gets_a_larger_budget_and_another_model(place: Place) -> None:
    await place.teach(lambda request: cut_off(request))
    replayed = await place.replay(
        lambda request: rows("one thing", "quite another", "third of them") if request.sampling.max_tokens == 512 else refuse(request),
        model="larger",
        where="finish_reason = 'length'",
        settings={"sampling.max_tokens": 512, "sampling.max_tokens_bound": 512},
    )
    assert [(fate.ended, fate.letters) for fate in replayed.fates] == [("cut_off", 2)]
    assert {request.model for request in place.requests} == {"larger"}
    assert replayed.rows == RowCounts(6, accepted=3, rejected=3)
    place.assert_conserved()


async def test_what_fails_again_can_be_asked_for_again(place: Place) -> None:
    await place.teach(in_turn(rows(*FIRST), refused()))
    assert (await place.replay(in_turn(refused()))).rows == RowCounts(3, failed=3)
    third = await place.replay([rows(NEAR[1], "one more", "and yet another text")])
    assert third.fates == (Fate("asked", "refused", 1, RowCounts(3, accepted=3)),)
    last = read_calls(place.run)[-1]
    assert (last.origin.round, last.origin.assignment) == (3, "r0003-r0002-r0001-a0001")
    assert (await place.replay()).round is None
    place.assert_conserved()


async def test_assignments_of_two_rounds_answer_the_reports_they_answered(place: Place) -> None:
    await place.teach(lambda _: refused(), 1)
    await place.teach(lambda _: refused(), 2)
    texts = iter(range(100))
    await place.replay(lambda _: rows(*(f"{next(texts)} is the number of {next(texts)}" for _ in range(3))), settings=OPEN_GATES)
    calls = [call for call in read_calls(place.run) if call.origin.round == 3]
    assert sorted((call.origin.report, call.origin.replays is not None) for call in calls) == [(0, True), (0, True), (1, True), (1, True)]
    earlier = {call.origin.request_id: call for call in read_calls(place.run) if call.origin.round < 3}
    assert all(earlier[call.origin.replays or ""].request.messages == call.request.messages for call in calls)
    place.assert_conserved()


# Stopped, and gone on with.


class KilledError(Exception):
    pass


async def stopped_replay(place: Place) -> None:
    """One row judged anew, one of two requests answered, and then the machine is gone."""
    await place.teach([rows(*FIRST), rows(*NEAR)], 1)
    await place.teach(lambda _: refused(), 2)
    place.monkeypatch.setattr(batcher, "MAX_DRAWS", 1)
    answered: list[int] = []

    async def script(_: Request) -> Reply:
        size = sum(path.stat().st_size for path in place.run.journal.iterdir())
        if not answered:
            answered.append(size)
            return rows("first answer", "and what it says", "with a third row")
        while sum(path.stat().st_size for path in place.run.journal.iterdir()) == answered[0]:  # noqa: ASYNC110 - its caller waits too
            await asyncio.sleep(0.001)
        raise ServerError("gone")

    with pytest.raises(ServerError):
        await place.replay(script, settings=OPEN_GATES)


async def test_a_replay_that_was_stopped_goes_on_without_doubling(place: Place) -> None:
    await stopped_replay(place)
    assert [record.round for record in read_rounds(place.run)] == [1, 2]
    replayed = await place.replay([rows("second answer", "this is what it says", "a text of its own")])
    assert len(place.requests) == 1
    assert replayed.rows == RowCounts(7, accepted=7)
    assert [fate.kind for fate in replayed.fates] == ["judged", "judged", "asked"]
    place.assert_conserved()
    assert (await place.replay(settings=OPEN_GATES)).round is None


async def test_it_may_end_with_what_was_answered(place: Place) -> None:
    await stopped_replay(place)
    replayed = await place.replay(asks=False)
    assert replayed.rows == RowCounts(4, accepted=4)
    place.assert_conserved()
    with find_dead_letters(place.run, 3, None) as letters:
        assert [letter.ended for letter in letters.unwritten] == ["refused"]


async def test_while_it_is_stopped_nothing_else_begins(place: Place) -> None:
    await stopped_replay(place)
    with pytest.raises(UserError, match=r"a replay --set gates\.near_duplicates=False was stopped and comes first"):
        await place.replay(where="round = 1")
    with pytest.raises(UserError, match="asked 'scripted', not 'another'"):
        await place.replay(model="another")
    with pytest.raises(UserError, match=r"a replay of .* was stopped; `reflux replay"):
        await run_loop(place.config, make_task(), place.run, Silent(), ("no", "student"))


@pytest.mark.parametrize("kept", range(0, 10, 2))
async def test_whatever_was_committed_before_a_kill_it_ends_the_same(place: Place, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """Killed after the so-many-th segment or record that was written."""
    await place.teach([rows(*FIRST), rows(*NEAR)], 1)
    await place.teach(lambda _: refused(), 2)
    left = kept

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KilledError
            return function(*args)

        return call

    answers = {}

    def script(request: Request) -> str:
        number = answers.setdefault(request.id, len(answers))
        return rows(f"{number} first answer of all", f"what a {number} could say", f"a third row {number}")

    with monkeypatch.context() as patch:
        import engine.store.journal as journal
        import engine.store.store as store

        patch.setattr(store, "write_segment", counted(store.write_segment))
        patch.setattr(journal, "encode_record", counted(journal.encode_record))
        try:
            await place.replay(script, settings=OPEN_GATES)
        except (KilledError, ExceptionGroup):
            assert open_plan(place.run) is not None or kept < 2
    await place.replay(script, settings=OPEN_GATES)
    assert [record.round for record in read_rounds(place.run)] == [1, 2, 3]
    assert read_rounds(place.run)[-1].rows == RowCounts(7, accepted=7)
    place.assert_conserved()


# What comes after.


async def test_a_student_still_at_work_learns_the_round_and_the_run_goes_on(place: Place) -> None:
    await place.teach([rows(*FIRST), rows(*NEAR)])
    await place.replay(settings=OPEN_GATES)
    async with ScriptedServer() as server:
        servers = {"teacher.endpoint": server.base_url, "engine.concurrency": 4}
        summary = await run_loop(change_config(place.config, servers), make_task(), place.run, Silent(), FAKE_STUDENT)
    assert [record.round for record in read_rounds(place.run)] == [1, 2, 3]
    assert summary.curve.train_rows == (6, 6, 11, 11 + read_rounds(place.run)[2].rows.accepted)
    assert summary.rows == sum((record.rows for record in read_rounds(place.run)), RowCounts())
    place.assert_conserved()


async def test_a_student_that_has_finished_is_left_alone(place: Place) -> None:
    await place.teach([rows(*FIRST), rows(*NEAR)])
    for path in (place.run.finish, place.run.summary):
        write_json(path, Finish(1, 1, "all done"))
    before = {path: path.read_bytes() for path in (place.run.finish, place.run.summary, place.run.report(1))}
    assert (await place.replay(settings=OPEN_GATES)).round == 2
    assert {path: path.read_bytes() for path in before} == before


# Where none can be.


async def test_a_round_that_has_begun_comes_first(place: Place) -> None:
    await place.teach(in_turn(rows(*FIRST), refused()))
    async with Store(place.run) as store:
        await store.record(Completion("a1", "reply", FinishReason.STOP, Usage(1, 1), Timings(0.0, 0.1, 1)))
    with pytest.raises(UserError, match=r"round 2 of .* has begun and is not complete"):
        await place.replay()
    assert not list(place.run.replays.glob("*"))


async def test_a_run_that_is_about_to_finish(place: Place) -> None:
    await place.teach(in_turn(rows(*FIRST), refused()))
    write_json(place.run.finish, Finish(1, 1, "all done"))
    with pytest.raises(UserError, match="about to finish"):
        await place.replay()


async def test_a_run_in_use(place: Place) -> None:
    await place.teach(in_turn(rows(*FIRST), refused()))
    with place.run.lock("engine"), pytest.raises(UserError, match="in use"):
        await place.replay()


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (
            {"where": "reson = 'schema'"},
            r'--where: Binder Error: .*"reson"[\s\S]*Columns of rejections: id, text, label[\s\S]*Columns of calls',
        ),
        ({"where": "reason ="}, "--where: Parser Error"),
        ({"where": "reason = 'x'; select 1"}, "--where: "),
        ({"where": "cast(text as int) = 1"}, "--where: Conversion Error"),
        ({"settings": {"strategy.rounds": 3}}, "cannot change strategy.rounds"),
        ({"settings": {"gates.similarty": 0.8}}, r"unknown key 'gates\.similarty'; did you mean 'similarity'\?"),
        ({"settings": {"gates.similarity": 7}}, "gates.similarity: Input should be less than or equal to 1"),
    ],
)
async def test_wrong_wishes_leave_nothing_behind(place: Place, wish: dict[str, Any], message: str) -> None:
    await place.teach([rows(*FIRST), rows(*NEAR)])
    with pytest.raises(UserError, match=message):
        await place.replay(**wish)
    assert not list(place.run.replays.glob("*"))


async def test_no_server_leaves_nothing_behind(place: Place) -> None:
    await place.teach(in_turn(rows(*FIRST), refused()))

    @asynccontextmanager
    async def nowhere(*_: Any) -> AsyncGenerator[Fleet]:
        raise ServerError("no server answers")
        yield

    place.monkeypatch.setattr(asked_again, "open_fleet", nowhere)
    with pytest.raises(ServerError):
        await replay(place.run, Wish(), Silent())
    assert open_plan(place.run) is None


async def test_hostile_rows_come_through(place: Place) -> None:
    hostile = "half \ud83d, NUL \0, \x1b[2J and '; drop table samples --"
    await place.teach([rows(*FIRST), rows(hostile, label="\ud800 \x1b[31m")])
    (rejection,) = read_rejections(place.run)
    assert rejection.reason == "unknown_label"
    assert (await place.replay(asks=False)).round is None
    await place.replay([rows(hostile, "another", "one more of them")])
    (sample,) = (sample for sample in read_samples(place.run) if sample.text == hostile)
    assert sample.origin.round == 2
    place.assert_conserved()
