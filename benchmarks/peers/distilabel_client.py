"""distilabel: one TextGeneration step, whose batch is all that it has in flight."""

# The peer is installed in its own environment only.
# pyright: reportMissingImports=false

from __future__ import annotations

from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from peer_client import Job, run_client


def pipeline(job: Job) -> list[str]:
    with Pipeline(name="peer", cache_dir=str(job.folder)) as steps:
        load = LoadDataFromDicts(data=[{"instruction": prompt} for prompt in job.prompts], batch_size=job.in_flight)
        generate = TextGeneration(
            llm=OpenAILLM(
                model=job.model,
                base_url=job.base_url,
                api_key="EMPTY",
                timeout=job.timeout_s,
                generation_kwargs={"temperature": job.temperature, "max_new_tokens": job.max_tokens},
            ),
            input_batch_size=job.in_flight,
        )
        load.connect(generate)
    return list(steps.run(use_cache=False)["default"]["train"]["generation"])


# Its steps are processes, which import this file again where they are not forked.
if __name__ == "__main__":
    run_client("distilabel", pipeline)
