"""Measure the quickstart's teacher and write its model card: `python examples/quickstart/measure_teacher.py`, the end of `make teacher`.

The teacher runs in the real vLLM and is asked, without constrained output, exactly what the project's methods ask (`examination.py`). The
judge of what it writes is a student trained on all real rows but the test rows; its own score on those says how far to trust it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
from examination import CODES, CONFIGS, DRAWS, HERE, TOGETHER, Examination, Row, TaskName, Writing, examine, serving
from judge import Judge, make_judge
from lessons import read_rows

from engine.config import load_config
from engine.gates.gates import comparable
from engine.records import Completion, Example
from engine.strategies import Answer
from engine.strategies.labelling import Labelled
from engine.strategies.marker import MarkedText

REQUESTS = 96
"""Assignments of each method, on each task."""
BINS = 10
HELD_OUT = ("seed", "validation", "test")
EXAMPLES = 2
"""Rows of each method and task on the card."""


def prompt_figures(replies: Iterable[Answer]) -> dict[str, dict[str, Any]]:
    """By template: how many replies were JSON of the shape that was asked for and nothing else, whatever the number of items in a list; and
    how many had that number too.
    """
    by_template: defaultdict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for reply in replies:
        if reply.prompt.code is not None:
            is_code = reply.text in json.loads(reply.prompt.schema)["enum"]
            fits = (is_code, is_code)
        else:
            schema = json.loads(reply.prompt.schema)
            shape = {name: value for name, value in schema.items() if name not in ("minItems", "maxItems")}
            fits = (_fits(reply.text, shape), _fits(reply.text, schema))
        by_template[reply.prompt.template.partition("@")[0]].append(fits)
    return {
        template: {
            "replies": len(fits),
            "valid": round(statistics.mean(valid for valid, _ in fits), 3),
            "valid_with_the_number_asked_for": round(statistics.mean(exact for _, exact in fits), 3),
        }
        for template, fits in by_template.items()
    }


def _fits(text: str, schema: dict[str, Any]) -> bool:
    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, RecursionError, jsonschema.ValidationError):
        return False
    return True


def method_figures(writing: Writing, judge: Judge, *, is_ner: bool) -> dict[str, Any]:
    """`as_asked`: rows that say they are, or in which is marked, what was asked for; of texts without a label that another request
    labelled, so says that request. `agreed`: the judge's share of labels, or its F1 on the marked entities.
    """
    whole = [row for row in writing.rows if row.candidate.text and (row.candidate.annotation is not None or row.candidate.label)]
    about = [row for row in whole if row.asked]
    examples = [_example(row) for row in whole]
    accepted = [row for row in writing.rows if row.refusal is None]
    texts = [row.candidate.text for row in writing.rows if row.candidate.text]
    scores = judge.agrees(examples) if examples else None
    return {
        "rows_asked": writing.num_asked,
        "rows_accepted": len(accepted),
        "yield": _share(len(accepted), writing.num_asked),
        "refused": dict(Counter(row.refusal.reason.value for row in writing.rows if row.refusal is not None).most_common()),
        "as_asked": _share(sum(_is_as_asked(row) for row in about), len(about)),
        "agreed": scores and round(scores.micro_f1 if is_ner and scores.micro_f1 is not None else scores.accuracy, 3),
        "distinct": _share(len({comparable(text) for text in texts}), len(texts)),
        **_copies(texts),
        "examples": [_shown(row) for row in random.Random(0).sample(accepted, min(EXAMPLES, len(accepted)))],
    }


def _is_as_asked(row: Row) -> bool:
    annotation = row.candidate.annotation
    types = {span.type for span in annotation.spans} if annotation is not None else set[str]()
    return row.asked in (types or {row.candidate.label})


def _example(row: Row) -> Example:
    annotation = row.candidate.annotation
    return Example(row.candidate.text, row.candidate.label, annotation.spans if annotation is not None else ())


def _shown(row: Row) -> str:
    """As on the card: entities in brackets, as in the corpus."""
    example = _example(row)
    if example.label:
        return f"{example.label}: {example.text}"
    parts: list[str] = []
    end = 0
    for span in example.spans:
        parts += [example.text[end : span.start], f"[{example.text[span.start : span.end]}]({span.type})"]
        end = span.end
    return "".join([*parts, example.text[end:]])


def _copies(texts: Sequence[str]) -> dict[str, Any]:
    real = {name: {comparable(row.text) for row in read_rows(HERE / "data" / f"{name}.jsonl")} for name in ("teacher", *HELD_OUT)}
    taught = {masked(row.text) for row in read_rows(HERE / "data" / "teacher.jsonl")}
    return {
        "verbatim_from_teacher_split": _share(sum(comparable(text) in real["teacher"] for text in texts), len(texts)),
        "verbatim_but_for_numbers": _share(sum(masked(text) in taught for text in texts), len(texts)),
        "found_in_validation_or_test": sum(comparable(text) in real[name] for text in texts for name in ("validation", "test")),
    }


def masked(text: str) -> str:
    """Without numbers, so that a row with another order number still counts as the same."""
    return comparable(re.sub(r"[\w-]*\d[\w-]*", "0", text))


def label_figures(examination: Examination) -> dict[str, Any]:
    """How often a text of the test rows gets its label; by codes, also how sure the teacher is, once calibrated on seed rows."""
    test, found = examination.task.test, dict[str, Any]()
    for kind, labelling in examination.labelling.items():
        said = [each for each in labelling.said if isinstance(each, Labelled)]
        right = [each.label == row.label for each, row in zip(said, test, strict=True)]
        found[kind] = {"accuracy": _share(sum(right), len(test)), "unlabelled": sum(each.label is None for each in said)}
        sure = [each.annotation.agreement for each in said if each.annotation is not None and each.annotation.agreement is not None]
        if kind == CODES and len(sure) == len(test):
            found[kind] |= {
                "mean_probability": round(statistics.mean(sure), 3),
                "ece": round(calibration_error(sure, right), 3),
                "doubted": sum(each.doubt is not None for each in said),
            }
    return found


def mark_figures(examination: Examination) -> dict[str, Any]:
    """Of the test rows' entities: exact ones, of the right type."""
    found = dict[str, Any]()
    for kind, labelling in examination.labelling.items():
        marks = [each.marks if isinstance(each, MarkedText) else None for each in labelling.said]
        spans = [frozenset(mark) if isinstance(mark, tuple) else None for mark in marks]
        true = [frozenset(row.spans) for row in examination.task.test]
        hits = sum(len(guess & real) for guess, real in zip(spans, true, strict=True) if guess is not None)
        guessed, real = sum(len(guess) for guess in spans if guess is not None), sum(map(len, true))
        found[kind] = {
            "micro_f1": round(2 * hits / max(1, guessed + real), 3),
            "precision": _share(hits, guessed),
            "recall": _share(hits, real),
            "whole_texts": _share(sum(guess == each for guess, each in zip(spans, true, strict=True)), len(true)),
            "unreadable": sum(guess is None for guess in spans),
        }
    return found


