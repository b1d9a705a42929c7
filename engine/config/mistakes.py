"""What is wrong with a configuration, in sentences that say what to do."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from engine.config.run import RunConfig
from engine.config.strategy import METHODS


def mistakes(error: ValidationError) -> list[str]:
    """A sentence for each."""
    return [_explain(item) for item in _causes(error.errors())]


def _causes(items: Sequence[Any]) -> list[Any]:
    """Without what only follows: a list with a wrong item is reported as too short as well."""
    places = [item["loc"] for item in items]
    return [item for item in items if not any(place != item["loc"] and place[: len(item["loc"])] == item["loc"] for place in places)]


def _explain(item: Any) -> str:
    """One pydantic error as a sentence that says what to do."""
    path = [str(part) for part in item["loc"]]
    # Behind `strategy` stands the method by which pydantic read the section, and which no key names.
    location = path[:1] + path[2:] if path[:1] == ["strategy"] else path
    where = ".".join(location)
    if item["type"] == "union_tag_invalid":
        near = difflib.get_close_matches(item["ctx"]["tag"], METHODS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(METHODS)}"
        return f"{where}.type: no method {item['ctx']['tag']!r}; {hint}"
    if item["type"] == "extra_forbidden":
        valid = _valid_keys(path[:-1])
        near = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
        return f"unknown key {where!r}; {hint}"
    if item["type"] == "missing":
        return f"missing key {where!r}"
    given = repr(item["input"])
    return f"{where}: {item['msg']}" + (f"; got {given}" if len(given) <= 80 else "")


def _valid_keys(location: list[str]) -> list[str]:
    if location[:1] == ["strategy"]:
        return sorted(METHODS[location[1]].model_fields)
    section: Any = RunConfig
    for part in location:
        if part.isdigit():
            continue
        annotation = section.model_fields[part].annotation
        inner = [kind for kind in get_args(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        section = inner[0] if inner else annotation
    return sorted(section.model_fields)
