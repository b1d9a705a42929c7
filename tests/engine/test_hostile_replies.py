"""Ten thousand replies, each worse than a teacher has any right to write, through parsing, desk, gates and accounts.

Nothing crashes, every row ends once (requested = accepted + rejected + failed, surplus beside it), and good rows around a broken one are
kept. What Hypothesis makes of the replies to the other methods' turns is in tests/engine/strategies/test_mutated_replies.py.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from engine.config import PgkdConfig, SamplingConfig
from engine.desk import Desk
from engine.gates.gates import Gatekeeper
from engine.prompting import Prompter
from engine.records import Assignment, Call, Completion, FinishReason, Outcome, Rejection, Request, RowCounts, Sample, Timings, Usage
from engine.rundir import RunDir
from engine.store import Store, connect
from engine.strategies.pgkd import Pgkd
from prompts import PromptLibrary
from tests.engine.builders import LABELS, make_report, make_task
from tests.engine.hostile_corpus import CORPUS, Reply

NUM_REPLIES = 10_000
NUM_STORED = 200
NUM_ROWS = 4
"""Asked for in each reply."""
BROKEN = '{"text": "a \\"bad\\" row", "label": "change"}'
NASTY = ('"', "\\", "{", "}", "[", "]", ",", ":", "'", "\0", "\n", "\ud83d", "\u202e", "\u2028", "\ufeff", "“", "e\u0301", "ﬁ")

SWAPS = (('"', "'"), ("label", "Label"), ("cancel", "cancle"), (":", "="), ("text", "label"))


class Ledger:
    """Stands in for the store: what was filed under each request, and nothing twice."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Sample | Rejection]] = {}
        self.calls: dict[str, Call] = {}

    def endings(self, request_id: str) -> tuple[()]:
        return ()

    def replay(self, request_id: str) -> None:
        return None

    def add_rows(self, request_id: str, rows: Sequence[Sample | Rejection]) -> None:
        assert request_id not in self.rows
        assert [row.id for row in rows] == [f"{request_id}-{place}" for place in range(len(rows))]
        self.rows[request_id] = [*rows]

    async def add_call(self, call: Call) -> None:
        assert call.outcome.request_id not in self.calls
        self.calls[call.outcome.request_id] = call


def make_desk(ledger: Ledger | Store, say: Callable[[Request], str], *, near: bool = False) -> Desk:
    task = make_task()
    prompter = Prompter(PromptLibrary(), "teacher", SamplingConfig(), seed=1)
    held_out = (row.text for rows in (task.validation, task.test) for row in rows)
    gatekeeper = Gatekeeper(
        LABELS, 100, known=(row.text for row in task.seed), held_out=held_out, similarity=0.7 if near else None, remembered_rows=1000
    )

    async def send(request: Request, priority: int) -> Outcome:
        outcome = Completion(request.id, say(request), FinishReason.STOP, Usage(1, 1), Timings(0.0, 0.0, 1))
        if isinstance(ledger, Store):
            await ledger.record(outcome)
        return outcome

    return Desk(
        Pgkd(PgkdConfig(), task, prompter, 1),
        prompter,
        gatekeeper,
        ledger,  # pyright: ignore[reportArgumentType]
        send,
        max_tokens_bound=1024,
    )


async def work_off(replies: Sequence[str], ledger: Ledger | Store, *, near: bool = False) -> list[Call]:
    """A call for each reply, all at one desk, so that what one brought is known to the next; in the order of the replies."""
    left = iter(replies)
    desk = make_desk(ledger, lambda _: next(left), near=near)
    report = make_report()
    assignments = [Assignment(f"r0001-a{number:04d}", number, 1, 0, "report", (), NUM_ROWS) for number in range(len(replies))]
    calls = await asyncio.gather(*(desk.work_off(assignment, report) for assignment in assignments))
    return [call for one in calls for call in one]


def check(call: Call, rows: Sequence[Sample | Rejection]) -> None:
    """The account of one call, by what was filed."""
    reasons = Counter("accepted" if isinstance(row, Sample) else str(row.reason) for row in rows)
    surplus, accepted = reasons["surplus"], reasons["accepted"]
    written = len(rows) - surplus
    assert call.rows == RowCounts(NUM_ROWS, accepted, written - accepted, NUM_ROWS - written, surplus)
    assert surplus == 0 or written == NUM_ROWS
    for row in rows:
        if isinstance(row, Sample):
            assert row.label in LABELS
            assert row.text == row.text.strip() != ""


def break_everywhere() -> Iterator[str]:
    """A row cut off, short of a character, or with one too many, in each of its places."""
    for place in range(1, len(BROKEN)):
        yield BROKEN[:place]
        yield BROKEN[:place] + BROKEN[place + 1 :]
        yield from (BROKEN[:place] + nasty + BROKEN[place:] for nasty in NASTY)


