"""How fast a student learns, beside Hugging Face's Trainer and SetFit's, and what an update costs as rows pile up. `make bench-student`

    python -m benchmarks.student --rows 3000 --repeats 3 --out benchmarks/results/student.json

Ours and Hugging Face's Trainer get the same rows, starting weights, epochs, batch size, optimizer and precision, one after the other, with
another draw of rows and other weights each time; the Trainer once as it comes, and once told to put rows of like length together. The clock
runs from texts to the trained network, with validation after each epoch. F1 is macro, on test. SetFit gets a few rows a class, as it is
made for them, and ours sends each of them through the encoder as often, in batches of 8, without looking at more than a few validation
rows; it runs in an environment of its own (`python -m benchmarks.peers.environments setfit`), and is left out where that is not there. The
data sets are those of `benchmarks.data_sets`; without them only updates are measured.

An update is the worker's own: 200 rows that have come in are tokenised, predicted, learned beside as many replayed ones, saved and reported
on, by a small random encoder, so that whatever grows with the rows seen would show.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq
import torch
from rich.console import Console

from benchmarks.data_sets import find_data, missing
from benchmarks.machine import describe_machine
from benchmarks.paired import paired
from benchmarks.peers.environments import PeerError, last_lines, python_of
from engine.config import RunConfig, StudentConfig
from engine.records import Example, Origin, RoundRecord, RowCounts, Sample
from engine.rundir import RunDir
from engine.runs.manifest import begin
from engine.store.schemas import pack_rounds, pack_samples
from engine.store.segments import write_segment
from engine.views.display import plain_table
from student.data import Rows, tokenise
from student.evaluation import score
from student.hardware import Hardware, choose_hardware
from student.inference import predict
from student.model import Student, new_student
from student.optimizer import learning_rate_factor, make_optimizer
from student.trainer import Training, train

ROOT = Path(__file__).parents[1]
DATA_SETS = ("ag_news", "clinc150")
SIDES = ("ours", "hf_trainer", "hf_trainer_grouped")
WORDS = 20
"""In each text of the update runs."""
UPDATE_ROWS = 200
SETFIT_PASSES = 20
"""That its client makes of each row: 5 pairs of either kind, two texts a pair."""
ROUND_ROWS = 1000
"""Of the rounds before the measured updates."""


@dataclass(frozen=True, slots=True)
class Split:
    """A draw of a data set."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One training."""

    seed: int
    train_s: float
    cpu_s: float
    """Of this process, over all its threads; of use where others share the machine."""
    rows_per_s: float
    """Training rows, once each epoch."""
    macro_f1: float


