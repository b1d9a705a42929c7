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
from engine.records import ONE_LABEL, TaskKind
from engine.text import Content, parts, readable
from student.bio import places_of, span_types
from student.predictions import (
    AnyPredictions,
    Predictions,
    SetPredictions,
    SpanPredictions,
    answers,
    batches_by_length,
    check_contents,
    kind_in,
    pad,
    tells_apart,
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
    tells_apart: bool = False
    """Whether the graph is told which tokens are of which text of a pair."""

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
        session, told = _open_session(file, threads), kind == "pair" and tells_apart(config)
        return cls(session, tokenizer, labels, max_length, padding, filler or 0, kind, outputs, thresholds, told)

    def predict_texts(self, texts: Sequence[Content], batch_size: int = 64) -> AnyPredictions:
        """In the order of the texts, or of the pairs."""
        check_contents(texts, self.kind)
        # The fast way does not say where tokens stand.
        encode = self.tokenizer.encode_batch if self.kind == "ner" else self.tokenizer.encode_batch_fast
        encodings = encode([readable(text) if isinstance(text, str) else (readable(text[0]), readable(text[1])) for text in texts])
        tokens = [encoding.ids or [self.filler] for encoding in encodings]
        num_cut = sum(bool(encoding.overflowing) for encoding in encodings)
        firsts = [encoding.type_ids.count(0) for encoding in encodings] if self.tells_apart else None
        predicted = self.log_probabilities(tokens, batch_size, firsts)
        if self.kind == "multi_label":
            return SetPredictions(self.labels, predicted, self.thresholds, num_cut)
        if self.kind in ONE_LABEL:
            return Predictions(self.labels, predicted, num_cut)
        places = (places_of(parts(text)[0], encoding.offsets or [(0, 0)]) for text, encoding in zip(texts, encodings, strict=True))
        return SpanPredictions(self.labels, predicted, tuple(places), num_cut)

    def log_probabilities(
        self, tokens: Sequence[Sequence[int]], batch_size: int = 64, firsts: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """Of rows that are tokens already, in their order; of each token where it marks spans. `firsts` as of `pad`."""
        lengths = [len(row) for row in tokens]
        ends = np.cumsum([0, *(lengths if self.kind == "ner" else [1] * len(tokens))])
        result = np.empty((ends[-1], len(self.outputs or self.labels)))
        for batch in batches_by_length(lengths, batch_size):
            inputs = pad([tokens[row] for row in batch], self.padding, None if firsts is None else [firsts[row] for row in batch])
            outputs: Any = self.session.run(["logits"], inputs)
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
