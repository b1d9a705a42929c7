"""Reading a configuration: TOML by hand, JSON by machine.

Relative paths in a file are relative to that file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.config.mistakes import mistakes
from engine.config.run import RunConfig
from engine.config.strategy import METHODS
from engine.config.teacher import TeacherConfig
from engine.errors import UserError


def load_config(path: Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a TOML file; `overrides` maps dotted keys (`teacher.endpoint`) to values that win over the file's.

    Raises UserError with one line a mistake.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the TOML file of a run, e.g. examples/quickstart/quickstart.toml") from None
    except (IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path}: {error.strerror}; give the TOML file of a run") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    _leave_out_other_methods_keys(content, (overrides or {}).get("strategy.type"))
    for key, value in (overrides or {}).items():
        _set(content, key, value)
    try:
        config = RunConfig.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {mistake}" for mistake in mistakes(error))) from None
    return _with_absolute_paths(config, path.resolve().parent)


def change_config(config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """The same with other values for some dotted keys; UserError as above."""
    content = dump_config(config)
    for key, value in overrides.items():
        _set(content, key, value)
    try:
        changed = RunConfig.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(mistakes(error))) from None
    return _with_absolute_paths(changed, Path.cwd())


def dump_config(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration as plain JSON values; `restore_config` reads it back."""
    return config.model_dump(mode="json")


def restore_config(content: Mapping[str, Any]) -> RunConfig:
    return RunConfig.model_validate(content)


def _leave_out_other_methods_keys(content: dict[str, Any], method: object) -> None:
    """Where another method than the file's is asked for: what the file's knows and the other does not. So one file serves all methods,
    and a key that neither knows is still an error.
    """
    strategy = content.get("strategy")
    if method not in METHODS or not isinstance(strategy, dict):
        return
    own, other = METHODS.get(str(strategy.get("type", "pgkd"))), METHODS[str(method)]
    for key in [key for key in strategy if own and key in own.model_fields and key not in other.model_fields]:
        del strategy[key]


def _set(content: dict[str, Any], key: str, value: object) -> None:
    section: Any = content
    *parents, last = key.split(".")
    for name in parents:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise UserError(f"{key} cannot be set: {name!r} is a value, not a section")
    section[last] = value


def _with_absolute_paths(config: RunConfig, base: Path) -> RunConfig:
    data = config.task.data
    files = {name: getattr(data, name) for name in ("seed", "validation", "test", "pool")}
    absolute = data.model_copy(update={name: base / path for name, path in files.items() if path is not None})
    task = config.task.model_copy(update={"data": absolute})
    return config.model_copy(
        update={
            "task": task,
            "prompts": config.prompts and base / config.prompts,
            "variants": config.variants.model_copy(
                update={
                    "templates": {
                        template: {name: base / path for name, path in files.items()}
                        for template, files in config.variants.templates.items()
                    }
                }
            ),
            "teacher": _with_absolute_model(config.teacher, base),
            "teachers": tuple(_with_absolute_model(teacher, base) for teacher in config.teachers),
            "student": config.student.model_copy(update={"encoder": resolve_model(config.student.encoder, base)}),
        }
    )


def _with_absolute_model(teacher: TeacherConfig, base: Path) -> TeacherConfig:
    return teacher.model_copy(update={"model": resolve_model(teacher.model, base)})


def resolve_model(name: str, base: Path) -> str:
    """A folder beside the configuration wins over a hub id of the same spelling; anything that looks like a path is one."""
    folder = (base / name).resolve()
    return str(folder) if folder.exists() or name.startswith((".", "/", "~")) else name