def draw_split(folder: Path, rows: int, test_rows: int, seed: int) -> Split:
    generator = random.Random(seed)

    def draw(name: str, count: int) -> list[Example]:
        table = pq.read_table(folder / f"{name}.parquet", columns=["text", "label"]).to_pylist()
        found = [Example(row["text"], row["label"]) for row in table]
        return generator.sample(found, min(count, len(found)))

    train_rows, validation, test = draw("train", rows), draw("validation", max(rows // 10, 1)), draw("test", test_rows)
    return Split(train_rows, validation, test, tuple(sorted({row.label for row in (*train_rows, *validation, *test)})))


def encode(student: Student, rows: Sequence[Example]) -> Rows:
    position = {label: index for index, label in enumerate(student.labels)}
    return Rows(tokenise(student.tokenizer, [row.text for row in rows]), [position[row.label] for row in rows])


def train_ours(split: Split, config: StudentConfig, hardware: Hardware, seed: int) -> Run:
    student = new_student(config, split.labels, seed)
    cpu, start = time.process_time(), time.perf_counter()
    train(student, encode(student, split.train), encode(student, split.validation), config, hardware, seed)
    return finish_run(student, split, config, hardware, seed, start, cpu)


def train_hugging_face(split: Split, config: StudentConfig, hardware: Hardware, seed: int, *, grouped: bool = False) -> Run:
    """Its defaults but for what both are told; padding to the batch is the usual collator's. `grouped`: batches of like length too, which
    it can do and does not by itself.
    """
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    student = new_student(config, split.labels, seed)
    cpu, start = time.process_time(), time.perf_counter()
    sets = [
        [
            {"input_ids": tokens, "attention_mask": [1] * len(tokens), "labels": label}
            for tokens, label in zip(rows.tokens, rows.labels, strict=True)
        ]
        for rows in (encode(student, split.train), encode(student, split.validation))
    ]
    steps = config.epochs * -(-len(split.train) // config.batch_size)
    optimizer = make_optimizer(student, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps, config.warmup))
    with tempfile.TemporaryDirectory(prefix="reflux-trainer-") as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch_size,
            per_device_eval_batch_size=config.batch_size,
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=seed,
            bf16=hardware.precision == "bfloat16",
            use_cpu=hardware.device.type == "cpu",
            train_sampling_strategy="group_by_length" if grouped else "random",
        )
        trainer = Trainer(
            model=student.model,
            args=arguments,
            train_dataset=sets[0],  # pyright: ignore[reportArgumentType] -- a list is all it asks of one
            eval_dataset=sets[1],  # pyright: ignore[reportArgumentType]
            data_collator=DataCollatorWithPadding(student.tokenizer),
            optimizers=(optimizer, schedule),
        )
        with mock.patch("builtins.print"):  # its evaluation dictionaries, one an epoch
            trainer.train()
    return finish_run(student, split, config, hardware, seed, start, cpu)


def finish_run(student: Student, split: Split, config: StudentConfig, hardware: Hardware, seed: int, start: float, cpu: float) -> Run:
    train_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    test = encode(student, split.test)
    predicted = predict(student, test.tokens, hardware, config.batch_size)
    macro_f1 = score(predicted, test.labels, split.labels).scores.macro_f1
    return Run(seed, train_s, cpu_s, config.epochs * len(split.train) / train_s, macro_f1)


def train_setfit(split: Split, config: StudentConfig, hardware: Hardware, seed: int) -> Run:
    """PeerError if its environment is not there, or it fails."""
    from student.encoder import encoder_source

    del hardware  # it chooses its own
    python = python_of("setfit")
    with tempfile.TemporaryDirectory(prefix="bench-setfit-") as name:
        folder = Path(name)
        for part in ("train", "test"):
            lines = [json.dumps({"text": row.text, "label": split.labels.index(row.label)}) for row in getattr(split, part)]
            (folder / f"{part}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        options = {
            "encoder": encoder_source(config.encoder),
            "folder": folder,
            "num-labels": len(split.labels),
            "batch-size": config.batch_size,
            "max-length": config.max_length,
            "seed": seed,
        }
        command = [str(python), str(ROOT / "benchmarks" / "peers" / "setfit_client.py")]
        command += [part for option, value in options.items() for part in (f"--{option}", str(value))]
        log = folder / "output.log"
        with log.open("wb") as output:
            environment = os.environ | {"HF_HUB_OFFLINE": "1", "HOME": name}
            status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False).returncode
        if status:
            raise PeerError(f"setfit ended with status {status}:\n{last_lines(log)}")
        result = json.loads((folder / "result.json").read_bytes())
    return Run(seed, result["train_s"], result["cpu_s"], len(split.train) / result["train_s"], result["macro_f1"])


def few_rows(split: Split, per_class: int) -> Split:
    by_label: defaultdict[str, list[Example]] = defaultdict(list)
    for row in split.train:
        by_label[row.label].append(row)
    return Split([row for rows in by_label.values() for row in rows[:per_class]], split.validation[:32], split.test, split.labels)


