"""The teacher asked for labels as it would be without a student: each text by itself, by the labelling prompt of the run.

Nothing of it is recorded, and nothing replayed: what is measured is asked.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.config import RunConfig
from engine.errors import UserError
from engine.progress import Progress
from engine.prompting import Prompt, Prompter, open_prompter
from engine.records import Assignment, Completion, Outcome, TaskSpec
from engine.rundir import RunDir
from engine.server.fleet import open_fleet
from engine.strategies import Answer
from engine.strategies.forms import form_of
from engine.strategies.labelling import Labeller
from engine.teacher.batcher import Batcher


@dataclass(frozen=True, slots=True)
class Said:
    """Of one batch, asked for at once."""

    labels: tuple[str | None, ...]
    """None where no label came."""
    seconds: float
    """From the first request to the last label."""
    tokens: int
    """Of prompts and replies."""


class ZeroShot:
    """A teacher at its server."""

    def __init__(self, task: TaskSpec, prompter: Prompter, batcher: Batcher) -> None:
        self._labeller = Labeller(task, prompter, form_of(task).values)
        self._prompter = prompter
        self._batcher = batcher
        self._asked = 0

    async def label(self, texts: Sequence[str]) -> Said:
        """All at once: how many are there at a time is the batcher's to find out."""
        before, started = self._tokens(), time.perf_counter()
        labelled = await asyncio.gather(*(self._one(text) for text in texts))
        return Said(tuple(labelled), time.perf_counter() - started, self._tokens() - before)

    async def _one(self, text: str) -> str | None:
        # A number of its own, so that no two requests are the same and answered by one.
        self._asked += 1
        assignment = Assignment(f"r0001-a{self._asked}", self._asked, 1, 0, "none", (), 1)
        turn = 0

        async def ask(prompt: Prompt) -> Answer:
            nonlocal turn
            request = self._prompter.assigned(prompt, assignment, turn)
            turn += 1
            return Answer(prompt, request, await self._batcher.ask(request))

        (found,) = await self._labeller.label([text], ask)
        return found.label if isinstance(found.answer.outcome, Completion) else None

    def _tokens(self) -> int:
        statistics = self._batcher.statistics()
        return statistics.prompt_tokens + statistics.completion_tokens


def check_kind(task: TaskSpec) -> None:
    """UserError for a task whose texts do not have one label each."""
    if task.kind != "classification":
        raise UserError(f"only tasks of kind 'classification' can be compared with a teacher so far; this one is of kind {task.kind!r}")


@asynccontextmanager
async def open_zero_shot(config: RunConfig, task: TaskSpec, progress: Progress) -> AsyncGenerator[ZeroShot]:
    """With the run's first teacher: a server that the configuration names, or one of our own. UserError as
    `check_kind`.
    """
    check_kind(task)
    alone = config.model_copy(update={"teachers": ()})

    async def record(_outcome: Outcome) -> None:
        pass

    with tempfile.TemporaryDirectory(prefix="reflux-zero-shot-") as folder:
        run = RunDir(Path(folder))
        run.create()
        async with (
            open_fleet(config.teacher, config.engine, run, progress, lambda _server: None) as fleet,
            Batcher(
                fleet.lanes,
                attempts=config.engine.attempts,
                random=random.Random(config.seed),
                record=record,
                patience_s=config.engine.server_patience_s,
            ) as batcher,
        ):
            yield ZeroShot(task, open_prompter(alone, fleet.model, others=()), batcher)
