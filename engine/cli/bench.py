"""Commands that measure: `bench cost`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.shell import Json, Run, Settings, messages, note, output, parse_settings, print_json, run_async
from engine.config import RunConfig, change_config
from engine.cost.meter import count_gpus
from engine.cost.predictions import Inputs, Quality, Timing, set_beside
from engine.errors import UserError
from engine.records import Example, TaskSpec
from engine.rundir import open_run, read_json, write_json
from engine.runs.figures import read_figures
from engine.runs.manifest import Manifest, stored_config
from engine.task.task import load_task
from engine.views.console import console_progress
from engine.views.prediction_cost import prediction_cost_view
from engine.zero_shot import check_kind, open_zero_shot

if TYPE_CHECKING:
    from student.predictions import TextPredictor
    from student.speed import Timed

TEACHER = "teacher zero-shot"
LONG, OWN = "long", "own lengths"
"""Inputs of about as many tokens as asked, and the task's rows as they are."""
Batches = list[list[str]]


def cost(
    run: Run,
    endpoint: Annotated[list[str] | None, typer.Option(help="Use a server that already runs, instead of starting the teacher.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Inputs at once.")] = 64,
    tokens: Annotated[int, typer.Option(min=1, help="Of the long inputs, about; rows are joined to reach them.")] = 1000,
    repeats: Annotated[int, typer.Option(min=1, help="Batches of each kind that count, behind one that warms up.")] = 3,
    test_rows: Annotated[int | None, typer.Option(min=1, help="Score on so many test rows only.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON too.", metavar="FILE")] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Set the teacher, asked for labels without any student, beside the student of a run on the same inputs: time, money, scores.

    Says after how many predictions the run has paid for itself. Prices are those of `[cost]`, or of --set; without any, seconds are
    compared.

    Example: reflux bench cost runs/quickstart --set cost.machine_hour_price=0.77
    """
    place = open_run(run)
    if not place.final_student.is_dir():
        raise UserError(f"{run} has no final student yet; finish the run first")
    overrides = parse_settings(settings) | ({"teacher.endpoint": endpoint} if endpoint else {})
    config = change_config(stored_config(place, read_json(place.run_json, Manifest)), overrides)
    task = load_task(config.task, config.seed)
    check_kind(task)
    rows = list(task.test)
    random.Random(config.seed).shuffle(rows)
    rows = rows[:test_rows]
    notices: list[str] = []
    found = _measure(config, task, rows, place.final_student, batch, tokens, repeats, notices.append)
    figures = read_figures(place)
    beside = set_beside(TEACHER, *found, config.cost, figures.cost, figures.wall_s, [*_notes(config, tokens), *notices])
    if out is not None:
        write_json(out, beside)
    if as_json:
        print_json(beside)
    else:
        output.print(prediction_cost_view(beside))


def _measure(
    config: RunConfig,
    task: TaskSpec,
    rows: Sequence[Example],
    student: Path,
    batch: int,
    tokens: int,
    repeats: int,
    on_notice: Callable[[str], None],
) -> tuple[list[Timing], list[Quality], list[Inputs]]:
    from student.predictor import Predictor, score_rows
    from student.speed import longest, open_ways, time_ways

    texts = [row.text for row in rows]
    counter = Predictor.load(student).student.tokenizer

    def count(text: str) -> int:
        return len(counter.tokenize(text, verbose=False))

    lengths = [count(text) for text in texts]
    own = [list(islice(cycle(texts), number * batch, (number + 1) * batch)) for number in range(repeats + 1)]
    joined = joined_texts(texts, lengths, tokens)
    long = [list(islice(joined, batch)) for _ in range(repeats + 1)]
    inputs = [Inputs(LONG, batch, fmean(map(count, long[0])), joined=True), Inputs(OWN, batch, fmean(lengths), joined=False)]
    timings: list[Timing] = []
    quality: list[Quality] = []
    note("timing the student")
    known = [row.text for row in (*task.validation, *task.test)]
    with open_ways(student, known, on_notice=on_notice) as ways:
        for name, batches in ((LONG, long), (OWN, own)):
            timings += _timings(name, batch, time_ways(ways, batches), ways)
        for name, way in ways.items():
            scores = score_rows(way, rows).scores
            quality.append(Quality(name, len(rows), scores.accuracy, scores.macro_f1))
    most, furthest = timings[0].most_tokens, longest(student)
    if most is not None and furthest > most:
        with open_ways(student, known, furthest) as ways:
            further = {f"{name}, reading further": way for name, way in ways.items()}
            timings += _timings(LONG, batch, time_ways(further, long), further)
    teacher = run_async(_ask_teacher(config, task, rows, long, own), "Stopped.")
    timings = [*teacher[0], *timings]
    return timings, [teacher[1], *quality], inputs


def joined_texts(texts: Sequence[str], lengths: Sequence[int], tokens: int) -> Iterator[str]:
    """Rows behind each other until there are so many tokens, for ever; no two alike, so that no server has seen one before."""
    rows = cycle(zip(texts, lengths, strict=True))
    while True:
        parts: list[str] = []
        count = 0
        while count < tokens:
            text, length = next(rows)
            parts.append(text)
            count += max(length, 1)
        # One row behind: the next round over few rows is made up otherwise.
        next(rows)
        yield "\n".join(parts)


def _timings(inputs: str, batch: int, timed: Mapping[str, Timed], ways: Mapping[str, TextPredictor]) -> list[Timing]:
    found: list[Timing] = []
    for name, (seconds, cut_share) in timed.items():
        found.append(Timing(name, inputs, batch, seconds, 1.0 if "cuda" in name else 0.0, cut_share, ways[name].max_length))
    return found


async def _ask_teacher(
    config: RunConfig, task: TaskSpec, rows: Sequence[Example], long: Batches, own: Batches
) -> tuple[list[Timing], Quality]:
    from sklearn.metrics import accuracy_score, f1_score

    gpus = count_gpus(config).number
    timings: list[Timing] = []
    with console_progress(messages) as progress:
        async with open_zero_shot(config, task, progress) as teacher:
            for name, batches in ((LONG, long), (OWN, own)):
                progress.phase(f"the teacher labels {len(batches)} batches of {len(batches[0])} ({name})")
                said = [await teacher.label(batch) for batch in batches]
                counted = said[1:] or said
                size = len(batches[0])
                timings.append(
                    Timing(
                        TEACHER,
                        name,
                        size,
                        tuple(one.seconds for one in counted),
                        gpus,
                        cut_share=0.0,
                        failed=sum(one.labels.count(None) for one in counted),
                        tokens_per_row=sum(one.tokens for one in counted) / (size * len(counted)),
                    )
                )
            progress.phase(f"the teacher labels {len(rows)} test rows")
            answers = (await teacher.label([row.text for row in rows])).labels
    true, given = [row.label for row in rows], [answer or "" for answer in answers]
    names = sorted({*true})
    quality = Quality(
        TEACHER,
        len(rows),
        float(accuracy_score(true, given)),
        float(f1_score(true, given, labels=names, average="macro", zero_division=0.0)),  # pyright: ignore[reportArgumentType]
        answers.count(None),
    )
    return timings, quality


def _notes(config: RunConfig, tokens: int) -> list[str]:
    prices = config.cost
    found = [f"long inputs are rows of the test set joined to about {tokens:,} tokens; their labels mean nothing, only their time does"]
    if all(price is None for price in (prices.gpu_hour_price, prices.machine_hour_price, prices.kwh_price)):
        found.append("no price is set (cost.gpu_hour_price, cost.machine_hour_price, cost.kwh_price), so nothing is told in money")
    if prices.kwh_price is not None and prices.watts is None:
        found.append("energy is not in it: cost.watts is not set")
    return found
