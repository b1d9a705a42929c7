"""datatrove's InferenceRunner on an endpoint that is there already, without checkpoints."""

# The peer is installed in its own environment only, and makes its event loop itself.
# pyright: reportMissingImports=false, reportDeprecated=false

from __future__ import annotations

import asyncio
import json
from typing import Any

import uvloop
from datatrove.data import Document
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.writers import JsonlWriter
from peer_client import Job, run_client


def pipeline(job: Job) -> list[str]:
    async def roll_out(document: Any, generate: Any) -> str:
        messages = [{"role": "user", "content": document.text}]
        reply = await generate({"messages": messages, "temperature": job.temperature, "max_tokens": job.max_tokens})
        return reply.text

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    runner = InferenceRunner(
        rollout_fn=roll_out,
        config=InferenceConfig(
            server_type="endpoint",
            endpoint_url=job.base_url.removesuffix("/v1"),
            model_name_or_path=job.model,
            max_concurrent_generations=job.in_flight,
            request_timeout=job.timeout_s,
        ),
        output_writer=JsonlWriter(str(job.folder), output_filename="${rank}.jsonl", compression=None),
    )
    runner.run((Document(text=prompt, id=str(index)) for index, prompt in enumerate(job.prompts)), rank=0, world_size=1)
    with next(job.folder.glob("*.jsonl")).open(encoding="utf-8") as lines:
        return [json.loads(line)["metadata"]["rollout_results"][0] for line in lines]


if __name__ == "__main__":
    run_client("datatrove", pipeline)
