"""What a student learns from public data, beside a plain Hugging Face Trainer with the same settings. `make bench-real-data`

    python -m benchmarks.real_data --data FOLDER --out benchmarks/results/real_data.json

Each data set from one row a class, from eight, and from all of them: encoder, rows, epochs, batch size, learning rate, warm-up, decay and
precision are the same for both sides, both keep the epoch with the lowest validation loss, and both are scored on the same test rows (a
thousand after few rows, else all): macro F1, or F1 over all spans where entities are marked. What is not the same is what the student is:
where it starts (a layer that is the mean over the tokens, an output layer at zero with a learning rate of its own; docs/design.md), and
that entities are tagged on every token and decoded by Viterbi. The Trainer's side is the usual recipe: `AutoModelFor…`, for entities the
first token of each word.

Of few rows the validation set is as small as the training set. Few rows are drawn with several seeds, all rows are trained once. What is
done stays in a file of lines (`--cells`), the cheapest first, so that a stopped benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import seqeval.metrics
import torch
from rich.console import Console
from sklearn.metrics import f1_score
from torch.utils.data import Dataset

from benchmarks.data_sets import find_data, load, missing
from benchmarks.machine import describe_machine
from engine.config import StudentConfig
from engine.records import Example, TaskSpec
from engine.views.display import plain_table
from student.encoder import encoder_source
from student.hardware import Hardware, choose_hardware
from student.inference import predict
from student.kinds import kind_of
from student.model import new_student
from student.optimizer import WEIGHT_DECAY
from student.trainer import train

ROOT = Path(__file__).parents[1]
MAX_LOSS = 0.02
"""Of F1, that the student may lie below the Trainer."""
IGNORED = -100
"""A token that has no tag of its own."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What both sides are told."""

    epochs: int
    batch_size: int
    learning_rate: float = 1e-4
    test_rows: int | None = None
    """Drawn of the test set; None: all."""


FEW: Mapping[int, Recipe] = {1: Recipe(20, 8, test_rows=1000), 8: Recipe(8, 16, test_rows=1000)}
"""By rows a class."""
DATA_SETS: Mapping[str, Recipe] = {"trec6": Recipe(3, 32), "conll03": Recipe(1, 32), "clinc150": Recipe(3, 32), "ag_news": Recipe(1, 32)}
"""And how all rows of each are trained."""
HEAD_LEARNING_RATE = 1e-2
"""Of the student; the Trainer knows one learning rate."""
SIDES = ("ours", "hf_trainer")