def compare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Both trainers on one data set, in turns."""
    config = StudentConfig(
        encoder=options.encoder,
        max_length=options.max_length,
        batch_size=options.batch_size,
        epochs=options.epochs,
        patience=options.epochs,
        learning_rate=1e-4,
        head_learning_rate=1e-2,
    )
    hardware = choose_hardware("auto", config.precision)
    runs: dict[str, list[Run]] = {side: [] for side in SIDES}
    setfit: dict[str, list[Run]] = {"ours": [], "setfit": []}
    skipped = "" if options.setfit and folder.name in options.setfit_data_sets else "left out by --no-setfit or --setfit-data-sets"
    for seed in range(options.repeats):
        split = draw_split(folder, options.rows, options.test_rows, seed)
        runs["ours"].append(train_ours(split, config, hardware, seed))
        runs["hf_trainer"].append(train_hugging_face(split, config, hardware, seed))
        runs["hf_trainer_grouped"].append(train_hugging_face(split, config, hardware, seed, grouped=True))
        print(f"{folder.name}, seed {seed}: " + ", ".join(f"{name} {found[-1].rows_per_s:.1f} rows/s" for name, found in runs.items()))
        if not skipped:
            few = few_rows(split, options.setfit_rows)
            try:
                setfit["setfit"].append(train_setfit(few, config, hardware, seed))
                longer = config.model_copy(update={"epochs": SETFIT_PASSES, "patience": SETFIT_PASSES, "batch_size": 8})
                setfit["ours"].append(train_ours(few, longer, hardware, seed))
            except PeerError as error:
                skipped = str(error)
    result: dict[str, Any] = {
        "train_rows": options.rows,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "precision": hardware.precision,
        "ratio_to_hf_trainer": ratio(runs["ours"], runs["hf_trainer"], "train_s"),
        "ratio_to_hf_trainer_cpu": ratio(runs["ours"], runs["hf_trainer"], "cpu_s"),
        "ratio_to_hf_trainer_grouped": ratio(runs["ours"], runs["hf_trainer_grouped"], "train_s"),
        "ratio_to_hf_trainer_grouped_cpu": ratio(runs["ours"], runs["hf_trainer_grouped"], "cpu_s"),
        "macro_f1": {name: statistics.mean(run.macro_f1 for run in found) for name, found in runs.items()},
        "macro_f1_differences": f1_differences(runs),
        "rows_per_s": {name: statistics.median(run.rows_per_s for run in found) for name, found in runs.items()},
        "runs": {name: [asdict(run) for run in found] for name, found in runs.items()},
    }
    result["setfit"] = {"skipped": skipped} if skipped else {
        "rows_per_class": options.setfit_rows,
        "ratio_to_setfit": ratio(setfit["ours"], setfit["setfit"], "train_s"),
        "macro_f1": {name: statistics.mean(run.macro_f1 for run in found) for name, found in setfit.items()},
        "runs": {name: [asdict(run) for run in found] for name, found in setfit.items()},
    }  # fmt: skip
    return result


def ratio(ours: Sequence[Run], theirs: Sequence[Run], name: str) -> float:
    """How many times as fast ours is: the median over the pairs, which ran next to each other."""
    return statistics.median(getattr(their, name) / getattr(our, name) for our, their in zip(ours, theirs, strict=True))


def f1_differences(runs: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, float] | None]:
    """Ours less each other side, with the interval of 95 % over the pairs."""
    return {
        side: paired([our.macro_f1 - their.macro_f1 for our, their in zip(runs["ours"], found, strict=True)])
        for side, found in runs.items()
        if side != "ours"
    }


def make_small_encoder(folder: Path, tokenizer_of: str) -> Path:
    """A random BERT of two layers with the tokenizer of an encoder that is there."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from student.encoder import encoder_source

    tokenizer = AutoTokenizer.from_pretrained(encoder_source(tokenizer_of))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256,
        max_position_embeddings=128,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_example(label: str, generator: random.Random) -> Example:
    words = [label if generator.random() < 0.2 else f"word{generator.randrange(5000)}" for _ in range(WORDS)]
    return Example(" ".join(words), label)


def complete_round(run: RunDir, round: int, rows: Sequence[Example]) -> None:
    """What the engine writes of a round."""
    origin = Origin(round, round - 1, f"r{round:04d}-a0000", "none", "pgkd", "pgkd/generate@0", "0" * 32, "nobody", "0" * 32)
    samples = [Sample(f"{round:016x}{number:016x}-0", row.text, row.label, origin) for number, row in enumerate(rows)]
    write_segment(run.table("samples"), pack_samples(samples))
    counts = RowCounts(requested=len(rows), accepted=len(rows))
    write_segment(run.table("rounds"), pack_rounds([RoundRecord(round, round - 1, 1, 1, counts, 0, 0, 0.0)]))


