"""What tests of asking a teacher are built from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from engine.prompting import rows_schema
from engine.records import Completion, FailureReason, FinishReason, Message, Outcome, Request, SamplingParams, Timings, Usage
from engine.teacher.concurrency import ConcurrencyController
from engine.teacher.lane import Lane
from engine.teacher.teacher import Teacher, TeacherError
from engine.testing.teacher import Reply, Script, ScriptedTeacher

LABELS = ("card_lost", "card_stolen")


def make_request(seed: int = 0, *, model: str = "scripted", num_rows: int | None = 3, prompt: str = "Write some.") -> Request:
    """Requests with different seeds are different; without a number of rows the answer's form is free."""
    schema = None if num_rows is None else rows_schema(LABELS, num_rows)
    messages = (Message("system", "You write rows."), Message("user", prompt))
    return Request(model, messages, SamplingParams(temperature=1.0, top_p=0.95, max_tokens=64, seed=seed, json_schema=schema))


def make_completion(request: Request, text: str = "[]") -> Completion:
    return Completion(request.id, text, FinishReason.STOP, Usage(7, 5), Timings(0.0, 0.25, 1))


def dropped() -> TeacherError:
    return TeacherError(FailureReason.CONNECTION, "the connection dropped")


def overloaded(retry_after_s: float | None = None) -> TeacherError:
    return TeacherError(FailureReason.OVERLOADED, "too busy", retry_after_s=retry_after_s)


def refused() -> TeacherError:
    return TeacherError(FailureReason.REFUSED, "no such thing")


def make_lane(teacher: Teacher, limit: int = 4, *, name: str = "", is_supervised: bool = False) -> Lane:
    """Its limit stays."""
    return Lane(teacher, ConcurrencyController.fixed(limit), name=name, is_supervised=is_supervised)


async def settle() -> None:
    """Let every task run until all of them wait for something outside."""
    for _ in range(30):
        await asyncio.sleep(0)


class Watched(ScriptedTeacher):
    """Notes what came together, by seed, and how often it was asked whether it lives; `dead` and `alive` say what it answers."""

    def __init__(self, script: Script = lambda _: "[]") -> None:
        super().__init__(script)
        self.posts: list[list[int]] = []
        self.num_probes = 0
        self.alive_after: int | None = None
        """So many probes bring it back."""

    async def complete(self, draws: Sequence[Request]) -> list[Completion]:
        self.posts.append([request.sampling.seed for request in draws])
        return await super().complete(draws)

    async def is_alive(self) -> bool:
        self.num_probes += 1
        if self.alive_after is not None and self.num_probes >= self.alive_after:
            self.alive = True
        return self.alive


class Gates:
    """A script in which each request waits until the test lets it go; a gate is closed until then."""

    def __init__(self) -> None:
        self._gates: dict[int, asyncio.Future[Reply]] = {}
        self.cancelled: list[int] = []

    def gate(self, seed: int) -> asyncio.Future[Reply]:
        return self._gates.setdefault(seed, asyncio.get_running_loop().create_future())

    def open(self, seed: int, reply: Reply = "[]") -> None:
        """Let the request through that waits here, or comes next; the one after it waits anew."""
        self.gate(seed).set_result(reply)

    async def __call__(self, request: Request) -> Reply:
        seed = request.sampling.seed
        try:
            reply = await asyncio.shield(self.gate(seed))
        except asyncio.CancelledError:
            self.cancelled.append(seed)
            raise
        del self._gates[seed]
        return reply


class FakeTime:
    """Stands in for asyncio.sleep and time.monotonic: sleeping takes no time, or until the test says so, and moves the clock."""

    def __init__(self, *, until: asyncio.Event | None = None) -> None:
        self.now_s = 0.0
        self.delays: list[float] = []
        self._until = until

    async def sleep(self, delay_s: float) -> None:
        self.delays.append(delay_s)
        self.now_s += delay_s
        await (asyncio.sleep(0) if self._until is None else self._until.wait())

    def clock(self) -> float:
        return self.now_s


class Records:
    """Stands in for the store: keeps outcomes, and fails the test where one comes twice."""

    def __init__(self, *outcomes: Outcome, until: asyncio.Event | None = None) -> None:
        self.outcomes: dict[str, Outcome] = {outcome.request_id: outcome for outcome in outcomes}
        self.is_recording = asyncio.Event()
        self._until = until

    async def record(self, outcome: Outcome) -> None:
        self.is_recording.set()
        if self._until is not None:
            await self._until.wait()
        assert outcome.request_id not in self.outcomes
        self.outcomes[outcome.request_id] = outcome

    def replay(self, request_id: str) -> Outcome | None:
        return self.outcomes.get(request_id)
