"""The teacher labels a pool of texts that somebody has.

Invariants:
- Every row of the pool ends exactly once: labelled in the output, or in the file of rejections with the reason. Copies are rows like any
  others, and no gate compares texts.
- A round is ROUND_ROWS rows of the pool in their order. What is asked follows from the pool alone: a process that goes on asks the same,
  and is answered from disk. Memory holds a round, however large the pool.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.config import RunConfig
from engine.errors import UserError
from engine.gates.gates import Refusal, check_shape
from engine.progress import Progress
from engine.prompting import Prompt, Prompter
from engine.records import (
    Assignment,
    Candidate,
    Finish,
    Message,
    Pool,
    Rejection,
    RejectionReason,
    Sample,
    TaskKind,
    TaskSpec,
    Totals,
    content_of,
    hash_messages,
)
from engine.replay_plan import refuse_open_replay
from engine.reports import WeaknessReport
from engine.rundir import RunDir, write_json
from engine.runs.manifest import begin
from engine.runs.purpose import Purpose, claim
from engine.solo import teacher_alone
from engine.store import read_rejections, read_rounds, read_samples
from engine.strategies import Ask, Written
from engine.strategies.forms import form_of
from engine.strategies.text_labeller import real_candidate
from engine.task.label_files import check_target, writing
from engine.task.task import pool_texts
from engine.text import Content, parts

ROUND_ROWS = 20_000
PLACE = "pool_row"
"""The column with a row's number in the pool, from 0."""
_ROW = "row:"


@dataclass(frozen=True, slots=True)
class PoolSummary:
    """What has come of it."""

    run: str
    labelled: int
    rejected: int
    file: str | None
    """With the labelled rows; None if there are none."""
    rejections: str | None
    """With the others."""
    classes: Mapping[str, int]
    """Labelled rows by label; none for a task that marks spans."""
    calls: int
    prompt_tokens: int
    completion_tokens: int
    generation_s: float
    reason: str


class Sweep:
    """A Strategy that has every text of a round labelled, in their order."""

    name = "label"

    def __init__(self, config: RunConfig, task: TaskSpec, prompter: Prompter) -> None:
        assert config.strategy.type == "pool"
        # Soft labels are asked for one text at a time.
        self._rows_per_call = 1 if config.labelling.soft else config.strategy.rows_per_call
        self._max_text_chars = config.task.max_text_chars
        self._labeller = form_of(task).labeller(prompter)
        self._first = 0
        self._texts: Sequence[Content] = ()
        self.rows_per_round = 0

    def take(self, first: int, texts: Sequence[Content]) -> None:
        """The texts of the next round; `first` is the number of the first of them."""
        self._first, self._texts, self.rows_per_round = first, texts, len(texts)

    def plan(self, round: int, report: WeaknessReport, earlier: Sequence[WeaknessReport] = ()) -> Iterator[Assignment]:
        for number, start in enumerate(range(0, len(self._texts), self._rows_per_call)):
            num_rows = min(self._rows_per_call, len(self._texts) - start)
            yield Assignment(f"r{round:04d}-a{number:04d}", number, round, report.round, "none", (), num_rows)

    async def carry_out(self, assignment: Assignment, report: WeaknessReport, ask: Ask) -> list[Written]:
        start = assignment.number * self._rows_per_call
        rows = [
            real_candidate(text, f"{_ROW}{self._first + start + place}")
            for place, text in enumerate(self._texts[start : start + assignment.num_rows])
        ]
        unfit = [row for row in rows if self._problem(row) is not None]
        fit = [row for row in rows if self._problem(row) is None]
        written: list[Written] = []
        if unfit:
            # Not shown to the teacher, and recorded like all others.
            messages = (Message("user", " ".join(row.weakness for row in unfit)),)
            answer = await ask(Prompt(self.name, messages, "{}", hash_messages(messages), reply="[]"))
            written.append(Written(answer, tuple(unfit), len(unfit)))
        if fit:
            labelled = await self._labeller.label([content_of(row) for row in fit], ask)
            # Texts that were asked about together stand side by side.
            for answer, group in groupby(zip(fit, labelled, strict=True), key=lambda pair: pair[1].answer):
                judged = tuple([self._labeller.judge(row, found) for row, found in group])
                written.append(Written(answer, judged, len(judged)))
        return written

    def blocks(self, round: int, report: WeaknessReport) -> Mapping[str, int]:
        return {"pool": len(self._texts)}

    def _problem(self, row: Candidate) -> RejectionReason | None:
        texts = parts(content_of(row))
        if not all(texts):
            return RejectionReason.EMPTY
        return RejectionReason.TOO_LONG if max(map(len, texts)) > self._max_text_chars else None


class Shapes:
    """Gates that compare a row with no other."""

    def __init__(self, config: RunConfig, task: TaskSpec, run: RunDir) -> None:
        self._labels = frozenset(task.label_names)
        self._max_text_chars = config.task.max_text_chars
        self._kind: TaskKind = task.kind

    def judge(self, rows: Sequence[Candidate]) -> list[Refusal | None]:
        return [check_shape(row, self._labels, self._max_text_chars, self._kind) for row in rows]


