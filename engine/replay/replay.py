"""Dead letters sent again. Rejected rows are judged by the present gates, which takes no teacher; assignments with rows that were never
written are carried out once more, which does: with a larger budget, another model, another server.

A replay is a round of its own. A complete round cannot change: its record is the sum of its calls, and the student, who has learned its
rows, keeps a watermark behind their segments and would neither see a row that joins it later nor be able to say what it has learned. So
what ends otherwise joins the tables as the next round, which a student that is still at work learns and reports on like any other (it
counts as one of `strategy.rounds`), and which one that has finished never sees. It needs a run that stands between two rounds.

Invariants:
- What has ended keeps its end. A replay adds rows that say what they replay (`Origin.replays`); a row that is refused again is left as it
  is, and nothing is written.
- requested = accepted + rejected + failed, in every call and in the round. Rows judged again stand in a call of their own: it has the
  reply of the call they came from, no attempt and no tokens, and asks for as many rows as pass.
- Nothing is done twice. What is found depends on complete rounds alone, and the ids of what is written on that and the plan; so a replay
  that was killed goes on by doing the same again, and what a complete one has brought is found no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.config import RunConfig, change_config, restore_config
from engine.errors import UserError
from engine.generation import make_gatekeeper
from engine.loop import single_errors
from engine.progress import Progress
from engine.records import RoundRecord, RowCounts
from engine.replay.asked_again import AskedAgain
from engine.replay.dead_letters import find_dead_letters
from engine.replay.fates import Fate, Fates
from engine.replay.judged_again import JudgedAgain, all_accepted, as_candidate
from engine.replay_plan import ReplayPlan, drop_plan, open_plan, save_plan
from engine.rundir import RunDir, read_json
from engine.runs.manifest import Manifest, is_of_machine
from engine.store import Store, read_rounds, run_query
from engine.strategies.forms import form_of
from engine.task.task import load_task

_CHANGEABLE = ("gates.", "sampling.", "task.max_text_chars", "teacher.", "engine.")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a user wants to be sent again, and how."""

    where: str | None = None
    """As `find_dead_letters` takes it."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Instead of the run's own, by dotted key."""
    asks: bool = True
    """Whether the teacher may be asked. If not, a replay that was stopped ends with what has been answered."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay has done, or would do."""

    round: int | None
    """Where its rows are; None if nothing has ended otherwise."""
    fates: tuple[Fate, ...]
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def rows(self) -> RowCounts:
        return sum((fate.rows for fate in self.fates), RowCounts())


async def replay(run: RunDir, wish: Wish, progress: Progress) -> Replayed:
    """Begin a replay, or go on with one that was stopped. UserError if the run is in use, or does not stand between two rounds.

    A RefluxError, or being cancelled, stops it in a state that the same call goes on from.
    """
    with run.lock("engine"), run.lock("compaction"), single_errors():
        stopped = open_plan(run)
        plan = _plan(run, wish) if stopped is None else _same_plan(stopped, wish)
        config = _configure(run, {**wish.settings, **plan.settings})
        task = await asyncio.to_thread(load_task, config.task, config.seed)
        async with Store(run) as store:
            fates = Fates()
            if stopped is None:
                _check_between_rounds(run, store)
            try:
                with find_dead_letters(run, plan.round - 1, plan.where) as letters:
                    save_plan(run, plan)
                    unwritten = letters.unwritten
                    progress.phase("reading what the gates know")
                    gatekeeper = await asyncio.to_thread(make_gatekeeper, config, task, run)
                    progress.phase(f"judging {letters.num_rejections} rejected rows")
                    await JudgedAgain(run, plan.round, store, gatekeeper, fates, form_of(task).parse_rows).judge(letters)
                asked = AskedAgain(run, config, task, plan, store, gatekeeper, fates)
                if unwritten and wish.asks:
                    await asked.ask(unwritten, progress)
                elif unwritten:
                    await asked.collect(unwritten)
            except BaseException:
                if stopped is None and not fates.tally.calls and not store.num_open:
                    drop_plan(run, plan)  # nothing has come of it that would have to be gone on with
                raise
            if not fates.tally.calls:
                drop_plan(run, plan)
                return Replayed(None, fates.listed())
            await store.complete_round(_record(plan, fates, asked.asking_s))
        return Replayed(plan.round, fates.listed(), fates.tally.prompt_tokens, fates.tally.completion_tokens)


