"""A student that was exported to ONNX at work: texts in, labels or spans out, with onnxruntime and tokenizers. Loads neither torch nor
transformers.

It reads what `student.export` writes: `config.json` for the labels and the padding, `tokenizer.json` and `tokenizer_config.json` for the
words and where texts are cut, and one of the graphs in `onnx/`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, log_softmax
from tokenizers import Tokenizer

from engine.errors import UserError
from engine.records import TaskKind
from engine.text import readable
from student.bio import places_of, span_types
from student.predictions import (
    AnyPredictions,
    Predictions,
    SetPredictions,
    SpanPredictions,
    answers,
    batches_by_length,
    kind_in,
    pad,
    thresholds_in,
)

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ONNX_FILES = {"onnx": "onnx/model.onnx", "onnx-int8": "onnx/model_int8.onnx"}
"""Where an exported folder holds them, by backend; the names are those that other tools look for."""
_UNLIMITED = 2**31 - 1
"""Tokenizers that know no limit name an astronomic one."""
INSTALL = "pip install 'reflux[onnx]'"


@dataclass(frozen=True, slots=True)
class OnnxPredictor:
    """A `TextPredictor`."""

    session: InferenceSession
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    max_length: int
    padding: int
    filler: int
    """What stands for a text of no token at all: a network wants one to read."""
    kind: TaskKind = "classification"
    outputs: tuple[str, ...] = ()
    """Tags, where it marks spans; none where it gives a text one, or any number, of `labels`."""
    thresholds: tuple[float, ...] = ()
    """Of each label the probability from which on it is said, where a text may have several."""

    @classmethod
    def load(cls, folder: Path, backend: str = "onnx", threads: int = 0) -> Self:
        """UserError if the folder holds no such student. `threads` 0: one a core."""
        file = folder / ONNX_FILES[backend]
        if not file.is_file():
            option = " --int8" if backend == "onnx-int8" else ""
            raise UserError(f"{folder} has no {ONNX_FILES[backend]}; write one with `reflux export-student {folder} DIR --onnx{option}`")
        config, settings = _read_json(folder / "config.json"), _read_json(folder / "tokenizer_config.json")
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the Rust library raises nothing more precise
            raise UserError(f"{folder} holds no tokenizer.json that can be read: {error}") from None
        max_length = min(int(settings.get("model_max_length", _UNLIMITED)), _UNLIMITED)
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
        labels = tuple(name for _, name in sorted((int(index), name) for index, name in config["id2label"].items()))
        outputs: tuple[str, ...] = ()
        kind = kind_in(config)
        if kind == "ner":
            labels, outputs = _types(labels, folder), labels
        unknown = settings.get("unk_token")
        filler = tokenizer.token_to_id(unknown) if isinstance(unknown, str) else None
        thresholds = thresholds_in(config, len(labels)) if kind == "multi_label" else ()
        padding = config.get("pad_token_id") or 0
        return cls(_open_session(file, threads), tokenizer, labels, max_length, padding, filler or 0, kind, outputs, thresholds)

    def predict_texts(self, texts: Sequence[str], batch_size: int = 64) -> AnyPredictions:
        """In the order of the texts."""
        # The fast way does not say where tokens stand.
        encode = self.tokenizer.encode_batch if self.kind == "ner" else self.tokenizer.encode_batch_fast
        encodings = encode([readable(text) for text in texts])
        tokens = [encoding.ids or [self.filler] for encoding in encodings]
        num_cut = sum(bool(encoding.overflowing) for encoding in encodings)
        predicted = self.log_probabilities(tokens, batch_size)
        if self.kind == "multi_label":
            return SetPredictions(self.labels, predicted, self.thresholds, num_cut)
        if self.kind == "classification":
            return Predictions(self.labels, predicted, num_cut)
        places = (places_of(text, encoding.offsets or [(0, 0)]) for text, encoding in zip(texts, encodings, strict=True))
        return SpanPredictions(self.labels, predicted, tuple(places), num_cut)

    def log_probabilities(self, tokens: Sequence[Sequence[int]], batch_size: int = 64) -> NDArray[np.float64]:
        """Of rows that are tokens already, in their order; of each token where it marks spans."""
        lengths = [len(row) for row in tokens]
        ends = np.cumsum([0, *(lengths if self.kind == "ner" else [1] * len(tokens))])
        result = np.empty((ends[-1], len(self.outputs or self.labels)))
        for batch in batches_by_length(lengths, batch_size):
            outputs: Any = self.session.run(["logits"], pad([tokens[row] for row in batch], self.padding))
            places = np.concatenate([np.arange(ends[row], ends[row + 1]) for row in batch])
            logits = answers(outputs[0].astype(np.float64), [lengths[row] for row in batch])
            result[places] = log_expit(logits) if self.kind == "multi_label" else log_softmax(logits, axis=1)
        return result


def _open_session(file: Path, threads: int) -> InferenceSession:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise UserError(f"the ONNX backends need onnxruntime, which is not installed; {INSTALL}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base but this one
        raise UserError(f"{file} is no graph that onnxruntime can read: {str(error).splitlines()[0]}") from None


def _types(tags: Sequence[str], folder: Path) -> tuple[str, ...]:
    try:
        return span_types(tags)
    except ValueError as error:
        raise UserError(f"{folder} is no student: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a folder that `reflux export-student` wrote") from None
    except ValueError:
        raise UserError(f"{path} is no JSON; give a folder that `reflux export-student` wrote") from None
