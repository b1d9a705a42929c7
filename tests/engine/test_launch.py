from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from engine.config import TeacherConfig
from engine.errors import UserError
from engine.launch import check_model, choose_port, plan_launch
from tests.engine.servers import make_model, make_weights


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
