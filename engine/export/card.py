"""The dataset card: what is in an exported folder and how it was made, as the README that the Hugging Face hub shows.

Whatever comes from outside (labels, descriptions, names of models) is inert in it: in the front matter as a quoted YAML string, in the text
as a code span, which neither Markdown nor HTML reads into.
"""

# pyright: reportUnknownParameterType=false
# (pyarrow's classes have no type stubs, so that naming them says something to readers only)

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment
from msgspec import structs

from engine.export.rows import LABELS, PROBABILITIES, SPANS
from engine.records import RejectionReason, RoundRecord, RowCounts
from engine.runs.manifest import Manifest, teacher_revision
from engine.teacher.endpoint import served_name

MEANING: Mapping[str, str] = {
    RejectionReason.SCHEMA: "no object with a text and a label, or with what else was asked for",
    RejectionReason.UNKNOWN_LABEL: "a label that the task does not have",
    RejectionReason.SPANS: "entities that overlap, or are of no type of the task, or not in the text",
    RejectionReason.UNLABELLED: "a text that got no label",
    RejectionReason.DISAGREEMENT: "labelled as something else than it was asked for",
    RejectionReason.UNCERTAIN: "whoever labelled it was not sure of the label",
    RejectionReason.EMPTY: "no text",
    RejectionReason.TOO_LONG: "longer than the task allows",
    RejectionReason.SCRIPT: "in another script than any seed row",
    RejectionReason.DUPLICATE: "the same text was there already",
    RejectionReason.NEAR_DUPLICATE: "much like a text that was there already",
    RejectionReason.LEAKAGE: "a row of validation or test, or much like one",
    RejectionReason.SURPLUS: "past the number that was asked for; counted apart",
}

COLUMNS: Mapping[str, str] = {
    "text": "what the teacher wrote",
    "text_pair": "the second text of the pair",
    "label": "its class, as the teacher says",
    "labels": "all its classes, as the teacher says, in their order; there may be none",
    "spans": "the entities in it, as the teacher says: start and end in characters of the text, the end not included, and the type",
    "agreement": "how far whoever labelled it agreed, from 0 to 1, where that was asked",
    "label_probabilities": "the teacher's distribution over the classes, in their order, where that was asked",
    "id": "unique: the request it comes from, and its place in the reply",
    "round": "of the loop, from 1",
    "report": "the round whose student's weaknesses it answers",
    "assignment": "the piece of work it was written in",
    "weakness": "what it answers: a class, or a class and what it is mistaken for",
    "strategy": "the method that asked for it",
    "template": "the prompt's template and its version",
    "prompt_hash": "of the prompt that was sent",
    "teacher": "the model, as its server calls it",
    "request_id": "of the request it comes from",
    "replays": "the refused row or the request of an earlier round that was tried again, if any",
    "reason": "why it was refused",
    "detail": "more about that",
    "raw": "what the teacher wrote, as it stands in the reply",
}
"""What the columns of the exported tables hold."""

_STEPS = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
_DTYPES = {pa.string(): "string", pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "bool"}
_FEATURES = {
    **{kind: f"dtype: {name}" for kind, name in _DTYPES.items()},
    PROBABILITIES: "sequence: float32",
    LABELS: "sequence: string",
    SPANS: "list: [{name: start, dtype: int32}, {name: end, dtype: int32}, {name: type, dtype: string}]",
}
"""What a card says of a column of this type, as YAML in one line."""
_FRONT_MATTER = re.compile(r"\s*---\r?\n(.*?)\r?\n---(\r?\n|$)", re.DOTALL)
_MAX_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Split:
    """The files of one table in the folder."""

    name: str
    """What `load_dataset` calls its configuration."""
    pattern: str
    """Of its files' names, relative to the folder."""
    schema: pa.Schema
    num_rows: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What a card tells."""

    manifest: Manifest
    splits: Sequence[Split]
    """The training rows first."""
    classes: Mapping[str, int]
    """Exported rows by label, of which a row may have several; where entities are marked, entities by type."""
    rounds: Sequence[RoundRecord]
    """Those whose rows were chosen from."""
    scores: Mapping[int, float]
    """The student's macro F1 on validation, by round."""
    tests: Mapping[int, float]
    """The same on test; empty until the run has finished."""
    rejections: Sequence[tuple[str, int]] | None
    """Reason and number; None where they have been freed."""
    makers: Sequence[tuple[str, str, str, int]]
    """Strategy, template, teacher and the number of rows."""
    where: str | None
    is_finished: bool
    has_unfinished: bool
    """Whether rows of a round in progress may be among them."""
    license: str | None
    languages: Sequence[str]
    version: str
    """Of the Reflux that exports."""
    has_student: bool = True
    """Whether the run teaches one."""


