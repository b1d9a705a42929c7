"""What a run reserves while it works, and what that costs by the second. Pure but for a look at which vLLM is installed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.config import CostConfig, RunConfig
from engine.machine.preflight import vllm_build

PARALLEL_FLAGS = (("--tensor-parallel-size", "-tp"), ("--pipeline-parallel-size", "-pp"), ("--data-parallel-size", "-dp"))
"""A server uses one GPU for each of their product."""
_HOUR_S = 3600.0
_KWH_WS = 3.6e6


def reserved_gpus(config: RunConfig) -> float:
    """By all teachers' servers: as `cost.gpus` says; else as many as ours are started on, and one for each that is asked elsewhere."""
    if config.cost.gpus is not None:
        return config.cost.gpus
    return sum(len(teacher.endpoints) for teacher in (config.teacher, *config.teachers)) + own_gpus(config)


def own_gpus(config: RunConfig) -> int:
    """Of this machine, by servers that we start."""
    ours = [teacher for teacher in (config.teacher, *config.teachers) if not teacher.endpoints]
    return sum(num_gpus(teacher.extra_args) for teacher in ours) if ours and vllm_build() == "gpu" else 0


def num_gpus(command: Sequence[str]) -> int:
    """That a server with these arguments uses, if it runs on GPUs; what vLLM will not understand counts as one."""
    sizes = [last_flag(command, *names) or "1" for names in PARALLEL_FLAGS]
    return math.prod(int(size) if size.isdecimal() else 1 for size in sizes)


def last_flag(command: Sequence[str], *names: str) -> str | None:
    """The value that counts for a flag with these names, which is the last one given; None if none is."""
    value = None
    for word, after in zip(command, (*command[1:], ""), strict=False):  # of no words there is no next one either
        name, is_joined, joined = word.partition("=")
        if name.replace("_", "-") in names:
            value = joined if is_joined else after
    return value


def money_per_s(cost: CostConfig, gpus: float) -> float:
    """Of what is reserved, busy or not, and of the power that `cost.watts` states."""
    rent = gpus * (cost.gpu_hour_price or 0.0) + (cost.machine_hour_price or 0.0)
    return rent / _HOUR_S + (cost.watts or 0.0) * (cost.kwh_price or 0.0) / _KWH_WS