def preview(run: RunDir, wish: Wish) -> Replayed:
    """What the same call of `replay` would judge and ask, with nothing asked and nothing written."""
    with run.lock("compaction"):
        stopped = open_plan(run)
        plan = _plan(run, wish) if stopped is None else _same_plan(stopped, wish)
        config = _configure(run, {**wish.settings, **plan.settings})
        fates = Fates()
        with find_dead_letters(run, plan.round - 1, plan.where) as letters:
            task = load_task(config.task, config.seed)
            gatekeeper, parse = make_gatekeeper(config, task, run), form_of(task).parse_rows
            for batch in letters.rejections():
                refusals = gatekeeper.judge([as_candidate(rejection, parse) for rejection in batch])
                for rejection, refusal in zip(batch, refusals, strict=True):
                    fates.add("judged", rejection.reason, 1, all_accepted(int(refusal is None)))
            for letter in letters.unwritten if wish.asks else ():
                fates.add("asked", letter.ended, 1, RowCounts())
        return Replayed(None, fates.listed())


def _record(plan: ReplayPlan, fates: Fates, asking_s: float) -> RoundRecord:
    """Its rows answer the reports that those they replay answered; as a round it follows the newest."""
    tally = fates.tally
    return RoundRecord(
        round=plan.round,
        report=plan.round - 1,
        assignments=tally.assignments,
        calls=tally.calls,
        rows=tally.rows,
        prompt_tokens=tally.prompt_tokens,
        completion_tokens=tally.completion_tokens,
        generation_s=asking_s,
    )


def _plan(run: RunDir, wish: Wish) -> ReplayPlan:
    last_round = max((record.round for record in read_rounds(run)), default=0)
    settings = {key: value for key, value in wish.settings.items() if not is_of_machine(key)}
    return ReplayPlan(last_round + 1, wish.where, settings)


def _same_plan(plan: ReplayPlan, wish: Wish) -> ReplayPlan:
    """The one that was stopped. UserError if the wish is another."""
    settings = {key: value for key, value in wish.settings.items() if not is_of_machine(key)}
    if wish.where not in (None, plan.where) or (settings and settings != plan.settings):
        began = [f"--where {plan.where!r}"] if plan.where else []
        began += [f"--set {key}={value}" for key, value in plan.settings.items()]
        raise UserError(
            f"a replay {' '.join(began) or 'of everything'} was stopped and comes first: give the command without --where and --set; "
            "with --no-ask it ends with what has been answered"
        )
    return plan


def _configure(run: RunDir, settings: Mapping[str, Any]) -> RunConfig:
    fixed = [key for key in settings if not key.startswith(_CHANGEABLE)]
    if fixed:
        raise UserError(f"a replay cannot change {fixed[0]}: the rows would be another run's; it may change {', '.join(_CHANGEABLE)}")
    return change_config(restore_config(read_json(run.run_json, Manifest).config), settings)


def _check_between_rounds(run: RunDir, store: Store) -> None:
    if run.finish.exists() and not run.summary.exists():
        raise UserError(f"{run.root} is about to finish, and its student to be scored; let `reflux run` end it first")
    begun = run_query(run, "select count(*) from calls where round > $last", {"last": store.last_round})
    # A finished run has no round under way, whatever an answer that nobody came for has left in the journal.
    if begun.column(0)[0].as_py() or (store.num_open and not run.summary.exists()):
        raise UserError(
            f"round {store.last_round + 1} of {run.root} has begun and is not complete; `reflux run` goes on with it, "
            "and a replay is possible while the student learns it, or when the run has finished"
        )
