"""How fast a student predicts, in torch and in onnxruntime, and what F1 each keeps. `make bench-inference`

    python -m benchmarks.inference --student runs/quickstart --out benchmarks/results/inference.json

The student is the one given (a run, or a folder), else one that is trained for the purpose from the quickstart's seed and as many rows of
its teacher's corpus as `--train-rows` says. Speed is that of the network alone, on rows of real tokens repeated to the length; F1 that of
the quickstart's test set, through the whole way from text to label. The ways take turns, so that a busy minute is everybody's.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console

from benchmarks.machine import describe_machine
from engine.cli.students import student_folder
from engine.config import load_config
from engine.records import Example
from engine.task.task import read_examples
from engine.views.display import plain_table
from student.data import Rows, tokenise
from student.export import Format, export_student
from student.hardware import Hardware, choose_hardware
from student.inference import predict
from student.model import new_student, save_student
from student.onnx_predictor import OnnxPredictor
from student.predictions import TextPredictor
from student.predictor import Predictor, score_rows
from student.trainer import train

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "examples" / "quickstart"
BATCHES, LENGTHS = (1, 64), (32, 128, 512)
MAX_INT8_LOSS = 0.005
"""Of macro F1, that rounding the weights may cost."""

Tokens = list[list[int]]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to compute the student."""

    name: str
    predictor: TextPredictor
    compute: Callable[[Tokens], object]
    """One batch of rows that are tokens already."""


@dataclass(frozen=True, slots=True)
class Speed:
    way: str
    batch: int
    length: int
    ms: float
    """Median of a batch."""
    spread_ms: tuple[float, float]
    """The quickest and the slowest."""
    rows_per_s: float
    repeats: int


def train_student(folder: Path, num_rows: int) -> str:
    """What it was trained on, in words."""
    config = load_config(QUICKSTART / "quickstart.toml")
    names = [label.name for label in config.task.labels]
    seed, corpus, validation = (read_examples(QUICKSTART / "data" / f"{name}.jsonl") for name in ("seed", "teacher", "validation"))
    rows = seed + random.Random(0).sample(corpus, min(num_rows, len(corpus)))
    student = new_student(config.student, names, 0)

    def encode(examples: Sequence[Example]) -> Rows:
        tokens = tokenise(student.tokenizer, [row.text for row in examples])
        return Rows(tokens, [names.index(row.label) for row in examples])

    train(student, encode(rows), encode(validation), config.student, choose_hardware(), 0)
    save_student(student, folder)
    return f"trained here: MiniLM on {len(seed)} seed rows and {len(rows) - len(seed)} rows of the teacher's corpus"


def make_ways(folder: Path) -> list[Way]:
    ways: list[Way] = []
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        for precision in ("float32", "bfloat16"):
            predictor = Predictor.load(folder, Hardware(torch.device(device), cast(Any, precision)))
            ways.append(Way(f"torch {precision} {device}", predictor, _in_torch(predictor)))
    for name, backend in (("onnx float32 cpu", "onnx"), ("onnx int8 cpu", "onnx-int8")):
        onnx = OnnxPredictor.load(folder, backend)
        ways.append(Way(name, onnx, _in_onnx(onnx)))
    return ways


def _in_torch(predictor: Predictor) -> Callable[[Tokens], object]:
    return lambda tokens: predict(predictor.student, tokens, predictor.hardware, len(tokens))


def _in_onnx(predictor: OnnxPredictor) -> Callable[[Tokens], object]:
    return lambda tokens: predictor.log_probabilities(tokens, len(tokens))


