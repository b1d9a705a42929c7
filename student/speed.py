"""How fast a student predicts, from texts to labels, in each way that this machine can compute it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

import torch

from student.export import MIN_SAME_LABELS, Format, export_student
from student.hardware import Hardware, Precision
from student.model import num_positions
from student.onnx_predictor import OnnxPredictor
from student.predictions import TextPredictor
from student.predictor import Predictor

GRAPHS: Mapping[str, Format] = {"onnx float32 cpu": "onnx", "onnx int8 cpu": "onnx-int8"}
LONGEST = 8192
"""Some encoders set no bound."""


def ignore(_text: str) -> None:
    """For notices nobody reads."""


class Timed(NamedTuple):
    seconds: tuple[float, ...]
    """Of each batch."""
    cut_share: float
    """Of all texts."""


@contextmanager
def open_ways(
    student: Path, texts: Sequence[str], max_length: int | None = None, on_notice: Callable[[str], None] = ignore
) -> Generator[Mapping[str, TextPredictor]]:
    """By name, e.g. `torch bfloat16 cuda` and `onnx int8 cpu`. The graphs are written to a folder that goes with the block, and
    compared with the student on `texts`; `on_notice` is told where that of rounded weights would not be exported.

    `max_length`: tokens that are read of a text, where that is not the student's own choice.
    """
    with tempfile.TemporaryDirectory(prefix="reflux-speed-") as folder:
        ways: dict[str, TextPredictor] = {}
        for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
            for precision in get_args(Precision):
                predictor = Predictor.load(student, Hardware(torch.device(device), precision))
                if max_length is not None:
                    predictor.student.tokenizer.model_max_length = max_length
                ways[f"torch {precision} {device}"] = predictor
        exported = Path(folder) / "student"
        graphs = export_student(student, exported, list(GRAPHS.values()), texts, is_measured=True).graphs
        for (name, graph), found in zip(GRAPHS.items(), graphs, strict=True):
            if found.same_labels < MIN_SAME_LABELS[graph]:
                on_notice(
                    f"{name} says the same as the student on {found.same_labels:.1%} of {found.num_rows} rows; `reflux export-student` "
                    f"refuses it below {MIN_SAME_LABELS[graph]:.0%}"
                )
            onnx = OnnxPredictor.load(exported, graph)
            if max_length is not None:
                onnx.tokenizer.enable_truncation(max_length)
                onnx = replace(onnx, max_length=max_length)
            ways[name] = onnx
        yield ways


def longest(student: Path) -> int:
    """Tokens that the encoder can read, whatever the student was taught to."""
    predictor = Predictor.load(student, Hardware(torch.device("cpu"), "float32"))
    return max(predictor.max_length, min(num_positions(predictor.student.model), LONGEST))


def time_ways(ways: Mapping[str, TextPredictor], batches: Sequence[Sequence[str]]) -> dict[str, Timed]:
    """The ways take turns, batch by batch, so that a busy minute is everybody's. The first batch warms up, and does not count if there are
    others.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cut: dict[str, int] = dict.fromkeys(ways, 0)
    for batch in batches:
        for name, way in ways.items():
            began = time.perf_counter()
            predicted = way.predict_texts(batch, len(batch))
            seconds[name].append(time.perf_counter() - began)
            cut[name] += predicted.num_cut
    total = sum(map(len, batches))
    return {name: Timed(tuple(taken[1:] or taken), cut[name] / total) for name, taken in seconds.items()}