def mutate(generator: random.Random, reply: str) -> str:
    """What happens to a reply on its way, once to three times."""
    for _ in range(generator.randint(1, 3)):
        at, to = sorted(generator.randint(0, len(reply)) for _ in range(2))
        put = generator.choice(NASTY) * generator.randint(1, 3)
        match generator.randrange(9):
            case 0:
                reply = reply[:at]
            case 1:
                reply = reply[at:]
            case 2:
                reply = reply[:at] + put + reply[at:]
            case 3:
                reply = reply[:at] + reply[to:]
            case 4:
                reply = reply[:to] + reply[at:]
            case 5:
                reply = f'{{"rows": {reply}}}' if generator.random() < 0.5 else json.dumps({"rows": reply})
            case 6:
                reply = f"[{reply}, {reply}]"
            case 7:
                reply = reply.replace(
                    *generator.choice([('"', "'"), ("label", "Label"), ("cancel", "cancle"), (":", "="), ("text", "label")])
                )
            case _:
                reply = reply.replace(generator.choice(NASTY), put, 3)
    return reply


def mutated(count: int, seed: int) -> list[str]:
    generator = random.Random(seed)
    replies: list[str] = []
    while len(replies) < count:
        rows = [
            {"text": f"row {len(replies)} {place} " + "".join(generator.choices("ab é漢😀\u0301", k=5)), "label": generator.choice(LABELS)}
            for place in range(generator.randint(1, NUM_ROWS + 2))
        ]
        good = json.dumps(rows, ensure_ascii=generator.random() < 0.5)
        base = good if generator.random() < 0.8 else generator.choice(CORPUS).text[:2000]
        replies.append(mutate(generator, base))
    return replies


@pytest.mark.parametrize("reply", CORPUS, ids=lambda reply: reply.name)
async def test_of_every_reply_of_the_corpus_the_good_rows_are_kept_and_no_others(reply: Reply) -> None:
    ledger = Ledger()
    (call,) = await work_off([reply.text], ledger)
    rows = ledger.rows[call.request.id]
    check(call, rows)
    assert tuple(row.text for row in rows if isinstance(row, Sample) or str(row.reason) == "surplus")[: len(reply.kept)] == reply.kept
    assert call.rows.accepted == len(reply.kept)


async def test_a_row_broken_in_any_place_costs_only_itself() -> None:
    ledger = Ledger()
    replies = [
        f'[{{"text": "one {number}", "label": "cancel"}}, {broken}, {{"text": "two {number}", "label": "track"}}]'
        for number, broken in enumerate(break_everywhere())
    ]
    for number, call in enumerate(await work_off(replies, ledger)):
        rows = ledger.rows[call.request.id]
        check(call, rows)
        accepted = {row.text for row in rows if isinstance(row, Sample)}
        assert accepted >= {f"one {number}", f"two {number}"}, replies[number]


async def test_ten_thousand_mutated_replies_are_accounted_for() -> None:
    ledger = Ledger()
    replies = mutated(NUM_REPLIES, seed=1)
    calls = await work_off(replies, ledger, near=True)
    assert len(calls) == len(ledger.calls) == len(ledger.rows) == NUM_REPLIES
    for call in calls:
        check(call, ledger.rows[call.request.id])
    total = sum((call.rows for call in calls), RowCounts())
    assert total.is_balanced
    assert total.requested == NUM_REPLIES * NUM_ROWS
    reasons = Counter(str(row.reason) for rows in ledger.rows.values() for row in rows if isinstance(row, Rejection))
    # That the mutations reach every gate there is for rows with labels of their own.
    assert reasons.keys() >= {"schema", "unknown_label", "empty", "too_long", "duplicate", "near_duplicate", "leakage", "surplus"}
    assert total.accepted > NUM_REPLIES / 2
    assert total.failed > NUM_REPLIES / 2


async def test_what_is_accounted_for_is_what_lies_in_the_tables(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.create()
    replies = [*(reply.text for reply in CORPUS), *mutated(NUM_STORED, seed=2)]
    async with Store(run) as store:
        calls = await work_off(replies, store)
    with connect(run) as connection:
        by_call = connection.execute(
            """
            with ended as (
                select request_id, 'accepted' as ending from samples union all select request_id, reason from rejections
            )
            select c.request_id, rows_requested, rows_accepted, rows_rejected, rows_failed, rows_surplus, text,
                count(*) filter (ending = 'accepted'), count(*) filter (ending not in ('accepted', 'surplus')),
                count(*) filter (ending = 'surplus'), any_value(endings)
            from calls as c left join ended using (request_id) group by all
            """
        ).fetchall()
    assert len(by_call) == len(calls) == len(replies)
    counts = {call.request.id: call.rows for call in calls}
    for request_id, requested, accepted, rejected, failed, surplus, _, num_samples, num_rejections, num_surplus, endings in by_call:
        assert RowCounts(requested, accepted, rejected, failed, surplus) == counts[request_id]
        assert requested == accepted + rejected + failed == NUM_ROWS
        assert (accepted, rejected, surplus) == (num_samples, num_rejections, num_surplus)
        assert len(endings) == accepted + rejected + surplus
