"""The student as a network: a Hugging Face encoder with a head, made new or loaded.

Invariants: what is saved loads with plain `from_pretrained` of the head's class in transformers; only safetensors are read; code that comes
with a model is never run; a new student is the same for the same seed.

Two things make a student of few rows a better one, both only by the values it starts with:
- An output layer with a learning rate of its own starts at zero, so that training begins from no opinion instead of a random one. At the
  encoder's rate, which is far smaller, it would hardly leave zero, so there it starts as transformers makes it.
- A sentence encoder trained with mean pooling (such as MiniLM) puts what it knows into the mean over the tokens, while BERT's classifier
  reads the first token only. For such an encoder one more transformer layer is added that starts as exactly this mean (see
  `_start_as_mean`). Measured in docs/design.md.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import huggingface_hub.utils.logging as hub_logging
import torch
import transformers.utils.logging as transformers_logging
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.bert.modeling_bert import BertForSequenceClassification, BertLayer
from transformers.utils.hub import cached_file

from engine.config import StudentConfig
from engine.errors import UserError
from engine.records import TaskKind
from student.encoder import check_encoder, encoder_source
from student.heads import HEADS, Head
from student.predictions import READS_PAIRS, SEVERAL_LABELS, kind_in, tells_apart, thresholds_in

MEAN_WEIGHT = 8.0
"""How much the mean outweighs the first token where the added layer sums the two."""
POOLER_SCALE = 0.5
"""The pooler starts as this multiple of its input, which has variance 1: most of it on the straight part of tanh."""


@dataclass(frozen=True, slots=True)
class Student:
    """A network with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    """The task's: classes of texts, or types of entities."""
    head: Head = field(default=HEADS["classification"])

    @property
    def outputs(self) -> tuple[str, ...]:
        """Output i is the logit of `outputs[i]`: a label, or a tag."""
        return self.head.outputs(self.labels)

    @property
    def kind(self) -> TaskKind:
        return self.head.kind

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Of each label, the probability from which on it is said; () where a text gets its most probable one, or spans."""
        return thresholds_in(self.model.config.to_dict(), len(self.labels)) if self.kind == "multi_label" else ()

    @property
    def tells_apart(self) -> bool:
        """Whether it reads pairs, and is told which tokens are of which text."""
        return self.kind == "pair" and tells_apart(self.model.config.to_dict())

    @property
    def max_length(self) -> int:
        """Tokens of a text that it reads."""
        return self.tokenizer.model_max_length

    @property
    def padding(self) -> int:
        """Id of the token that fills a batch up; masked, so that any will do where there is none."""
        token = self.tokenizer.pad_token_id
        return token if isinstance(token, int) else 0

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def head_parameters(self) -> list[nn.Parameter]:
        """What classifies; the rest is the encoder."""
        encoder = {id(parameter) for parameter in self.model.base_model.parameters()}
        return [parameter for parameter in self.model.parameters() if id(parameter) not in encoder]


def new_student(config: StudentConfig, labels: Sequence[str], seed: int, kind: TaskKind = "classification") -> Student:
    """A student that knows the language, and nothing of the task. UserError if the encoder cannot be had."""
    check_encoder(config)
    head = HEADS[kind]
    outputs = head.outputs(labels)
    source = encoder_source(config.encoder)
    revision = config.revision
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model_config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
            is_mean_pooled = head.reads_first_token and model_config.model_type == "bert" and _is_mean_pooled(source, revision)
            model_config.num_labels = len(outputs)
            model_config.id2label = dict(enumerate(outputs))
            model_config.label2id = {output: index for index, output in enumerate(outputs)}
            model_config.problem_type = SEVERAL_LABELS if kind == "multi_label" else None
            if kind == "pair":
                setattr(model_config, READS_PAIRS, True)
            model_config.num_hidden_layers += int(is_mean_pooled)
            model, loading = head.auto_model.from_pretrained(
                source,
                config=model_config,
                revision=revision,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # the head of another task
                dtype=torch.float32,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"student.encoder: {source} cannot be loaded: {_first_line(error)}") from None
    _require_weights(source, model, loading["missing_keys"], model_config.num_hidden_layers - int(is_mean_pooled))
    if is_mean_pooled:
        _start_as_mean(cast(BertForSequenceClassification, model))
    if config.head_learning_rate is not None:
        _start_undecided(model, len(outputs))
    tokenizer.model_max_length = min(config.max_length, tokenizer.model_max_length, num_positions(model))
    _align(model)
    student = Student(model, tokenizer, tuple(labels), head)
    _require_places(student, source)
    return student


def load_student(folder: Path) -> Student:
    """A student that was saved; UserError if the folder holds none."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no student (it has no config.json); give the folder of one, e.g. runs/quickstart/student/final")
    try:
        with _quiet():
            head = HEADS[kind_in(AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict())]
            model, loading = head.auto_model.from_pretrained(
                folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder} is no student: {_first_line(error)}") from None
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise UserError(f"{folder} is no student: its weights lack {', '.join(missing[:3])}; give a model trained for classification")
    outputs = tuple(model.config.id2label[index] for index in range(model.config.num_labels))
    try:
        labels = head.labels(outputs)
    except ValueError as error:
        raise UserError(f"{folder} is no student: {error}") from None
    _align(model)
    student = Student(model, tokenizer, labels, head)
    _require_places(student, str(folder))
    return student


