"""A task that marks entities, small enough to read, and what a student would report of it; the rest is as in `schooling`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.config import DataConfig, LabelConfig, RunConfig, TaskConfig
from engine.records import Example, Label, Marking, Pool, Span, TaskSpec
from engine.reports import ClassScore, Confusion, MinedRow, PoolRow, Scores, Weakness, WeaknessReport
from engine.rundir import RunDir
from engine.store import read_samples
from tests.engine.strategies.schooling import HELD_OUT, make_config, make_report

TYPES: tuple[str, ...] = ("PER", 'place "of <birth>"', "日付")


def make_ner_task(folder: Path, marking: Marking = "inline") -> TaskSpec:
    """Texts say which split they are of, in words that stand in no prompt; the pool holds rows of validation and test too. Its others begin
    with the word that the scripted teacher takes for an entity. Every second row has entities of two types.
    """

    def row(split: str, number: int, place: int) -> Example:
        text = f"{split} row {number}.{place}: Ana saw Bo & <Cy>"
        ana = text.index("Ana")
        return Example(text, "", (Span(ana, ana + 3, TYPES[place]), Span(len(text) - 4, len(text), TYPES[place - number % 2])))

    def rows(split: str, count: int) -> tuple[Example, ...]:
        return tuple(row(split, number, place) for number in range(count) for place in range(len(TYPES)))

    validation, test = rows(HELD_OUT[0], 2), rows(HELD_OUT[1], 2)
    texts = [f" scripted pool row {number}" for number in range(60)] + [row.text for row in (*validation, *test)]
    folder.mkdir(parents=True, exist_ok=True)
    pool = folder / "pool.jsonl"
    pool.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    labels = tuple(Label(type, f"all about {type}") for type in TYPES)
    return TaskSpec(
        "ner", "messages to a help desk", labels, rows("seed", 3), validation, test, Pool(str(pool), "text", len(texts)), marking
    )


def make_ner_config(method: str, marking: Marking = "inline", **settings: Any) -> RunConfig:
    nowhere = Path("unused.jsonl")
    task = TaskConfig(
        kind="ner",
        domain="messages to a help desk",
        labels=tuple(LabelConfig(name=type) for type in TYPES),
        data=DataConfig(seed=nowhere, validation=nowhere, test=nowhere, pool=nowhere),
        marking=marking,
    )
    return make_config(method, sections={"task": task}, **settings)


def report_on_spans(root: Path, task: TaskSpec, round: int) -> WeaknessReport:
    """Of a student that takes each type for the next in every second row, and cuts the first letter off the last entity."""
    samples = [Example(row.text, "", row.annotation.spans) for row in read_samples(RunDir(root)) if row.annotation is not None]
    seen = [*task.seed, *samples]
    taken_for = dict(zip(TYPES, (*TYPES[1:], TYPES[0]), strict=True))

    def guess(row: Example) -> tuple[Span, ...]:
        *first, last = (replace(span, type=taken_for[span.type]) for span in row.spans)
        return (*first, replace(last, start=last.start + 1, type=row.spans[-1].type))

    right = [MinedRow(row.text, "", "", 0.8, row.spans, row.spans) for row in seen[::2]]
    wrong = [MinedRow(row.text, "", "", 0.7, row.spans, guess(row)) for row in seen[1::2]]
    return make_report(
        round,
        right,
        wrong,
        scores=Scores(0.5, 0.5, 0.5, 6, micro_f1=0.5),
        classes=tuple(ClassScore(type, 0.5, 0.5, 0.5, 2) for type in TYPES),
        confusions=(Confusion(TYPES[0], TYPES[1], 1),),
        weaknesses=(
            Weakness(f"pair:{TYPES[0]}>{TYPES[1]}", TYPES[:2], 1, 2, 0.1, ()),
            Weakness(f"boundary:{TYPES[1]}", TYPES[1:2], 1, 2, 0.1, ()),
            Weakness(f"type:{TYPES[2]}", TYPES[2:], 1, 2, 0.1, ()),
        ),
        uncertain=tuple(PoolRow(f"scripted pool row {number}", "", 0.4) for number in range(8)) if round == 1 else None,
    )
