"""The task file that `reflux init` writes: TOML with a comment for every key, taken from the docstrings in `engine.config`.

Invariant: whatever stands in a value (label names, descriptions, paths), the file reads back equal; nothing from outside stands in a
comment. What a user might want to change, and is at its default, is there as a comment.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from engine.config import (
    METHODS,
    DataConfig,
    EngineConfig,
    GatesConfig,
    RunConfig,
    SamplingConfig,
    StudentConfig,
    TaskConfig,
    TeacherConfig,
)
from engine.records import Label, TaskKind
from engine.text import readable

_WIDTH = 110
_OFFERED: Mapping[str, tuple[str, ...]] = {
    "task": ("max_text_chars",),
    "task.data": ("pool", "seed_rows_per_class"),
    "teacher": ("endpoint", "api_key_env", "max_model_len", "kv_cache_gib", "gpu_memory_fraction"),
    "sampling": ("temperature", "top_p", "max_tokens"),
    "strategy": ("rounds", "patience", "rows_per_call"),
    "gates": ("near_duplicates", "similarity"),
    "student": ("max_length", "batch_size", "epochs", "learning_rate", "device"),
    "engine": ("concurrency", "requests_per_second"),
}
"""Keys that are shown at their defaults where nothing else is said, by section; there are more."""
_INSTEAD: Mapping[str, str] = {"type": f"The method of teaching, one of {', '.join(METHODS)}."}
"""Of what the docstring says, or where there is none."""


@dataclass(frozen=True, slots=True)
class TaskDraft:
    """What a user has said of a task, checked already. Paths are as they stand in the file: relative to it, or absolute."""

    name: str
    seed: int
    domain: str
    labels: tuple[Label, ...]
    data: Mapping[str, str | int]
    """Keys of DataConfig."""
    teacher: Mapping[str, str | Sequence[str]]
    strategy: Mapping[str, str | int]
    student: Mapping[str, str | int | float]
    kind: TaskKind = "classification"


def render_task_file(draft: TaskDraft) -> str:
    """The text of the file."""
    lines = [
        "# A task for Reflux, written by `reflux init`. `reflux run FILE` trains a student; `reflux generate FILE` only writes rows.",
        "# Keys behind a # are at their defaults: take the # away to change one. `None` is a key that is left out. Paths are relative",
        "# to this file.",
        "",
        *_keys(RunConfig, {"name": draft.name, "seed": draft.seed}, ()),
        "",
        "[task]",
        *_keys(TaskConfig, {**({"kind": draft.kind} if draft.kind != "classification" else {}), "domain": draft.domain}, _OFFERED["task"]),
        "",
        "[task.data]",
        *_keys(DataConfig, draft.data, _OFFERED["task.data"]),
        "",
        "# The labels, as they stand in the data. A sentence on each is worth a lot: the teacher knows of a label what stands here.",
    ]
    for label in draft.labels:
        lines += ["[[task.labels]]", f"name = {render_value(label.name)}", f"description = {render_value(label.description)}", ""]
    method = METHODS[str(draft.strategy["type"])]
    sections: tuple[tuple[str, type[BaseModel], Mapping[str, Any]], ...] = (
        ("teacher", TeacherConfig, draft.teacher),
        ("strategy", method, draft.strategy),
        ("student", StudentConfig, draft.student),
        ("sampling", SamplingConfig, {}),
        ("gates", GatesConfig, {}),
        ("engine", EngineConfig, {}),
    )
    for name, section, values in sections:
        lines += [f"[{name}]", *_keys(section, values, _OFFERED[name]), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _keys(section: type[BaseModel], values: Mapping[str, Any], offered: Sequence[str]) -> Iterator[str]:
    """A section's keys, those that are set first, each below what it does."""
    notes = {**key_notes(section), **_INSTEAD}
    for name, value in values.items():
        yield from _comment(notes.get(name, ""), section, name)
        yield f"{name} = {render_value(value)}"
    for name in offered:
        if name in section.model_fields and name not in values:
            yield from _comment(notes.get(name, ""), None, name)
            default = section.model_fields[name].default
            yield f"# {name} = {render_value(default)}" if default is not None else f"# {name} ="


def _comment(note: str, section: type[BaseModel] | None, name: str) -> Iterator[str]:
    """`section`: where the default is told, as the value that follows is not it."""
    default = ""
    if section is not None and name != "type" and not section.model_fields[name].is_required():
        value = section.model_fields[name].default
        default = f"Default: {render_value(value) if value is not None else 'none'}."
    if text := " ".join(part for part in (note, default) if part):
        yield from textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False)


def render_value(value: Any) -> str:
    """As TOML, in one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path | Enum):
        return _string(str(value))
    return f"[{', '.join(map(render_value, value))}]"


def _string(value: str) -> str:
    # A JSON string is a TOML string, but for what JSON lets stand as it is and TOML, or a reader's eye, does not.
    return "".join(char if char.isprintable() else _escape(char) for char in json.dumps(readable(value), ensure_ascii=False))


def _escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 1 << 16 else f"\\U{ord(char):08x}"


@cache
def key_notes(section: type[BaseModel]) -> Mapping[str, str]:
    """What the docstrings below a section's fields say, each as one line without marks of code; own ones before inherited ones."""
    notes: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if not (issubclass(kind, BaseModel) and kind.__module__.startswith("engine.")):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(tree, ast.ClassDef)
        for field, below in zip(tree.body, tree.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as note)):
                    notes[name] = " ".join(note.replace("`", "").split())
                case _:
                    pass
    return notes
