"""The public data sets that benchmarks read: Parquet files `NAME/{train,validation,test}.parquet`, in a folder that is given and never
copied.

Texts have `text` and `label`; sentences whose entities are marked have `tokens` and `tags` (IOB2).
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from engine.config import TaskConfig
from engine.records import TaskSpec
from engine.task.task import load_task

SPLITS = ("train", "validation", "test")


def find_data(given: Path | None) -> Path | None:
    """The folder that was given, else the one that REFLUX_BENCH_DATA names, else None."""
    return given or (Path(os.environ["REFLUX_BENCH_DATA"]) if "REFLUX_BENCH_DATA" in os.environ else None)


def missing(data: Path | None, name: str) -> str | None:
    """What is not there of a data set, and what to do; None if all is."""
    absent = next((split for split in SPLITS if data is None or not (data / name / f"{split}.parquet").is_file()), None)
    return absent and f"no {name}/{absent}.parquet; name the folder with --data or REFLUX_BENCH_DATA"


def load(folder: Path, per_class: int | None, seed: int, test_rows: int | None = None) -> TaskSpec:
    """The data set as a task. With `per_class`, so many training and validation rows of each label, or entities of each type. `test_rows`
    are drawn of the test set, the same whatever the seed; None takes it whole.
    """
    task = _task(folder, "train", per_class, seed)
    validation = task.validation if per_class is None else _task(folder, "validation", per_class, seed).seed
    test = task.test if test_rows is None else random.Random(0).sample(task.test, min(test_rows, len(task.test)))
    return replace(task, validation=validation, test=tuple(test))


def _task(folder: Path, rows_of: str, per_class: int | None, seed: int) -> TaskSpec:
    schema = pq.read_schema(folder / "train.parquet")
    tags = "tags" in schema.names
    column = pq.read_table(folder / "train.parquet", columns=["tags" if tags else "label"]).column(0).to_pylist()
    labels = {tag[2:] for row in column for tag in row if tag != "O"} if tags else {*column}
    files = {"seed": rows_of, "validation": "validation", "test": "test"}
    config = TaskConfig.model_validate(
        {
            "kind": "ner" if tags else "classification",
            "domain": folder.name,
            "labels": [{"name": name} for name in sorted(labels)],
            "data": {name: folder / f"{split}.parquet" for name, split in files.items()} | {"seed_rows_per_class": per_class},
        }
    )
    return load_task(config, seed)
