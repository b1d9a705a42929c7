from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest

from engine.config import TeacherConfig
from engine.errors import PreflightError, UserError
from engine.machine import gpu
from engine.machine.processor import INTEL, Processor
from engine.server.launch import Device, check_gpus, check_model, choose_port, plan_launch
from tests.engine.servers import fake_smi, make_model, make_weights


def problem(folder: Path, *extra_args: str) -> str:
    with pytest.raises(UserError) as caught:
        check_model(TeacherConfig(model=str(folder), extra_args=extra_args))
    return str(caught.value)


def flags(command: tuple[str, ...]) -> dict[str, str]:
    """Each flag with the word after it."""
    return {word: after for word, after in zip(command, (*command[1:], ""), strict=True) if word.startswith("--")}


def test_a_server_on_the_processor() -> None:
    launch = plan_launch(TeacherConfig(model="/models/tiny", kv_cache_gib=0.5, max_model_len=512), device="cpu", port=8001)
    given = flags(launch.command)
    assert given["--model"] == "/models/tiny"
    assert given["--served-model-name"] == launch.served_name == "tiny"
    assert given["--host"] == "127.0.0.1"
    assert given["--port"] == "8001"
    assert given["--max-model-len"] == "512"
    assert given["--kv-cache-memory-bytes"] == str(2**29)
    assert "--enforce-eager" in given
    assert "--enable-prefix-caching" in given
    assert "--gpu-memory-utilization" not in given
    assert launch.base_url == "http://127.0.0.1:8001/v1"
    assert launch.environment["HF_HUB_OFFLINE"] == "1"
    assert launch.environment["VLLM_NO_USAGE_STATS"] == launch.environment["DO_NOT_TRACK"] == "1"


def test_a_server_on_a_gpu() -> None:
    launch = plan_launch(TeacherConfig(model="org/model", gpu_memory_fraction=0.4, eager=False), device="gpu", port=8001)
    given = flags(launch.command)
    assert given["--gpu-memory-utilization"] == "0.4"
    assert given["--served-model-name"] == "org/model"
    assert not {"--kv-cache-memory-bytes", "--enforce-eager", "--max-model-len"} & set(given)
    assert "HF_HUB_OFFLINE" not in launch.environment


def test_a_small_model_is_computed_in_float32_where_bfloat16_does_not_pay(tmp_path: Path) -> None:
    model = TeacherConfig(model=str(make_model(tmp_path / "small")))
    avx2, amx = Processor("AuthenticAMD", frozenset({"avx2"})), Processor(INTEL, frozenset({"avx2", "amx_bf16"}))
    assert plan_launch(model, device="cpu", port=1, processor=avx2).flag("--dtype") == "float32"
    assert plan_launch(model, device="cpu", port=1, processor=amx).flag("--dtype") is None
    assert plan_launch(model, device="gpu", port=1, processor=avx2).flag("--dtype") is None
    assert plan_launch(TeacherConfig(model="org/huge"), device="cpu", port=1, processor=avx2).flag("--dtype") is None
    own = model.model_copy(update={"extra_args": ("--dtype", "bfloat16")})
    assert plan_launch(own, device="cpu", port=1, processor=avx2).flag("--dtype") == "bfloat16"


def test_how_many_replies_are_written_at_once() -> None:
    """vLLM's own choice on a GPU follows its memory."""
    default, chosen = TeacherConfig(model="org/model"), TeacherConfig(model="org/model", max_num_seqs=7)
    assert plan_launch(default, device="cpu", port=1).flag("--max-num-seqs") == "256"
    assert plan_launch(default, device="gpu", port=1).flag("--max-num-seqs") is None
    assert plan_launch(chosen, device="cpu", port=1).flag("--max-num-seqs") == "7"
    assert plan_launch(chosen, device="gpu", port=1).flag("--max-num-seqs") == "7"


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_nothing_switches_the_counters_off(device: Device) -> None:
    assert plan_launch(TeacherConfig(model="org/model"), device=device, port=1).flag("--disable-log-stats") is None


@pytest.mark.parametrize("given", [("-tp", "2"), ("--tensor-parallel-size=2",), ("--tensor_parallel_size", "2"), ("-tp", "4", "-tp=2")])
def test_the_last_flag_given_counts_however_it_is_written(given: tuple[str, ...]) -> None:
    launch = plan_launch(TeacherConfig(model="org/model", extra_args=given), device="gpu", port=1)
    assert launch.flag("--tensor-parallel-size", "-tp") == "2"
    assert launch.flag("--pipeline-parallel-size", "-pp") is None


def test_the_users_own_arguments_come_last() -> None:
    config = TeacherConfig(model="org/model", extra_args=("--max-num-seqs", "8"))
    assert plan_launch(config, device="cpu", port=1).command[-2:] == ("--max-num-seqs", "8")


def test_the_environment_gets_the_key_and_loses_what_would_overrule_a_flag() -> None:
    launch = plan_launch(TeacherConfig(model="org/model"), device="cpu", port=1)
    environment = launch.full_environment({"PATH": "/bin", "VLLM_CPU_KVCACHE_SPACE": "40"}, "secret")
    assert environment == {"PATH": "/bin", "VLLM_API_KEY": "secret", **launch.environment}
    assert "secret" not in repr(launch)


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=rf"teacher\.port: cannot use port {port} on 127\.0\.0\.1: Address already in use"):
            choose_port(port)
    assert choose_port(port) == port


def test_a_port_shared_by_another_vllm_is_in_use_too() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listener, pytest.raises(UserError):
        choose_port(listener.getsockname()[1])


def test_without_a_port_a_free_one_is_taken() -> None:
    port = choose_port(None)
    socket.create_server(("127.0.0.1", port)).close()


