"""The student learns from the tables, and reports where it is weak. It never talks to the teacher.

Importing this package is instant: a name loads its module, and with it torch, when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from student.backends import load_predictor
    from student.comparison import compare_students
    from student.encoder import check_encoder
    from student.evaluation import ScoreCard
    from student.predictor import Prediction, Predictor, score_rows
    from student.worker import work

__all__ = ["Prediction", "Predictor", "ScoreCard", "check_encoder", "compare_students", "load_predictor", "score_rows", "work"]

_HOMES = {
    "Prediction": "student.predictor",
    "Predictor": "student.predictor",
    "ScoreCard": "student.evaluation",
    "check_encoder": "student.encoder",
    "compare_students": "student.comparison",
    "load_predictor": "student.backends",
    "score_rows": "student.predictor",
    "work": "student.worker",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
