"""Bespoke Curator's LLM class over a dataset, by its `openai` backend."""

# ruff: noqa: E402 - the peer reads its environment while it is imported
# The peer is installed in its own environment only, and makes its event loop itself.
# pyright: reportMissingImports=false, reportUntypedBaseClass=false, reportDeprecated=false

from __future__ import annotations

import asyncio
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

litellm = find_spec("litellm")
assert litellm is not None
assert litellm.origin is not None
os.environ.update(
    OPENAI_API_KEY="EMPTY",
    TELEMETRY_ENABLED="0",
    CURATOR_DISABLE_RICH_DISPLAY="1",
    CURATOR_DISABLE_CACHE="1",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    # The backend counts tokens with a vocabulary that tiktoken would download; litellm brings the same file along.
    TIKTOKEN_CACHE_DIR=str(Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"),
)

import uvloop
from bespokelabs import curator
from datasets import Dataset
from peer_client import Job, run_client


class Writer(curator.LLM):
    def prompt(self, row: dict[str, str]) -> str:
        return row["prompt"]

    def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
        return {"prompt": row["prompt"], "answer": response}


def pipeline(job: Job) -> list[str]:
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    writer = Writer(
        model_name=job.model,
        backend="openai",
        generation_params={"temperature": job.temperature, "max_tokens": job.max_tokens},
        backend_params={
            "base_url": job.base_url,
            "max_concurrent_requests": job.in_flight,
            "request_timeout": job.timeout_s,
            "max_requests_per_minute": 10_000_000,
            "max_tokens_per_minute": 10_000_000_000,
        },
    )
    result: Any = writer(Dataset.from_dict({"prompt": list(job.prompts)}), working_dir=str(job.folder))
    return list(result.dataset["answer"])


if __name__ == "__main__":
    run_client("bespokelabs-curator", pipeline)
