from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers.utils.logging as transformers_logging
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from engine.config import StudentConfig
from engine.errors import UserError
from student.data import tokenise
from student.hardware import choose_hardware
from student.inference import predict
from student.model import MEAN_WEIGHT, POOLER_SCALE, Student, load_student, new_student, save_student
from tests.student.builders import LABELS

TEXTS = ["the apple", "a small old saw again", "bear"]


def make_student(encoder: Path, *, seed: int = 0, **settings: Any) -> Student:
    return new_student(StudentConfig(encoder=str(encoder), **settings), LABELS, seed)


def copy_encoder(encoder: Path, folder: Path) -> Path:
    return Path(shutil.copytree(encoder, folder))


@pytest.mark.parametrize(("head_learning_rate", "is_undecided"), [(1e-2, True), (None, False)])
def test_a_head_with_its_own_learning_rate_starts_without_an_opinion(
    head_learning_rate: float | None, is_undecided: bool, encoder: Path
) -> None:
    student = make_student(encoder, head_learning_rate=head_learning_rate)
    predicted = predict(student, tokenise(student.tokenizer, TEXTS), choose_hardware("cpu", "float32"), 2)
    assert bool(abs(predicted - math.log(1 / 3)).max() < 1e-6) == is_undecided


def test_the_same_seed_makes_the_same_student(encoder: Path) -> None:
    state = torch.random.get_rng_state()
    weights = [make_student(encoder, seed=seed).model.state_dict() for seed in (0, 0)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert torch.equal(state, torch.random.get_rng_state())


def test_what_is_saved_loads_with_plain_transformers(sentence_encoder: Path, tmp_path: Path) -> None:
    student = make_student(sentence_encoder, max_length=20)
    with torch.no_grad():
        cast(Any, student.model).classifier.weight.normal_()
    save_student(student, tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    inputs = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        logits = model(**inputs).logits
    mine = predict(student, tokenise(student.tokenizer, TEXTS), choose_hardware("cpu", "float32"), 8)
    assert mine == pytest.approx(logits.double().log_softmax(-1).numpy(), abs=1e-5)
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == {label: index for index, label in enumerate(LABELS)}
    assert tokenizer.model_max_length == 20
    assert load_student(tmp_path).labels == LABELS


def test_a_mean_pooled_encoder_starts_as_its_mean(sentence_encoder: Path) -> None:
    """The added layer is compared with the mean over the tokens below it, computed by hand."""
    student = make_student(sentence_encoder)
    tokens = tokenise(student.tokenizer, TEXTS)
    ids, mask = torch.zeros(3, 8, dtype=torch.long), torch.zeros(3, 8, dtype=torch.long)
    for row, numbers in enumerate(tokens):
        ids[row, : len(numbers)] = torch.tensor(numbers)
        mask[row, : len(numbers)] = 1
    with torch.inference_mode():
        output = cast(Any, student.model).bert(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    below = output.hidden_states[-2]
    mean = (below * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    sums = MEAN_WEIGHT * mean + below[:, 0]
    expected = torch.tanh(POOLER_SCALE * torch.nn.functional.layer_norm(sums, (32,)))
    assert torch.allclose(output.pooler_output, expected, atol=1e-4)
    assert len(output.hidden_states) == 4  # the embeddings, two layers of the encoder, and the added one


def test_another_encoder_keeps_its_shape(encoder: Path) -> None:
    assert make_student(encoder).model.config.num_hidden_layers == 2


@pytest.mark.parametrize(("wanted", "limit"), [(20, 20), (60, 48)])
def test_texts_are_cut_where_the_network_ends(wanted: int, limit: int, encoder: Path) -> None:
    assert make_student(encoder, max_length=wanted).max_length == limit


def test_the_head_is_what_is_not_the_encoder(encoder: Path) -> None:
    assert sorted(tuple(parameter.shape) for parameter in make_student(encoder).head_parameters()) == [(3,), (3, 32)]


def test_the_head_of_another_task_is_replaced(encoder: Path, tmp_path: Path) -> None:
    save_student(make_student(encoder), tmp_path)
    student = new_student(StudentConfig(encoder=str(tmp_path)), ["yes", "no"], 0)
    assert student.labels == ("yes", "no")
    assert student.model.config.num_labels == 2


def test_weights_of_another_network_are_refused(encoder: Path, tmp_path: Path) -> None:
    folder = copy_encoder(encoder, tmp_path / "encoder")
    weights = {name: weight for name, weight in load_file(folder / "model.safetensors").items() if "layer.1" not in name}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"16 are missing, such as bert\.encoder\.layer\.1"):
        make_student(folder)


def test_damaged_weights_are_refused(encoder: Path, tmp_path: Path) -> None:
    folder = copy_encoder(encoder, tmp_path / "encoder")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        make_student(folder)


def test_a_folder_that_is_no_student_is_refused(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        load_student(tmp_path)
    with pytest.raises(UserError, match="its weights lack classifier"):
        load_student(encoder)
    config = json.loads((encoder / "config.json").read_text()) | {"model_type": "no such model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="is no student"):
        load_student(tmp_path)


def test_the_libraries_settings_are_left_alone(encoder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    verbosity, shows_progress = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    make_student(encoder)
    assert capfd.readouterr() == ("", "")
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == (verbosity, shows_progress)