@dataclass(frozen=True, slots=True)
class Cell:
    """One training."""

    data_set: str
    per_class: int | None
    """None: all rows."""
    seed: int
    side: str
    recipe: Recipe
    encoder: str
    precision: str

    @property
    def key(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def name(self) -> str:
        return f"{self.data_set}, {'all rows' if self.per_class is None else f'{self.per_class} a class'}, seed {self.seed}, {self.side}"


def plan(data_sets: Sequence[str], shots: Sequence[str], seeds: int, epochs: int | None, encoder: str, precision: str) -> list[Cell]:
    """Of all rows the first seed only."""
    cells: list[Cell] = []
    for shot in shots:
        per_class = None if shot == "full" else int(shot)
        for name in data_sets:
            recipe = DATA_SETS.get(name, Recipe(3, 32)) if per_class is None else FEW.get(per_class, FEW[8])
            if epochs is not None:
                recipe = replace(recipe, epochs=epochs)
            seeds_here = range(1 if per_class is None else seeds)
            cells += [Cell(name, per_class, seed, side, recipe, encoder, precision) for seed in seeds_here for side in SIDES]
    return cells


def run_cell(cell: Cell, task: TaskSpec, hardware: Hardware) -> dict[str, Any]:
    """Its score on test, and how long it took."""
    began = time.perf_counter()
    f1 = (train_ours if cell.side == "ours" else train_hugging_face)(cell, task, hardware)
    return {"f1": f1, "train_rows": len(task.seed), "seconds": time.perf_counter() - began}


def settings(cell: Cell) -> StudentConfig:
    recipe = cell.recipe
    return StudentConfig(
        encoder=cell.encoder,
        max_length=128,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        patience=recipe.epochs,
        learning_rate=recipe.learning_rate,
        head_learning_rate=HEAD_LEARNING_RATE,
    )


def train_ours(cell: Cell, task: TaskSpec, hardware: Hardware) -> float:
    config, kind = settings(cell), kind_of(task.kind, task.label_names)
    student = new_student(config, task.label_names, cell.seed, task.kind)
    taught, validation, test = (kind.encode(student.tokenizer, rows) for rows in (task.seed, task.validation, task.test))
    train(student, taught, validation, config, hardware, cell.seed)
    scores = kind.score(predict(student, test.tokens, hardware, 64), task.test, test).scores
    return scores.macro_f1 if scores.micro_f1 is None else scores.micro_f1


Encoded = list[dict[str, list[int] | int]]


class Listed(Dataset[Any]):
    """Rows as the Trainer wants them."""

    def __init__(self, rows: Encoded) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return self._rows[index]


def train_hugging_face(cell: Cell, task: TaskSpec, hardware: Hardware) -> float:
    """As its documentation shows."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    marks_spans = task.kind == "ner"
    source, recipe = encoder_source(cell.encoder), cell.recipe
    tokenizer = AutoTokenizer.from_pretrained(source)
    names = [f"{prefix}-{name}" for name in task.label_names for prefix in "BI"] if marks_spans else list(task.label_names)
    names = ["O", *names] if marks_spans else names
    torch.manual_seed(cell.seed)
    model = (AutoModelForTokenClassification if marks_spans else AutoModelForSequenceClassification).from_pretrained(
        source, num_labels=len(names), dtype=torch.float32
    )
    encode: Callable[[Any, Sequence[Example], Sequence[str]], Encoded] = _encode_words if marks_spans else _encode_texts
    splits = {"train": task.seed, "validation": task.validation, "test": task.test}
    sets = {split: encode(tokenizer, rows, names) for split, rows in splits.items()}
    collator = (DataCollatorForTokenClassification if marks_spans else DataCollatorWithPadding)(tokenizer)
    with tempfile.TemporaryDirectory(prefix="reflux-trainer-") as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=recipe.epochs,
            per_device_train_batch_size=recipe.batch_size,
            per_device_eval_batch_size=64,
            learning_rate=recipe.learning_rate,
            weight_decay=WEIGHT_DECAY,
            warmup_steps=0.1,  # below 1 it is a share
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=cell.seed,
            bf16=hardware.precision == "bfloat16",
            use_cpu=hardware.device.type == "cpu",
            train_sampling_strategy="group_by_length",  # for its speed only
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=Listed(sets["train"]),
            eval_dataset=Listed(sets["validation"]),
            data_collator=collator,
        )
        keeper = _keep_best(model)
        trainer.add_callback(keeper)
        with mock.patch("builtins.print"):  # its evaluation dictionaries, one an epoch
            trainer.train()
            model.load_state_dict(keeper.weights)
            answer = trainer.predict(Listed(sets["test"]))
    # It predicts rows of like length together, too: only its own labels are in the order of its predictions.
    guesses, truth = np.asarray(answer.predictions).argmax(axis=-1), np.asarray(answer.label_ids)
    return _span_f1(truth, guesses, names) if marks_spans else macro_f1(truth, guesses, range(len(names)))


def _keep_best(model: Any) -> Any:
    """What `load_best_model_at_end` does, without a checkpoint on disk for each epoch."""
    from transformers import TrainerCallback

    class KeepBest(TrainerCallback):
        loss = float("inf")
        weights: dict[str, torch.Tensor] = model.state_dict()

        def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if (loss := given["metrics"]["eval_loss"]) < self.loss:
                self.loss = loss
                self.weights = {name: weight.detach().clone() for name, weight in model.state_dict().items()}

    return KeepBest()


def _encode_texts(tokenizer: Any, rows: Sequence[Example], names: Sequence[str]) -> Encoded:
    tokens = tokenizer([row.text for row in rows], truncation=True, max_length=128)["input_ids"]
    return [_row(own, names.index(row.label)) for own, row in zip(tokens, rows, strict=True)]


def _encode_words(tokenizer: Any, rows: Sequence[Example], names: Sequence[str]) -> Encoded:
    """The first token of a word has its tag."""
    words = [row.text.split(" ") for row in rows]
    encoded = tokenizer(words, truncation=True, max_length=128, is_split_into_words=True)
    found: Encoded = []
    for number, row in enumerate(rows):
        tags = word_tags(row)
        places: list[int | None] = encoded.word_ids(number)
        firsts = [place is not None and (not token or places[token - 1] != place) for token, place in enumerate(places)]
        labels = [names.index(tags[place]) if first and place is not None else IGNORED for place, first in zip(places, firsts, strict=True)]
        found.append(_row(encoded["input_ids"][number], labels))
    return found


def _row(tokens: list[int], labels: list[int] | int) -> dict[str, list[int] | int]:
    return {"input_ids": tokens, "attention_mask": [1] * len(tokens), "labels": labels}


def word_tags(row: Example) -> list[str]:
    """IOB2, one for each word of a text that was joined by single spaces."""
    tags: list[str] = []
    start = 0
    for word in row.text.split(" "):
        inside = next((span for span in row.spans if span.start <= start < span.end), None)
        tags.append("O" if inside is None else f"{'B' if inside.start == start else 'I'}-{inside.type}")
        start += len(word) + 1
    return tags


def macro_f1(truth: Any, guesses: Any, labels: Sequence[int]) -> float:
    score: Any = f1_score
    return float(score(truth, guesses, labels=labels, average="macro", zero_division=0))


def _span_f1(truth: Any, guesses: Any, names: Sequence[str]) -> float:
    is_asked = [np.asarray(row) != IGNORED for row in truth]
    wanted = [[names[tag] for tag in np.asarray(row)[asked]] for row, asked in zip(truth, is_asked, strict=True)]
    said = [[names[tag] for tag in row[: len(asked)][asked]] for row, asked in zip(guesses, is_asked, strict=True)]
    score: Any = seqeval.metrics.f1_score
    return float(score(wanted, said, zero_division=0))


def summarise(done: Mapping[Cell, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for each data set and number of rows of which both sides are there."""
    lines: list[dict[str, Any]] = []
    for name, per_class in dict.fromkeys((cell.data_set, cell.per_class) for cell in done):
        here = {(cell.side, cell.seed): result for cell, result in done.items() if (cell.data_set, cell.per_class) == (name, per_class)}
        seeds = [seed for side, seed in here if side == "ours" and ("hf_trainer", seed) in here]
        if not seeds:
            continue
        recipe = next(cell.recipe for cell in done if (cell.data_set, cell.per_class) == (name, per_class))
        scores = {side: [here[side, seed]["f1"] for seed in seeds] for side in SIDES}
        difference = statistics.mean(scores["ours"]) - statistics.mean(scores["hf_trainer"])
        lines.append(
            {
                "data_set": name,
                "per_class": per_class,
                "train_rows": here["ours", seeds[0]]["train_rows"],
                **asdict(recipe),
                "f1": {side: statistics.mean(found) for side, found in scores.items()},
                "sd": {side: statistics.stdev(found) if len(found) > 1 else None for side, found in scores.items()},
                "seeds": len(seeds),
                "difference": difference,
                "within_2_points": difference >= -MAX_LOSS,
            }
        )
    return lines


def read_cells(path: Path) -> dict[str, dict[str, Any]]:
    """By key; a line that a kill has cut off counts for nothing."""
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        found[content["key"]] = content["result"]
    return found


def cost(cell: Cell, task: TaskSpec) -> int:
    """Rows that go through the network, a step counting as three looks."""
    return cell.recipe.epochs * (3 * len(task.seed) + len(task.validation)) + len(task.test)


def write(out: Path, about: Mapping[str, Any], cells: Sequence[Cell], known: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The file of figures, of what is done so far; its table."""
    names = sorted({cell.data_set for cell in cells})
    order = sorted(cells, key=lambda cell: (names.index(cell.data_set), cell.per_class or 10**9, cell.seed))
    done = {cell: known[cell.key] for cell in order if cell.key in known}
    lines = summarise(done)
    content = {
        **about,
        "all_within_2_points": all(line["within_2_points"] for line in lines),
        "table": lines,
        "to_do": [cell.name for cell in order if cell.key not in known],
        "cells": [{**asdict(cell), **result} for cell, result in done.items()],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=2) + "\n")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets; else REFLUX_BENCH_DATA")
    parser.add_argument("--data-sets", nargs="*", default=list(DATA_SETS))
    parser.add_argument("--shots", nargs="*", default=["1", "8", "full"], help="rows a class, or `full`")
    parser.add_argument("--seeds", type=int, default=3, help="draws of few rows")
    parser.add_argument("--epochs", type=int, help="instead of each recipe's")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--only-done", action="store_true", help="train nothing more, and write down what there is")
    parser.add_argument("--cells", type=Path, default=ROOT / "runs" / "real_data.jsonl", help="what is done already")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "real_data.json")
    options = parser.parse_args(arguments)
    console = Console(width=120)
    hardware = choose_hardware()
    data, skipped = find_data(options.data), dict[str, str]()
    tasks: dict[tuple[str, int | None, int], TaskSpec] = {}
    cells: list[Cell] = []
    for cell in plan(options.data_sets, options.shots, options.seeds, options.epochs, options.encoder, hardware.precision):
        if words := missing(data, cell.data_set):
            skipped[cell.data_set] = words
            continue
        assert data is not None
        place = (cell.data_set, cell.per_class, cell.seed)
        if place not in tasks:
            tasks[place] = load(data / cell.data_set, cell.per_class, cell.seed, cell.recipe.test_rows)
        cells.append(cell)
    for words in skipped.values():
        console.print(f"skipped: {words}", markup=False)
    cells.sort(key=lambda cell: cost(cell, tasks[cell.data_set, cell.per_class, cell.seed]))
    options.cells.parent.mkdir(parents=True, exist_ok=True)
    known = read_cells(options.cells)
    about = {
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "precision": hardware.precision,
        "encoder": options.encoder,
        "head_learning_rate": HEAD_LEARNING_RATE,
        "skipped": skipped,
    }
    for number, cell in enumerate(cells, start=1):
        if cell.key not in known and not options.only_done:
            known[cell.key] = run_cell(cell, tasks[cell.data_set, cell.per_class, cell.seed], hardware)
            with options.cells.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": cell.key, "result": known[cell.key]}) + "\n")
            write(options.out, about, cells, known)  # after each, for this takes an hour
        words = f"{known[cell.key]['f1']:.3f} in {known[cell.key]['seconds']:.0f} s" if cell.key in known else "to do"
        console.print(f"{number}/{len(cells)} {cell.name}: {words}", markup=False)
    lines = write(options.out, about, cells, known)
    columns = ("data set", "rows a class", "rows", "epochs", "seeds", "F1 ours", "HF Trainer", "difference")
    shown = [
        (line["data_set"], "all" if line["per_class"] is None else str(line["per_class"]), line["train_rows"], line["epochs"],
         line["seeds"], line["f1"]["ours"], line["f1"]["hf_trainer"], line["difference"])
        for line in lines
    ]  # fmt: skip
    if shown:
        console.print(plain_table(columns, shown, title="F1 on test"))


if __name__ == "__main__":
    main()
