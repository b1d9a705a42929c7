"""What vLLM does without a server in between: `LLM.generate` over a file of prompts. The ceiling for `benchmarks.roofline`.

    python -m benchmarks.offline --model DIR --prompts FILE.jsonl --out FILE

A line of FILE is one draw: messages, seed, max_tokens, json_schema (text or null). Prints and writes tokens and seconds of a warmed-up
engine.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.update(VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", HF_HUB_OFFLINE="1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--kv-cache-gib", type=float, default=0.5)
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--ignore-eos", action="store_true")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    engine = LLM(
        model=options.model,
        enforce_eager=True,
        enable_prefix_caching=True,
        enable_chunked_prefill=False,
        max_num_seqs=options.max_num_seqs,
        kv_cache_memory_bytes=int(options.kv_cache_gib * 2**30),
        dtype=options.dtype,
        disable_log_stats=False,
    )
    draws: list[dict[str, Any]] = [json.loads(line) for line in options.prompts.read_text().splitlines()]

    def parameters(draw: dict[str, Any]) -> Any:
        schema = draw["json_schema"]
        return SamplingParams(
            temperature=options.temperature,
            top_p=options.top_p,
            max_tokens=draw["max_tokens"],
            seed=draw["seed"],
            ignore_eos=options.ignore_eos,
            structured_outputs=None if schema is None else StructuredOutputsParams(json=schema),
        )

    tokenizer = engine.get_tokenizer()
    texts = [tokenizer.apply_chat_template(draw["messages"], tokenize=False, add_generation_prompt=True) for draw in draws]
    sampling = [parameters(draw) for draw in draws]
    engine.generate(texts[:32], sampling[:32], use_tqdm=False)
    engine.reset_prefix_cache()
    started = time.perf_counter()
    outputs = engine.generate(texts, sampling, use_tqdm=False)
    wall_s = time.perf_counter() - started
    tokens = sum(len(choice.token_ids) for output in outputs for choice in output.outputs)
    prompt_tokens = sum(len(output.prompt_token_ids or ()) for output in outputs)
    result = {"sequences": len(outputs), "completion_tokens": tokens, "prompt_tokens": prompt_tokens, "wall_s": wall_s,
              "tokens_per_s": tokens / wall_s}  # fmt: skip
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
