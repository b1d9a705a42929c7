"""Reflux from Python: a task made of a few rows, rows from a teacher, and a student that has learned them.

    python examples/python_api.py http://127.0.0.1:8000/v1 MODEL

asks a server that already runs and serves MODEL (`reflux teacher serve` starts one); everything it makes lies in runs/api.
"""

from __future__ import annotations

import sys
from pathlib import Path

import engine
import student
from engine.strategy_config import HybridConfig, ZerogenConfig

LABELS = {"cancel": "stop the order before it ships", "change": "keep the order, but change it", "track": "where the parcel is"}
ROWS = {
    "cancel": ["please cancel my order", "I do not want it any more", "stop the shipment", "call the whole thing off"],
    "change": ["can I have it in blue instead", "make it two of them", "I need a larger size", "swap one of the items"],
    "track": ["where is my parcel", "has it been shipped yet", "when will it arrive", "the tracking link shows nothing"],
}


def make_task() -> engine.TaskSpec:
    """Two rows of each label to learn from, one to steer by, one for the end: a real task has more."""
    labels = tuple(engine.Label(name, description) for name, description in LABELS.items())
    seed, validation, test = (
        tuple(engine.Example(text, label) for label, texts in ROWS.items() for text in texts[start:end])
        for start, end in ((0, 2), (2, 3), (3, 4))
    )
    return engine.TaskSpec("classification", "messages to the help desk of a shop", labels, seed, validation, test)


def write_rows(teacher: engine.TeacherConfig, folder: Path) -> list[engine.Sample]:
    """Thirty rows without a student, all labels alike."""
    config = engine.make_config(make_task(), teacher, folder / "task", strategy=ZerogenConfig(rows_per_call=5))
    summary = engine.generate(config, rows=30, out=folder / "rows")
    print(summary.reason, summary.classes)
    return engine.read_samples(engine.open_run(folder / "rows"))


def teach(teacher: engine.TeacherConfig, folder: Path) -> engine.Summary:
    """Two rounds in which the student's weaknesses steer what the teacher writes."""
    config = engine.make_config(make_task(), teacher, folder / "task", strategy=HybridConfig(rounds=2, rows_per_round=48))
    summary = engine.distil(config, out=folder / "run")
    print(f"macro F1 on test: {summary.student.before.test.macro_f1:.2f} before, {summary.student.after.test.macro_f1:.2f} after")
    return summary


if __name__ == "__main__":
    endpoint, model = sys.argv[1:3]
    folder = Path("runs/api")
    for row in write_rows(engine.TeacherConfig(model=model, endpoint=endpoint), folder)[:5]:
        print(f"{row.label}: {row.text}")
    teach(engine.TeacherConfig(model=model, endpoint=endpoint), folder)
    texts = ["is my parcel on its way?", "I changed my mind, no order please"]
    for text, prediction in zip(texts, student.Predictor.load(folder / "run/student/final").predict(texts), strict=True):
        print(f"{prediction.label} ({prediction.confidence:.2f}): {text}")