async def label_pool(config: RunConfig, task: TaskSpec, run: RunDir, out: Path, progress: Progress) -> PoolSummary:
    """Label all rows of `task.pool`, or go on with it, then write `out` and the rejections beside it. The caller has checked machine and
    teacher, and `config.strategy` is of type pool.

    A RefluxError, or being cancelled, stops it in a state that the same call resumes from.
    """
    pool = task.pool
    assert pool is not None
    check_target(out)
    run.create()
    with run.lock("engine"):
        run.clear_temporaries()
        refuse_open_replay(run)
        if claim(run, Purpose("label", pool.num_rows)).rows != pool.num_rows:
            raise _changed(pool, run)
        manifest = begin(run, config, task, progress.notice)
        if not run.finish.exists():
            sweeps: list[Sweep] = []

            def make(config: RunConfig, task: TaskSpec, prompter: Prompter) -> Sweep:
                sweeps.append(Sweep(config, task, prompter))
                return sweeps[0]

            async with teacher_alone(config, task, run, manifest, progress, make, Shapes) as solo:
                rounds = _rounds(pool, solo.last_round)
                while texts := await asyncio.to_thread(next, rounds, None):
                    if (reason := solo.generation.budget.reason_to_stop()) is not None:
                        raise UserError(f"{reason}; raise it to go on with {run.root}")
                    sweeps[0].take(solo.last_round * ROUND_ROWS, texts)
                    await solo.ask_next_round()
                write_json(run.finish, Finish(best_round=0, rounds=solo.last_round, reason="all rows of the pool were asked about"))
        progress.phase(f"writing {out}")
        return await asyncio.to_thread(_write_out, config, task, pool, run, out)


def _rounds(pool: Pool, done: int) -> Iterator[list[Content]]:
    """The texts of each round behind those that are done."""
    texts = chain.from_iterable(pool_texts(pool))
    rest = islice(texts, done * ROUND_ROWS, None)
    while taken := list(islice(rest, ROUND_ROWS)):
        yield taken


def _write_out(config: RunConfig, task: TaskSpec, pool: Pool, run: RunDir, out: Path) -> PoolSummary:
    data = config.task.data
    label = data.labels_column if config.task.kind == "multi_label" else data.label_column
    columns = _text_columns(config)
    names = task.label_names
    rejections = out.with_name(f"{out.stem}.rejected{out.suffix}")
    classes: dict[str, int] = {}
    labelled = rejected = 0
    with writing(out, _schema(config, names)) as write, writing(rejections, _rejected_schema(columns)) as write_rejected:
        for number, texts in enumerate(_rounds(pool, 0)):
            ended = _ended(run, number + 1)
            good: list[dict[str, Any]] = []
            bad: list[dict[str, Any]] = []
            for place, raw in enumerate(texts, start=number * ROUND_ROWS):
                row, shown = ended.get(place), dict(zip(columns, parts(raw), strict=True))
                if isinstance(row, Sample):
                    if parts(content_of(row)) != (*map(str.strip, parts(raw)),):
                        raise _changed(pool, run)
                    good.append({PLACE: place, **shown, **_said(row, config, names, label)})
                    for name in (row.annotation and row.annotation.labels) or (row.label,):
                        classes[name] = classes.get(name, 0) + 1
                elif row is not None:
                    bad.append({PLACE: place, **shown, "reason": str(row.reason), "detail": row.detail})
                else:
                    # Its request had the very number of another row's with the same text, which chance allows once in 2**31.
                    bad.append({PLACE: place, **shown, "reason": "unlabelled", "detail": "its request was taken for another row's"})
            write(good)
            write_rejected(bad)
            labelled += len(good)
            rejected += len(bad)
    totals = Totals.of(read_rounds(run))
    return PoolSummary(
        run=str(run.root),
        labelled=labelled,
        rejected=rejected,
        file=str(out) if labelled else None,
        rejections=str(rejections) if rejected else None,
        classes={name: classes.get(name, 0) for name in names} if task.kind != "ner" else {},
        calls=totals.calls,
        prompt_tokens=totals.prompt_tokens,
        completion_tokens=totals.completion_tokens,
        generation_s=totals.generation_s,
        reason="all rows of the pool have ended",
    )


def _ended(run: RunDir, round: int) -> dict[int, Sample | Rejection]:
    """By row of the pool."""
    is_of_round = pc.field("round") == round
    rows = chain(read_samples(run, is_of_round), read_rejections(run, is_of_round))
    return {int(row.origin.weakness.removeprefix(_ROW)): row for row in rows}


def _said(row: Sample, config: RunConfig, names: Sequence[str], label: str) -> dict[str, Any]:
    annotation = row.annotation
    said: dict[str, Any] = {}
    if config.task.kind == "ner":
        said["spans"] = [asdict(span) for span in annotation.spans] if annotation else []
    elif config.task.kind == "multi_label":
        said[label] = list(annotation.labels or ()) if annotation else []
    else:
        said[label] = row.label
    said["agreement"] = annotation and annotation.agreement
    if config.labelling.soft:
        probabilities = annotation and annotation.probabilities
        said["probabilities"] = dict(zip(names, probabilities, strict=True)) if probabilities else None
    return said


def _schema(config: RunConfig, names: Sequence[str]) -> pa.Schema:
    data = config.task.data
    span = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("type", pa.string())])
    found = {
        "classification": (data.label_column, pa.string()),
        "pair": (data.label_column, pa.string()),
        "multi_label": (data.labels_column, pa.list_(pa.string())),
        "ner": ("spans", pa.list_(span)),
    }[config.task.kind]
    fields = [(PLACE, pa.int64()), *((name, pa.string()) for name in _text_columns(config)), found, ("agreement", pa.float64())]
    if config.labelling.soft:
        fields.append(("probabilities", pa.struct([(name, pa.float32()) for name in names])))
    return pa.schema(fields)


def _text_columns(config: RunConfig) -> tuple[str, ...]:
    """As the pool has them."""
    second = config.task.text_pair_column
    return (config.task.data.text_column, *([] if second is None else [second]))


def _rejected_schema(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([(PLACE, pa.int64()), *((name, pa.string()) for name in columns), ("reason", pa.string()), ("detail", pa.string())])


def _changed(pool: Pool, run: RunDir) -> UserError:
    return UserError(f"{pool.path} holds other rows than those that {run.root} has labelled; choose another folder with --run")
