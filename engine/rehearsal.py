"""A method's conversation with a teacher who is not there: what would be sent, word for word, and how the reply is asked for.

What a later turn quotes of an earlier reply is made up, and so is the report, unless one of a run is given.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from engine.config import RunConfig
from engine.errors import UserError
from engine.prompting import Prompt, open_prompter
from engine.records import Assignment, Completion, Example, FinishReason, Message, SamplingParams, Span, TaskSpec, Timings, Usage
from engine.reports import ClassScore, Confusion, MinedRow, Scores, WeaknessReport
from engine.strategies import Answer, make_strategy
from engine.task.task import labels_of
from engine.testing.teacher import fill
from engine.variants import DEFAULT
from prompts import VARIANT


@dataclass(frozen=True, slots=True)
class Turn:
    """One request."""

    template: str
    model: str
    messages: tuple[Message, ...]
    sampling: SamplingParams


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """One assignment of a round, carried out."""

    method: str
    round: int
    num_assignments: int
    """Of the round."""
    assignment: Assignment
    turns: tuple[Turn, ...]


def rehearse(config: RunConfig, task: TaskSpec, report: WeaknessReport, number: int = 0, variant: str | None = None) -> Rehearsal:
    """The round that answers this report, and in it the assignment of this number. UserError where there is none, or a template is
    wrong.

    `variant`: said in the variants of this name; None says it as the run would, were this its first round.
    """
    prompter = open_prompter(config, config.teacher.model, variant)
    strategy = make_strategy(config, task, prompter)
    round = report.round + 1
    assignments = list(strategy.plan(round, report))
    if number >= len(assignments):
        planned = f"{len(assignments)}, counted from 0" if assignments else "none: it asks the teacher nothing"
        raise UserError(f"round {round} of {config.strategy.type} has no assignment {number}; it has {planned}")
    turns: list[Turn] = []

    async def ask(prompt: Prompt) -> Answer:
        prompt = prompter.word(prompt, assignments[number])
        request = prompter.assigned(prompt, assignments[number], len(turns))
        turns.append(Turn(prompt.template, request.model, request.messages, request.sampling))
        made_up = json.dumps(fill(json.loads(prompt.schema), lambda place: f"(text {place + 1})"))
        reply = made_up if prompt.reply is None else prompt.reply
        return Answer(prompt, request, Completion(request.id, reply, FinishReason.STOP, Usage(0, 0), Timings(0.0, 0.0, 0)))

    async def carry_out() -> None:
        await strategy.carry_out(assignments[number], report, ask)

    asyncio.run(carry_out())
    return Rehearsal(config.strategy.type, round, len(assignments), assignments[number], tuple(turns))


def check_prompts(config: RunConfig, task: TaskSpec) -> None:
    """UserError if a template of the user's own is wrong: found before a server is started, not by the round that renders it."""
    variants = config.variants.templates
    if (config.prompts is not None or variants) and config.strategy.rows_per_round:
        # The first rounds of EvoKD may be those of other methods.
        first_rounds = config.strategy.init_rounds + 1 if config.strategy.type == "evokd" else 0
        said = {
            turn.template.partition("@")[0]
            for round in {0, first_rounds}
            for variant in {DEFAULT, *(name for files in variants.values() for name in files)}
            for turn in rehearse(config, task, make_up_report(config, task, round), variant=variant).turns
        }
        for template, files in variants.items():
            unsaid = [name for name in files if f"{template}{VARIANT}{name}" not in said]
            if unsaid:
                used = ", ".join(sorted(name for name in said if VARIANT not in name))
                raise UserError(f"variants of {template}: this method never says {template}, so they cannot be compared; it says {used}")


def make_up_report(config: RunConfig, task: TaskSpec, round: int = 0) -> WeaknessReport:
    """Of a student that gets half of everything right and takes each label, or type of entity, for the next; what it is wrong about is
    seed rows.
    """
    strategy, names = config.strategy, task.label_names
    taken_for = dict(zip(names, (*names[1:], names[0]), strict=True))
    support = max(1, len(task.validation) // len(names))
    mistakable = [row for row in task.seed if labels_of(row)]  # each label has a row at least
    hard = _mine(mistakable, strategy.hard, 0, taken_for)
    wrong = _mine(mistakable, strategy.wrong, len(hard), taken_for)
    right = _mine(task.seed, strategy.right, len(hard) + len(wrong), {name: name for name in names})
    return WeaknessReport(
        round=round,
        loss=1.0,
        scores=Scores(0.5, 0.5, 0.5, support * len(names)),
        classes=tuple(ClassScore(name, 0.5, 0.5, 0.5, support) for name in names),
        confusions=tuple(Confusion(name, other, support // 2) for name, other in taken_for.items() if name != other),
        mining=strategy.mining,
        right=right,
        wrong=wrong,
        hard=hard,
        num_train_rows=len(task.seed),
        train_s=0.0,
        epochs=1,
    )


def _mine(rows: Sequence[Example], count: int, start: int, predicted: Mapping[str, str]) -> tuple[MinedRow, ...]:
    """At most so many rows, each once, beginning at one of them."""
    chosen = islice(cycle(rows), start, start + min(count, len(rows)))
    return tuple(_mined(row, predicted) for row in chosen)


def _mined(row: Example, predicted: Mapping[str, str]) -> MinedRow:
    found = tuple(Span(span.start, span.end, predicted[span.type]) for span in row.spans)
    said = {predicted[label] for label in row.labels}
    taken_for = tuple(name for name in predicted if name in said)
    return MinedRow(row.text, row.label, predicted.get(row.label, ""), 0.9, row.spans, found, row.labels, taken_for, row.text_pair)


def as_text(rehearsal: Rehearsal) -> str:
    """For people: a heading a turn, how it is sampled, then the messages."""
    assignment = rehearsal.assignment
    lines = [
        f"# {rehearsal.method}, round {rehearsal.round}, assignment {assignment.number} of {rehearsal.num_assignments}: "
        f"{assignment.num_rows} rows, weakness {assignment.weakness}"
    ]
    for number, turn in enumerate(rehearsal.turns, start=1):
        sampling = turn.sampling
        lines += [
            "",
            f"## turn {number} of {len(rehearsal.turns)}: {turn.template}",
            f"model {turn.model}, temperature {sampling.temperature:g}, top_p {sampling.top_p:g}, max_tokens {sampling.max_tokens}, "
            f"seed {sampling.seed}",
            f"schema {sampling.json_schema or 'none'}"
            if sampling.regex is None
            else f"regex {sampling.regex}, {sampling.top_logprobs} log-probabilities a token",
        ]
        for message in turn.messages:
            lines += [f"<{message.role}>", message.content]
    return "\n".join(lines) + "\n"
