"""litellm's `acompletion`, bare, and a semaphore."""


# The peer is installed in its own environment only.
# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import uvloop
from peer_client import Job, run_client

litellm.telemetry = False
litellm.suppress_debug_info = True


async def ask_all(job: Job) -> list[str | None]:
    places = asyncio.Semaphore(job.in_flight)

    async def ask(prompt: str) -> str | None:
        async with places:
            completion = await litellm.acompletion(
                model=f"hosted_vllm/{job.model}",
                api_base=job.base_url,
                api_key="EMPTY",
                messages=[{"role": "user", "content": prompt}],
                temperature=job.temperature,
                max_tokens=job.max_tokens,
                timeout=job.timeout_s,
            )
        return completion.choices[0].message.content

    return await asyncio.gather(*map(ask, job.prompts))


def pipeline(job: Job) -> list[str | None]:
    return uvloop.run(ask_all(job))


if __name__ == "__main__":
    run_client("litellm", pipeline)