def make_tokens(predictor: Predictor, texts: Sequence[str], batch: int, length: int) -> Tokens:
    """Real rows one after another, cut to the length: [CLS] words … [SEP]."""
    rows = [list(row) for row in tokenise(predictor.student.tokenizer, texts)]
    words = [token for row in rows for token in row[1:-1]]
    words *= -(-batch * length // len(words))
    inner = length - 2
    return [[rows[0][0], *words[row * inner : (row + 1) * inner], rows[0][-1]] for row in range(batch)]


def measure(ways: Sequence[Way], texts: Sequence[str], batch: int, length: int, budget_s: float) -> list[Speed]:
    """Three times at least, and as often as `budget_s` a way allows."""
    tokens = make_tokens(cast(Predictor, ways[0].predictor), texts, batch, length)
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    for way in ways:
        way.compute(tokens)
    while not all(len(taken) >= 3 and sum(taken) >= budget_s for taken in times.values()):
        for way in ways:
            if len(times[way.name]) < 3 or sum(times[way.name]) < budget_s:
                began = time.perf_counter()
                way.compute(tokens)
                times[way.name].append(time.perf_counter() - began)
    return [
        Speed(
            name,
            batch,
            length,
            round(1000 * statistics.median(taken), 3),
            (round(1000 * min(taken), 3), round(1000 * max(taken), 3)),
            round(batch / statistics.median(taken), 1),
            len(taken),
        )
        for name, taken in times.items()
    ]


def run(student: Path, test: Sequence[Example], batches: Sequence[int], lengths: Sequence[int], budget_s: float) -> dict[str, Any]:
    """The figures of a student, as plain JSON values. Its graphs are written and compared on the test texts first."""
    texts = [row.text for row in test]
    with tempfile.TemporaryDirectory() as folder:
        formats: list[Format] = ["onnx", "onnx-int8"]
        exported = export_student(student, Path(folder) / "student", formats, texts)
        ways = make_ways(Path(folder) / "student")
        speeds = [speed for batch in batches for length in lengths for speed in measure(ways, texts, batch, length, budget_s)]
        quality: list[dict[str, Any]] = []
        for way in ways:
            began = time.perf_counter()
            scores = score_rows(way.predictor, test).scores
            rows_per_s = round(len(test) / (time.perf_counter() - began), 1)
            quality.append({"way": way.name, "macro_f1": scores.macro_f1, "accuracy": scores.accuracy, "rows_per_s": rows_per_s})
    exact = quality[0]["macro_f1"]
    loss = exact - next(row["macro_f1"] for row in quality if row["way"] == "onnx int8 cpu")
    return {
        "test_rows": len(test),
        "quality": [row | {"loss": exact - row["macro_f1"]} for row in quality],
        "int8_f1_loss": loss,
        "int8_is_good": loss <= MAX_INT8_LOSS,
        "agreement": [asdict(graph) for graph in exported.graphs],
        "speed": [asdict(speed) for speed in speeds],
    }


def show(result: dict[str, Any], console: Console) -> None:
    lines = [(row["way"], row["macro_f1"], row["loss"], row["rows_per_s"]) for row in result["quality"]]
    console.print(plain_table(("", "macro F1", "loss", "rows/s, texts to labels"), lines, title="On the quickstart's test set"))
    lines = [(row["way"], row["batch"], row["length"], row["ms"], row["rows_per_s"]) for row in result["speed"]]
    console.print(plain_table(("", "batch", "tokens", "ms a batch", "rows/s"), lines, title="The network alone"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, help="folder of a run or of a student with the quickstart's labels; else one is trained")
    parser.add_argument("--train-rows", type=int, default=2000)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--budget-s", type=float, default=3.0, help="for each way, batch and length")
    parser.add_argument("--test-rows", type=int, help="fewer, for a quick look")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "inference.json")
    options = parser.parse_args()
    test = read_examples(QUICKSTART / "data" / "test.jsonl")[: options.test_rows]
    with tempfile.TemporaryDirectory() as folder:
        if options.student is None:
            student = Path(folder)
            description = train_student(student, options.train_rows)
        else:
            student = student_folder(options.student)
            description = f"given: {options.student.name}"
        result = run(student, test, options.batches, options.lengths, options.budget_s)
    result = {"machine": describe_machine(), "threads": torch.get_num_threads(), "student": description} | result
    show(result, Console(width=120))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
