"""What can compute a student, by name. Loads a backend's libraries only when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from student.predictions import TextPredictor

Backend: TypeAlias = Literal["torch", "onnx", "onnx-int8"]


def load_predictor(folder: Path, backend: Backend = "torch") -> TextPredictor:
    """UserError if the folder holds no student for this backend, or its library is not installed."""
    if backend == "torch":
        from student.predictor import Predictor

        return Predictor.load(folder)
    from student.onnx_predictor import OnnxPredictor

    return OnnxPredictor.load(folder, backend)
