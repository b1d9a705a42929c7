"""Reflux from Python: a task made of a few rows, rows from a teacher, and a student that has learned them.

    python examples/python_api.py http://127.0.0.1:8000/v1 MODEL

asks a server that already runs and serves MODEL (`reflux teacher serve` starts one); everything it makes lies in runs/api. Editors that
know notebooks (VS Code, PyCharm, Spyder, Jupyter with jupytext) run it cell by cell: put your server's address below first.
"""

# %% What is needed, and the server that is asked

from __future__ import annotations

import sys
from pathlib import Path

import engine
import student
from engine.config import HybridConfig, ZerogenConfig
from engine.records import RoundRecord
from engine.reports import WeaknessReport

ENDPOINT, MODEL = "http://127.0.0.1:8000/v1", "Qwen3-8B"
FOLDER = Path("runs/api")

# %% The task: labels, and a few real rows of each
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


# %% Rows from the teacher
def write_rows(teacher: engine.TeacherConfig, folder: Path) -> list[engine.Sample]:
    """Thirty rows without a student, all labels alike."""
    config = engine.make_config(make_task(), teacher, folder / "task", strategy=ZerogenConfig(rows_per_call=5))
    summary = engine.generate(config, rows=30, out=folder / "rows")
    print(summary.reason, summary.classes)
    return engine.read_samples(engine.open_run(folder / "rows"))


# %% A student, whose weaknesses steer the teacher
class Told(engine.Silent):
    """Progress in words of one's own. Without, lines on standard error tell the same, and more."""

    def round_done(self, record: RoundRecord) -> None:
        print(f"round {record.round}: {record.rows.accepted} of {record.rows.requested} rows accepted")

    def reported(self, report: WeaknessReport) -> None:
        print(f"student {report.round}: macro F1 {report.scores.macro_f1:.2f} on validation after {report.num_train_rows} rows")


def teach(teacher: engine.TeacherConfig, folder: Path) -> engine.Summary:
    """Two rounds in which the student's weaknesses steer what the teacher writes."""
    config = engine.make_config(make_task(), teacher, folder / "task", strategy=HybridConfig(rounds=2, rows_per_round=48))
    summary = engine.distil(config, out=folder / "run", progress=Told())
    print(f"macro F1 on test: {summary.student.before.test.macro_f1:.2f} before, {summary.student.after.test.macro_f1:.2f} after")
    return summary


# %% What the run has left, as a table
def count_rows(folder: Path) -> list[dict[str, object]]:
    """Rows by round and label. Tables are Arrow, so `.to_pandas()` does, too."""
    table = engine.run_query(
        engine.open_run(folder / "run"), "select round, label, count(*) as rows from samples group by all order by all"
    )
    return table.to_pylist()


# %% All of it
if __name__ == "__main__":
    given = sys.argv[1:3] if sys.argv[1:] and sys.argv[1].startswith("http") else None  # in a notebook others stand there
    endpoint, model = given or (ENDPOINT, MODEL)
    teacher = engine.TeacherConfig(model=model, endpoint=endpoint)
    for row in write_rows(teacher, FOLDER)[:5]:
        print(f"{row.label}: {row.text}")
    teach(teacher, FOLDER)
    print(count_rows(FOLDER))
    texts = ["is my parcel on its way?", "I changed my mind, no order please"]
    for text, prediction in zip(texts, student.Predictor.load(FOLDER / "run/student/final").predict(texts), strict=True):
        print(f"{prediction.label} ({prediction.confidence:.2f}): {text}")