def calibration_error(confidences: Sequence[float], hits: Sequence[bool]) -> float:
    """Expected calibration error over bins of equal width."""
    bins: defaultdict[int, list[tuple[float, bool]]] = defaultdict(list)
    for confidence, hit in zip(confidences, hits, strict=True):
        bins[min(BINS - 1, int(confidence * BINS))].append((confidence, hit))
    gaps = (abs(sum(confidence - hit for confidence, hit in inside)) for inside in bins.values())
    return sum(gaps) / max(1, len(confidences))


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


async def ask(model: Path, requests: int) -> tuple[list[Examination], float]:
    """Both tasks, and output tokens a second."""
    async with serving(model) as (name, batcher):
        started = asyncio.get_running_loop().time()
        examinations = [await examine(task, name, batcher, requests) for task in CONFIGS]
        elapsed = asyncio.get_running_loop().time() - started
        return examinations, batcher.statistics().completion_tokens / elapsed


def measure(model: Path, requests: int, judges: Path | None) -> dict[str, Any]:
    examinations, rate = asyncio.run(ask(model, requests))
    replies = [
        reply
        for examination in examinations
        for part in (*examination.writing.values(), *examination.labelling.values())
        for reply in part.replies
    ]
    figures: dict[str, Any] = {
        "tokens_per_s": round(rate),
        "temperature": examinations[0].config.sampling.temperature,
        "top_p": examinations[0].config.sampling.top_p,
        "requests": requests,
        "cut_off": sum(isinstance(reply.outcome, Completion) and reply.outcome.finish_reason.value == "length" for reply in replies),
        "prompts": prompt_figures(replies),
    }
    for examination in examinations:
        is_ner = examination.config.task.kind == "ner"
        kind: TaskName = "ner" if is_ner else "classification"
        judge = make_judge(load_config(CONFIGS[kind]), judges and judges / f"{kind}-judge")
        figures[kind] = {
            "judge": round(judge.own.micro_f1 if is_ner and judge.own.micro_f1 is not None else judge.own.accuracy, 3),
            "labelling": mark_figures(examination) if is_ner else label_figures(examination),
            "methods": {name: method_figures(writing, judge, is_ner=is_ner) for name, writing in examination.writing.items()},
        }
    return figures