def render_card(facts: Facts) -> str:
    """The card as Markdown with YAML front matter."""
    config = facts.manifest.config
    (train, *_) = facts.splits
    names: list[str] = [label["name"] for label in config["task"]["labels"]]
    model = Path(config["teacher"]["model"])
    reasons = facts.rejections and [(reason, MEANING.get(reason, ""), count) for reason, count in facts.rejections]
    derived = {
        "config": config,
        "train": train,
        "labels": [{**label, "num_rows": facts.classes.get(label["name"], 0)} for label in config["task"]["labels"]],
        "num_labelled": max(1, sum(facts.classes.values())),
        "counts": structs.asdict(sum((record.rows for record in facts.rounds), RowCounts())),
        "reasons": reasons,
        "size_category": size_category(train.num_rows),
        "features": [_features(split.schema, names if set(facts.classes) <= set(names) else None) for split in facts.splits],
        "teacher": served_name(str(model)),
        "teacher_revision": teacher_revision(facts.manifest),
        "teacher_license": licence_of(model),
        "settings": {part: _flat(config.get(part, {})) for part in ("strategy", "sampling", "gates")},
        "columns": COLUMNS,
        "types": _DTYPES,
        "is_ner": config["task"]["kind"] == "ner",
        "is_set": config["task"]["kind"] == "multi_label",
        "is_pair": config["task"]["kind"] == "pair",
    }
    return _template().render({field: getattr(facts, field) for field in Facts.__slots__} | derived)


def size_category(num_rows: int) -> str:
    """As the hub names it, e.g. `1K<n<10K`."""
    if num_rows < 1000:
        return "n<1K"
    power = min(len(str(num_rows)) - 4, len(_STEPS) - 1)
    return f"n>{_STEPS[-1]}" if power == len(_STEPS) - 1 else f"{_STEPS[power]}<n<{_STEPS[power + 1]}"


def licence_of(model: Path) -> str | None:
    """What the card in a model's folder says; None where there is none to read."""
    try:
        found = _FRONT_MATTER.match((model / "README.md").read_text(encoding="utf-8"))
        said = yaml.safe_load(found[1]).get("license") if found else None
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return None
    return said if isinstance(said, str) else None


def quoted(value: str) -> str:
    """The string as YAML that is read back equal, in one line."""
    # Non-ASCII letters stay readable, but not what could turn the line round or break it.
    dumped: str = yaml.safe_dump(value, default_style='"', allow_unicode=value.isprintable(), width=float("inf"))
    return dumped.strip()


def code(value: object) -> str:
    """Any value as a Markdown code span, in one line, that can stand in a table."""
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(value))
    shown = text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
    # Programs disagree on what a backslash before an escaped pipe means.
    shown = re.sub(r"(?<=\\)\|", r"\\x7c", shown).replace("|", r"\|")
    if not shown.strip():
        shown = repr(shown)
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    space = " " if shown.startswith(("`", " ")) or shown.endswith(("`", " ")) else ""
    return f"{fence}{space}{shown}{space}{fence}"


def _features(schema: pa.Schema, label_names: Sequence[str] | None) -> list[tuple[str, str, Sequence[str] | None]] | None:
    """Name, what is said of its type, and class names of each column; None where the card has no word for a type: programs go by the
    files.
    """
    if any(field.type not in _FEATURES for field in schema):
        return None
    is_train = "reason" not in schema.names  # a refused row may have any label
    return [
        (field.name, _FEATURES[field.type], label_names if field.name in ("label", "labels") and is_train else None) for field in schema
    ]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if not isinstance(value, dict)}


@cache
def _template() -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"yaml": quoted, "code": code}
    return environment.get_template("card.jinja")
