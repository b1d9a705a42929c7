"""The example folder's other task files on the real vLLM: three turns, weakness by weakness with labels asked apart, and entities."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.config import TeacherConfig
from engine.server.server import VllmServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "quickstart"
REFLUX = (sys.executable, "-m", "engine.cli")
SETTINGS = ("strategy.rounds=1", "strategy.rows_per_round=32", "student.epochs=1", "engine.concurrency=8")
CODES = "labelling/code"
"""Cut off on purpose, behind the code."""
ASKED = {"evokd": {"evokd/analyse", "evokd/write", CODES}, "hybrid": {"hybrid/write", CODES}, "ner": {"ner/pgkd/generate"}}
"""By which templates."""
SCORED_ROWS = 64
"""Of validation, and of test: how well the student learns is not what is tried here."""

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]


async def reflux(*arguments: str, key: str) -> str:
    """What it prints; fails with its own words if it does not end well."""
    process = await asyncio.create_subprocess_exec(
        *REFLUX,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"REFLUX_API_KEY": key},
    )
    printed, messages = await process.communicate()
    assert process.returncode == 0, messages.decode()
    return printed.decode()


def cut(file: Path, folder: Path) -> Path:
    """Its first rows."""
    short = folder / file.name
    short.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:SCORED_ROWS]), encoding="utf-8")
    return short


async def test_the_other_task_files_run_to_their_end(tmp_path: Path) -> None:
    config = TeacherConfig(model=str(EXAMPLES / "teacher"), kv_cache_gib=0.25, max_num_seqs=8)
    data = {f"task.data.{part}": cut(EXAMPLES / "data" / f"{part}.jsonl", tmp_path) for part in ("validation", "test")}
    settings = [argument for setting in (*SETTINGS, *(f"{key}={path}" for key, path in data.items())) for argument in ("--set", setting)]
    # One server for all: what they ask is tried here, not that they start one.
    async with VllmServer(config, run=tmp_path, log=tmp_path / "server.log") as server:
        for name, templates in ASKED.items():
            run, key = str(tmp_path / name), server.endpoint.api_key or ""
            task = str(EXAMPLES / f"{name}.toml")
            printed = await reflux("run", task, "--out", run, "--endpoint", server.endpoint.base_url, "--json", *settings, key=key)
            summary: dict[str, Any] = json.loads(printed)
            rows = summary["rows"]
            assert rows["requested"] == 32 == rows["accepted"] + rows["rejected"] + rows["failed"]
            assert rows["accepted"] > 0, name
            calls = json.loads(
                await reflux("query", run, "select split_part(template, '@', 1) as name, finish_reason from calls", "--json", key=key)
            )
            assert {call["name"] for call in calls} == templates, name
            broken = json.loads(await reflux("query", run, "select text from rejections where reason = 'schema'", "--json", key=key))
            cut_off = [call for call in calls if call["finish_reason"] == "length" and call["name"] != CODES]
            assert len(broken) <= 8 * len(cut_off), f"{name}: what is constrained and not cut off keeps its form"
            assert "test" in summary["student"]["after"]
