"""The bare `openai` SDK: AsyncOpenAI over its aiohttp transport, and a semaphore."""

# The peer is installed in its own environment only.
# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio

import uvloop
from openai import AsyncOpenAI, DefaultAioHttpClient
from peer_client import Job, run_client


async def ask_all(job: Job) -> list[str | None]:
    places = asyncio.Semaphore(job.in_flight)
    async with AsyncOpenAI(base_url=job.base_url, api_key="EMPTY", timeout=job.timeout_s, http_client=DefaultAioHttpClient()) as client:

        async def ask(prompt: str) -> str | None:
            async with places:
                completion = await client.chat.completions.create(
                    model=job.model,
                    messages=[{"role": "user", "content": prompt}],
                    temperature=job.temperature,
                    max_tokens=job.max_tokens,
                )
            return completion.choices[0].message.content

        return await asyncio.gather(*map(ask, job.prompts))


def pipeline(job: Job) -> list[str | None]:
    return uvloop.run(ask_all(job))


if __name__ == "__main__":
    run_client("openai", pipeline)