def check(*extra_args: str, device: Device = "gpu", visible: str | None = None, order: str | None = None) -> None:
    launch = plan_launch(TeacherConfig(model="org/model", extra_args=extra_args), device=device, port=1)
    given = {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": order}
    check_gpus(launch, {name: value for name, value in given.items() if value is not None})


def refusal(*extra_args: str, visible: str | None = None, order: str | None = None) -> str:
    with pytest.raises(PreflightError) as caught:
        check(*extra_args, visible=visible, order=order)
    return str(caught.value)


ONE_BUSY = "0, GPU-aa, 81920, 81000, Disabled\n1, GPU-ab, 81920, 10240, Disabled"
PYTHON = (sys.executable, "-S", "-c")
HOLDER = "GPU-aa, 1, python, 500\nGPU-ab, 4242, /usr/bin/python3, 71000"


@pytest.fixture
def busy_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_smi(tmp_path / "bin", monkeypatch, gpus=ONE_BUSY, holders=HOLDER)


@pytest.mark.usefixtures("busy_second")
def test_a_busy_gpu_is_refused_with_who_holds_it_and_what_to_do() -> None:
    assert refusal(visible="1") == (
        "GPU 1 has 10.0 of 80.0 GiB free, and the teacher's server would take 56.0 GiB (teacher.gpu_memory_fraction = 0.7); "
        "the rest is held by process 4242 (/usr/bin/python3, 71000 MiB): end that, or lower teacher.gpu_memory_fraction to at most 0.12"
    )


@pytest.mark.usefixtures("busy_second")
def test_only_gpus_that_the_server_will_use_are_looked_at() -> None:
    check()
    check(device="cpu")
    check("--gpu-memory-utilization", "0.1", visible="1")
    check("-tp", "two")  # vLLM will say so
    check("-tp", "2", visible="0")
    check("-tp", "2", visible="0,7,1")  # CUDA stops at a number that is not there
    for visible in ("", "-1", "MIG-ab", "GPU-a"):  # the last fits both
        check(visible=visible)
    assert "GPU 1" in refusal("-tp", "2")
    assert "GPU 1" in refusal("--pipeline-parallel-size", "2")
    assert "GPU 1" in refusal(visible="GPU-ab")
    assert "GPU 1" in refusal(visible="1,0")


def test_nobody_may_be_seen_to_hold_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container."""
    fake_smi(tmp_path / "bin", monkeypatch, gpus=ONE_BUSY)
    assert "held by other processes: end them, or lower" in refusal(visible="1")


def test_numbers_of_unlike_gpus_are_trusted_only_in_the_order_of_the_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_smi(tmp_path / "bin", monkeypatch, gpus="0, GPU-aa, 1000, 0, Disabled\n1, GPU-ab, 2000, 0, [N/A]")
    check(visible="1")
    assert "GPU 1" in refusal(visible="1", order="PCI_BUS_ID")
    assert "GPU 1" in refusal(visible="GPU-ab")


@pytest.mark.parametrize("said", ["", "0, GPU-aa, 1000, 0, Enabled", "0, GPU-aa, [N/A], [N/A], Disabled", "No devices were found"])
def test_what_is_not_known_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    fake_smi(tmp_path / "bin", monkeypatch, gpus=said)
    check()


@pytest.mark.parametrize("program", [("/there/is/no/such/program",), ("false",), (*PYTHON, "import time; time.sleep(60)")])
def test_a_tool_that_is_missing_or_fails_or_hangs_refuses_nothing(monkeypatch: pytest.MonkeyPatch, program: tuple[str, ...]) -> None:
    monkeypatch.setattr(gpu, "TIMEOUT_S", 0.05)
    assert gpu.read_gpus(program) == []
    assert gpu.read_holders(program) == []


def test_a_complete_folder_passes(tmp_path: Path) -> None:
    check_model(TeacherConfig(model=str(make_model(tmp_path / "tiny"))))


def test_a_hub_id_is_left_to_vllm() -> None:
    check_model(TeacherConfig(model="org/model"))


def test_everything_missing_is_named_at_once(tmp_path: Path) -> None:
    said = problem(tmp_path)
    assert "config.json" in said
    assert "*.safetensors" in said
    assert "tokenizer" in said


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "is not a folder" in problem(tmp_path / "nothing")


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_config(tmp_path: Path, content: str) -> None:
    (make_model(tmp_path / "tiny") / "config.json").write_text(content)
    assert "config.json is no JSON" in problem(tmp_path / "tiny")


@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", b"", (99).to_bytes(8, "little") + b"{}"]
)
def test_weights_that_are_none(tmp_path: Path, content: bytes) -> None:
    (make_model(tmp_path / "tiny") / "model.safetensors").write_bytes(content)
    assert "model.safetensors is no safetensors file" in problem(tmp_path / "tiny")


def test_shards_named_in_the_index_must_be_there(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "tiny")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-2.safetensors named in model.safetensors.index.json is not there" in problem(folder)
    make_weights(folder / "model-2.safetensors")
    check_model(TeacherConfig(model=str(folder)))


def test_a_chat_template_is_needed_from_somewhere(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "tiny")
    (folder / "tokenizer_config.json").write_text("{}")
    assert "chat template" in problem(folder)
    check_model(TeacherConfig(model=str(folder), extra_args=("--chat-template", "x.jinja")))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    check_model(TeacherConfig(model=str(folder)))


def test_weights_and_tokenizer_from_elsewhere_are_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    check_model(TeacherConfig(model=str(tmp_path), extra_args=("--load-format=dummy", "--tokenizer", "org/model")))