def measure_updates(seen: int, num_updates: int, epochs: int, encoder: Path, folder: Path) -> dict[str, Any]:
    """Seconds that the worker takes for each update behind so many rows."""
    from student import worker as student_worker

    generator = random.Random(seen)
    labels = [f"topic{number}" for number in range(8)]
    folder.mkdir()
    for name, per_class in (("seed", 8), ("validation", 25), ("test", 1)):
        rows = [make_example(label, generator) for label in labels for _ in range(per_class)]
        lines = "".join(json.dumps({"text": row.text, "label": row.label}) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    config = RunConfig.model_validate(
        {
            "name": "updates",
            "task": {
                "domain": "topics",
                "labels": [{"name": label} for label in labels],
                "data": {name: folder / f"{name}.jsonl" for name in ("seed", "validation", "test")},
            },
            "teacher": {"model": "nobody"},
            "student": {
                "encoder": str(encoder), "batch_size": 32, "epochs": epochs, "learning_rate": 1e-4, "weights": "continue",
                "optimizer": "continue", "update": "incremental",
            },
        }
    )  # fmt: skip
    run = RunDir(folder / "run")
    run.create()
    begin(run, config)
    num_rounds = max(seen // ROUND_ROWS, 1)
    for round in range(1, num_rounds + 1):
        complete_round(run, round, [make_example(generator.choice(labels), generator) for _ in range(seen // num_rounds)])
    # What came before is taken in as it always is, but for the training itself, which would take hours.
    with mock.patch.object(student_worker, "train", return_value=Training(1, 1, 0.0)):
        worker = student_worker.restore(run)
        for round in range(1, num_rounds + 1):
            worker.learn(round)
    seconds: list[float] = []
    cpu_seconds: list[float] = []
    for round in range(num_rounds + 1, num_rounds + 2 + num_updates):
        complete_round(run, round, [make_example(generator.choice(labels), generator) for _ in range(UPDATE_ROWS)])
        cpu, start = time.process_time(), time.perf_counter()
        worker.learn(round)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu)
    # The first one makes the optimizer's moments, which the others find.
    return {"seen": seen, "update_s": statistics.median(seconds[1:]), "update_cpu_s": statistics.median(cpu_seconds[1:]), "all_s": seconds}


def measure_all_updates(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="reflux-updates-") as name:
        encoder = make_small_encoder(Path(name) / "encoder", options.encoder)
        points = [measure_updates(seen, options.updates, options.epochs, encoder, Path(name) / str(seen)) for seen in sorted(options.seen)]
    first, last = points[0], points[-1]
    return {
        "rows": UPDATE_ROWS,
        "points": points,
        "ratio_last_to_first": last["update_s"] / first["update_s"],
        "ratio_last_to_first_cpu": last["update_cpu_s"] / first["update_cpu_s"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets; else REFLUX_BENCH_DATA")
    parser.add_argument("--data-sets", nargs="*", default=list(DATA_SETS))
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--rows", type=int, default=3000, help="training rows drawn of each data set")
    parser.add_argument("--test-rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--setfit", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--setfit-data-sets", nargs="*", default=list(DATA_SETS), help="those on which SetFit is compared")
    parser.add_argument("--setfit-rows", type=int, default=8, help="rows a class")
    parser.add_argument("--seen", type=int, nargs="*", default=[1_000, 10_000, 50_000], help="rows before the updates")
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "student.json")
    options = parser.parse_args(arguments)
    console = Console()
    content: dict[str, Any] = {"machine": describe_machine(), "threads": torch.get_num_threads(), "data_sets": {}}
    data = find_data(options.data)
    for name in options.data_sets:
        if data is None or missing(data, name):
            content["data_sets"][name] = {"skipped": missing(data, name)}
            console.print(f"{name}: skipped: {content['data_sets'][name]['skipped']}", markup=False)
            continue
        content["data_sets"][name] = compare(data / name, options)
    found = {name: result for name, result in content["data_sets"].items() if "skipped" not in result}
    lines = [
        (name, *(result["rows_per_s"][side] for side in SIDES), result["ratio_to_hf_trainer"], result["ratio_to_hf_trainer_grouped"],
         *(result["macro_f1"][side] for side in SIDES))
        for name, result in found.items()
    ]  # fmt: skip
    if lines:
        columns = ("data set", "rows/s", "Trainer", "grouped", "ratio", "to grouped", "macro F1", "Trainer", "grouped")
        console.print(plain_table(columns, lines, title="Training"))
        content["ratio_to_hf_trainer"] = min(result["ratio_to_hf_trainer"] for result in found.values())
    for name, result in found.items():
        setfit = result["setfit"]
        words = setfit.get("skipped") or f"{setfit['ratio_to_setfit']:.1f} times as fast, macro F1 {setfit['macro_f1']}"
        console.print(f"{name}, SetFit on {options.setfit_rows} rows a class: {words}", markup=False)
    if options.seen:
        content["updates"] = measure_all_updates(options)
        points = [(point["seen"], point["update_s"], point["update_cpu_s"]) for point in content["updates"]["points"]]
        columns = ("rows seen", f"s for {UPDATE_ROWS} new rows", "CPU s")
        console.print(plain_table(columns, points, title=f"Updates: last / first {content['updates']['ratio_last_to_first']:.2f}"))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