def write_card(measured: dict[str, Any], training: dict[str, Any]) -> str:
    """The model card, from what `measure` gives and what `train_teacher.py` left in training.json."""
    labels, entities = measured["classification"], measured["ner"]
    card = (HERE / "teacher_card.md").read_text(encoding="utf-8")
    return card.format(
        **{name: value for name, value in measured.items() if not isinstance(value, dict)},
        **training,
        draws=DRAWS,
        together=TOGETHER,
        label_judge=labels["judge"],
        entity_judge=entities["judge"],
        label=labels["labelling"],
        mark=entities["labelling"],
        label_methods=_methods_table(labels["methods"]),
        entity_methods=_methods_table(entities["methods"]),
        prompts=_prompts_table(measured["prompts"]),
        label_examples=_examples(labels["methods"]),
        entity_examples=_examples(entities["methods"]),
    )


def _methods_table(methods: dict[str, dict[str, Any]]) -> str:
    columns = ("yield", "as_asked", "agreed", "distinct", "verbatim_from_teacher_split", "verbatim_but_for_numbers")
    lines = ["| method | rows accepted | as asked | judge agrees | distinct | verbatim | verbatim but for numbers | refused |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, figures in methods.items():
        refused = ", ".join(f"{reason} {count}" for reason, count in figures["refused"].items())
        lines.append(f"| `{name}` | {' | '.join(_percent(figures[column]) for column in columns)} | {refused} |")
    return "\n".join(lines)


def _prompts_table(prompts: dict[str, dict[str, Any]]) -> str:
    lines = ["| prompt | replies | valid | with the number asked for |", "|---|---|---|---|"]
    for name, figures in sorted(prompts.items(), key=lambda item: (item[0].startswith("ner/"), item[0])):
        lines.append(
            f"| `{name}` | {figures['replies']} | {_percent(figures['valid'])} | {_percent(figures['valid_with_the_number_asked_for'])} |"
        )
    return "\n".join(lines)


def _examples(methods: dict[str, dict[str, Any]]) -> str:
    return "\n".join(f"- ({name}) {example}" for name, figures in methods.items() for example in figures["examples"])


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE / "teacher")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="assignments of each method on each task")
    parser.add_argument("--judges", type=Path, help="folder where the judges are kept, or lie already")
    options = parser.parse_args()
    figures = measure(options.model.resolve(), options.requests, options.judges)
    (options.model / "measured.json").write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    training = json.loads((options.model / "training.json").read_text())
    (options.model / "README.md").write_text(write_card(figures, training), encoding="utf-8")
    print(json.dumps(figures, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
