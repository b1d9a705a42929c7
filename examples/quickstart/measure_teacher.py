"""Measure the quickstart's teacher and write its model card: `python examples/quickstart/measure_teacher.py`, the end of `make teacher`.

The teacher runs in the real vLLM and is asked, without constrained output, exactly what the project asks. The judge of its labels is a
student trained on all real rows but the test rows; its own accuracy on those says how far to trust it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessons import HERE, LessonMaker, read_rows

from engine.batcher import Batcher
from engine.concurrency import ConcurrencyController
from engine.config import SamplingConfig, StudentConfig, TeacherConfig, load_config
from engine.gates import comparable
from engine.lane import Lane
from engine.parsing import parse_rows
from engine.prompting import Prompter, label_schema, rows_schema
from engine.records import Candidate, Completion, Example, Outcome
from engine.server import VllmServer
from engine.teacher import HttpTeacher
from prompts import PromptLibrary
from student.data import Rows, tokenise
from student.hardware import choose_hardware
from student.model import new_student
from student.predictor import Predictor, score_rows
from student.trainer import train

REQUESTS = 160
"""Of each kind of prompt."""
ROWS = 8


@dataclass(frozen=True, slots=True)
class Replies:
    """What came back for one kind of prompt."""

    asked: list[str]
    """The label that was asked for in each request."""
    texts: list[str]


def is_valid(reply: str, labels: set[str]) -> bool:
    """A JSON list of rows, each with a text and a known label, and nothing else."""
    try:
        rows = json.loads(reply)
    except ValueError:
        return False
    candidates = parse_rows(reply)
    return (
        isinstance(rows, list) and bool(candidates) and all(row.problem is None and row.text and row.label in labels for row in candidates)
    )


async def ask_teacher(model: Path, sampling: SamplingConfig) -> tuple[dict[str, Replies], float, float]:
    """Replies by kind of prompt, share of test texts labelled rightly, output tokens a second."""
    task = load_config(HERE / "quickstart.toml").task
    labels = tuple(label.name for label in task.labels)
    values = {"domain": task.domain, "labels": task.labels}
    library = PromptLibrary()
    maker = LessonMaker(read_rows(HERE / "data" / "teacher.jsonl"), seed=99)
    test = read_rows(HERE / "data" / "test.jsonl")
    outcomes: dict[str, Outcome] = {}

    async def record(outcome: Outcome) -> None:
        outcomes[outcome.request_id] = outcome

    with tempfile.TemporaryDirectory() as folder:
        config = TeacherConfig(model=str(model))
        async with (
            VllmServer(config, run=Path(folder), log=Path(folder) / "server.log", on_phase=print) as server,
            HttpTeacher(server.endpoint, timeout_s=300, stall_s=60) as teacher,
            Batcher([Lane(teacher, ConcurrencyController())], attempts=2, random=random.Random(0), record=record) as batcher,
        ):
            prompter = Prompter(library, server.endpoint.model, sampling.model_copy(update={"constrained": False}), seed=1)

            async def reply(template: str, number: int, more: dict[str, Any]) -> str:
                schema = label_schema(labels) if template == "labelling/label" else rows_schema(labels, ROWS)
                prompt = prompter.render(template, values | more, schema)
                outcome = await batcher.ask(prompter.request(prompt, template, number))
                return outcome.text if isinstance(outcome, Completion) else ""

            asked = [labels[number % len(labels)] for number in range(REQUESTS)]
            reports = [maker.report() for _ in asked]
            examples = [Example(row.text, row.label) for row in maker.rows[:16]]
            started = asyncio.get_running_loop().time()
            conditional = await asyncio.gather(
                *(reply("zerogen/generate", i, {"num_rows": ROWS, "label": label}) for i, label in enumerate(asked))
            )
            with_report = await asyncio.gather(
                *(
                    reply("pgkd/generate", i, {"num_rows": ROWS, "focus": (label,), "report": report, "examples": examples})
                    for i, (label, report) in enumerate(zip(asked, reports, strict=True))
                )
            )
            elapsed = asyncio.get_running_loop().time() - started
            rate = batcher.statistics().completion_tokens / elapsed
            answers = await asyncio.gather(*(reply("labelling/label", i, {"text": row.text}) for i, row in enumerate(test)))
    right = sum(answer == json.dumps({"label": row.label}) for answer, row in zip(answers, test, strict=True)) / len(test)
    replies = {"class_conditional": Replies(asked, list(conditional)), "with_report": Replies(asked, list(with_report))}
    return replies, right, rate


def train_judge() -> tuple[Predictor, float]:
    """A student of all real rows but the test rows, and its accuracy on those."""
    config = load_config(HERE / "quickstart.toml")
    labels = [label.name for label in config.task.labels]
    splits = {name: [Example(row.text, row.label) for row in read_rows(HERE / "data" / f"{name}.jsonl")] for name in
              ("teacher", "seed", "validation", "test")}  # fmt: skip
    hardware = choose_hardware()
    student = new_student(config.student, labels, seed=0)

    def encode(rows: list[Example]) -> Rows:
        return Rows(tokenise(student.tokenizer, [row.text for row in rows]), [labels.index(row.label) for row in rows])

    settings = StudentConfig.model_validate(config.student.model_dump() | {"epochs": 3, "min_steps": 0})
    train(student, encode(splits["teacher"] + splits["seed"]), encode(splits["validation"]), settings, hardware, seed=0)
    judge = Predictor(student, hardware)
    return judge, score_rows(judge, splits["test"]).scores.accuracy


def masked(text: str) -> str:
    """Without numbers, so that a row with another order number still counts as the same."""
    return re.sub(r"[\w-]*\d[\w-]*", "0", comparable(text))


def measure(model: Path) -> dict[str, Any]:
    config = load_config(HERE / "quickstart.toml")
    labels = {label.name for label in config.task.labels}
    replies, labelling, rate = asyncio.run(ask_teacher(model, config.sampling))
    judge, judge_accuracy = train_judge()
    real = {
        name: {comparable(row.text) for row in read_rows(HERE / "data" / f"{name}.jsonl")}
        for name in ("teacher", "seed", "validation", "test")
    }
    taught_masked = {masked(row.text) for row in read_rows(HERE / "data" / "teacher.jsonl")}
    figures: dict[str, Any] = {
        "judge_accuracy": round(judge_accuracy, 3),
        "labelling_accuracy": round(labelling, 3),
        "tokens_per_s": round(rate),
        "temperature": config.sampling.temperature,
        "top_p": config.sampling.top_p,
    }
    for kind, replied in replies.items():
        parsed = [parse_rows(text) for text in replied.texts]
        rows: list[Candidate] = [row for found in parsed for row in found if row.problem is None and row.label in labels]
        as_asked = sum(row.label == label for label, found in zip(replied.asked, parsed, strict=True) for row in found)
        judged = judge.predict([row.text for row in rows])
        texts = [comparable(row.text) for row in rows]
        figures[kind] = {
            "requests": len(replied.texts),
            "rows": len(rows),
            "valid_answers": round(sum(is_valid(text, labels) for text in replied.texts) / len(replied.texts), 3),
            "as_many_rows_as_asked": round(sum(len(found) == ROWS for found in parsed) / len(parsed), 3),
            "label_as_asked": round(as_asked / max(1, len(rows)), 3),
            "label_agreed_by_judge": round(sum(row.label == p.label for row, p in zip(rows, judged, strict=True)) / max(1, len(rows)), 3),
            "verbatim_from_teacher_split": round(sum(text in real["teacher"] for text in texts) / max(1, len(rows)), 3),
            "verbatim_but_for_numbers": round(sum(masked(row.text) in taught_masked for row in rows) / max(1, len(rows)), 3),
            "found_in_seed_validation_or_test": sum(text in real[name] for text in texts for name in ("seed", "validation", "test")),
            "distinct": round(len(set(texts)) / max(1, len(rows)), 3),
            "examples": [f"{row.label}: {row.text}" for row in random.Random(0).sample(rows, min(8, len(rows)))],
        }
    return figures


def write_card(measured: dict[str, Any], training: dict[str, Any]) -> str:
    """The model card, from what `measure` gives and what `train_teacher.py` left in training.json."""
    a, b = measured["class_conditional"], measured["with_report"]
    examples = "\n".join(f"- {example}" for example in [*a["examples"], *b["examples"]])
    scalars = {name: value for name, value in measured.items() if not isinstance(value, dict)}
    card = (HERE / "teacher_card.md").read_text(encoding="utf-8")
    return card.format(**scalars, **training, a=a, b=b, requests=a["requests"], examples=examples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE / "teacher")
    options = parser.parse_args()
    figures = measure(options.model.resolve())
    (options.model / "measured.json").write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    training = json.loads((options.model / "training.json").read_text())
    (options.model / "README.md").write_text(write_card(figures, training), encoding="utf-8")
    print(json.dumps(figures, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
