"""Runs of several teachers that label, and what they were asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.records import Example, Label, Pool, TaskSpec
from engine.testing.server import ScriptedServer
from tests.engine.strategies.schooling import make_config

ENGINE = {"concurrency": 4, "server_patience_s": 0.0}


class Seen:
    """What a server was asked, and what it answered."""

    def __init__(self) -> None:
        self.asked_bodies: list[bytes] = []
        self.answered_bodies: list[bytes] = []

    def asked(self, body: bytes) -> None:
        self.asked_bodies.append(body)

    def answered(self, body: bytes, texts: Sequence[str]) -> None:
        self.answered_bodies.append(body)


def make_task(folder: Path, num_labels: int, num_pool: int = 40) -> TaskSpec:
    folder.mkdir(parents=True, exist_ok=True)
    labels = tuple(Label(f"label {number}", f"all about {number}") for number in range(num_labels))

    def rows(split: str) -> tuple[Example, ...]:
        return tuple(Example(f"{split} text about {label.name}", label.name) for label in labels)

    pool = folder / "pool.jsonl"
    pool.write_text("".join(json.dumps({"text": f"pool row {number}"}) + "\n" for number in range(num_pool)), encoding="utf-8")
    return TaskSpec("classification", "messages", labels, rows("seed"), rows("validation"), rows("test"), Pool(str(pool), "text", num_pool))


def make_run(method: str, *servers: ScriptedServer, labelling: Mapping[str, Any] | None = None, **settings: Any) -> RunConfig:
    """Each server is a teacher of its own."""
    first, *others = [{"model": json.loads(server._models)["data"][0]["id"], "endpoint": server.base_url} for server in servers]  # pyright: ignore[reportPrivateUsage]
    sections = {"teacher": first, "teachers": others, "labelling": labelling or {}, "engine": ENGINE}
    return make_config(method, sections=sections, **settings)
