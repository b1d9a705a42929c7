"""The judge of what a teacher writes about the quickstart's task: a student of all real rows but the test rows.

Its own score on those says how far to trust it: it can hardly agree more often with rows that are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config import RunConfig, StudentConfig
from engine.errors import UserError
from engine.records import Example
from engine.reports import Scores
from engine.task.task import read_rows
from student.hardware import choose_hardware
from student.kinds import kind_of
from student.model import new_student, save_student
from student.predictor import Predictor, score_rows
from student.trainer import train

DATA = Path(__file__).parent / "data"
EPOCHS = 3


@dataclass(frozen=True, slots=True)
class Judge:
    predictor: Predictor
    own: Scores
    """On the test rows."""

    def agrees(self, rows: Sequence[Example]) -> Scores:
        """How often it says of a text what the row says: `accuracy` is the share of rows, `micro_f1` that of marked entities."""
        return score_rows(self.predictor, rows).scores


def make_judge(config: RunConfig, folder: Path | None = None) -> Judge:
    """For the task of `config`, which is one of this folder's. One that lies in `folder` is taken from there, else it is left there."""
    predictor = _load(folder) or _train(config, folder)
    return Judge(predictor, score_rows(predictor, _rows(config, "test")).scores)


def _load(folder: Path | None) -> Predictor | None:
    try:
        return Predictor.load(folder) if folder is not None else None
    except UserError:
        return None


def _train(config: RunConfig, folder: Path | None) -> Predictor:
    labels = [label.name for label in config.task.labels]
    kind = kind_of(config.task.kind, labels)
    hardware = choose_hardware()
    student = new_student(config.student, labels, seed=0, kind=config.task.kind)
    learned = [*_rows(config, "teacher"), *_rows(config, "seed")]
    rows, validation = (kind.encode(student.tokenizer, split) for split in (learned, _rows(config, "validation")))
    settings = StudentConfig.model_validate(config.student.model_dump() | {"epochs": EPOCHS, "min_steps": 0})
    train(student, rows, validation, settings, hardware, seed=0)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        save_student(student, folder)
    return Predictor(student, hardware)


def _rows(config: RunConfig, split: str) -> list[Example]:
    return [*read_rows(config.task, DATA / f"{split}.jsonl")]