def save_student(student: Student, folder: Path) -> None:
    if student.tells_apart:
        # Tokenizers of no model's own class do not hand on the types of tokens unless told so, and a pipeline of transformers would say
        # something else than the student.
        names = [*dict.fromkeys((*student.tokenizer.model_input_names, "token_type_ids"))]
        student.tokenizer.init_kwargs["model_input_names"] = student.tokenizer.model_input_names = names
    with _quiet():
        student.model.save_pretrained(folder)
        student.tokenizer.save_pretrained(folder)


def _require_places(student: Student, source: str) -> None:
    if student.kind == "ner" and not student.tokenizer.is_fast:
        raise UserError(
            f"{source} has a tokenizer that does not say where its tokens stand in the text, which marking spans needs; "
            "give an encoder with a tokenizer.json"
        )


@torch.no_grad()
def _align(model: PreTrainedModel) -> None:
    """Give weights that lie as they do in a file the places that PyTorch would: sums over what lies otherwise differ in the last bit, and a
    student that was saved and loaded must say what it would have said.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


@contextmanager
def _quiet() -> Generator[None]:
    """No progress bars, and no warnings about the new head, from libraries whose settings are the caller's to keep."""
    verbosity, hub_verbosity = transformers_logging.get_verbosity(), hub_logging.get_verbosity()
    shows_progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if shows_progress:
            transformers_logging.enable_progress_bar()


def _is_mean_pooled(source: str, revision: str | None) -> bool:
    """Whether a sentence-transformers model says so of itself."""
    path = cached_file(
        source,
        "1_Pooling/config.json",
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    if path is None:
        return False
    content: dict[str, object] = json.loads(Path(path).read_bytes())
    return content.get("pooling_mode_mean_tokens") is True


@torch.no_grad()
def _start_as_mean(model: BertForSequenceClassification) -> None:
    """Make the last layer, and the pooler behind it, pass on the mean over the tokens.

    Queries and keys of zero attend to all tokens alike, so the first token receives the mean (times MEAN_WEIGHT) and, by the residual
    connection, itself; the feed-forward part adds zero. From there on it is trained like any layer, but attends to all tokens for good:
    where queries and keys are both zero, neither gets a gradient.
    """
    layer = cast(BertLayer, model.bert.encoder.layer[-1])
    pooler = cast(Any, model.bert.pooler).dense
    attention = layer.attention
    for linear in (attention.self.query, attention.self.key, layer.output.dense):
        _set_linear(linear, 0.0)
    _set_linear(attention.self.value, MEAN_WEIGHT)
    _set_linear(attention.output.dense, 1.0)
    for norm in (attention.output.LayerNorm, layer.output.LayerNorm):
        norm.weight.fill_(1.0)
        norm.bias.zero_()
    _set_linear(pooler, POOLER_SCALE)


def _set_linear(linear: nn.Linear, scale: float) -> None:
    nn.init.eye_(linear.weight)
    linear.weight.mul_(scale)
    linear.bias.zero_()


@torch.no_grad()
def _start_undecided(model: PreTrainedModel, num_labels: int) -> None:
    output = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == num_labels][-1]
    output.weight.zero_()
    if output.bias is not None:  # pyright: ignore[reportUnnecessaryComparison] -- declared Tensor, None under `bias=False`
        output.bias.zero_()


def _require_weights(source: str, model: PreTrainedModel, missing: Sequence[str], num_layers: int) -> None:
    """The head, BERT's pooler and the added layer may be new. Anything else must have been in the file."""
    base = f"{model.base_model_prefix}."
    added = f"{base}encoder.layer.{num_layers}."
    absent = sorted(key for key in missing if key.startswith(base) and not key.startswith((added, f"{base}pooler.")))
    if absent:
        raise UserError(
            f"student.encoder: the weights in {source} are not those of its config.json: {len(absent)} are missing, "
            f"such as {absent[0]}; give a complete encoder"
        )


def num_positions(model: PreTrainedModel) -> int:
    """Tokens that the network has places for."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return 2**31 - 1
    # RoBERTa counts from behind its padding token.
    table = next((module for name, module in model.named_modules() if name.endswith("embeddings.position_embeddings")), None)
    padding = getattr(table, "padding_idx", None)
    return positions if padding is None else positions - padding - 1


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
