"""NVIDIA Data Designer: one text column over a seed dataset of the prompts."""


# The peer is installed in its own environment only, and makes its event loop itself.
# pyright: reportMissingImports=false, reportDeprecated=false

from __future__ import annotations

import asyncio
import os

os.environ["NEMO_TELEMETRY_ENABLED"] = "false"

import data_designer.config as dd
import pandas as pd
import uvloop
from data_designer.interface import DataDesigner
from peer_client import Job, run_client


def pipeline(job: Job) -> list[str]:
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    parameters = dd.ChatCompletionInferenceParams(
        temperature=job.temperature, max_tokens=job.max_tokens, max_parallel_requests=job.in_flight, timeout=job.timeout_s
    )
    model = dd.ModelConfig(alias="teacher", model=job.model, provider="local", inference_parameters=parameters, skip_health_check=True)
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    prompts = pd.DataFrame({"prompt": job.prompts})
    builder.with_seed_dataset(dd.LocalFileSeedSource.from_dataframe(prompts, str(job.folder / "prompts.parquet")))
    builder.add_column(dd.LLMTextColumnConfig(name="answer", prompt="{{ prompt }}", model_alias="teacher"))
    designer = DataDesigner(
        artifact_path=job.folder / "artifacts",
        model_providers=[dd.ModelProvider(name="local", endpoint=job.base_url, provider_type="openai", api_key="EMPTY")],
    )
    designer.set_run_config(dd.RunConfig(jinja_rendering_engine="native", otel_metrics_port=None))
    return list(designer.create(builder, num_records=len(job.prompts), dataset_name="answers").load_dataset()["answer"])


if __name__ == "__main__":
    run_client("data-designer", pipeline)
