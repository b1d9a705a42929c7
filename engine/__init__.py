"""The engine asks the teacher, and turns its answers into rows in tables. It knows nothing of torch.

`distil`, `generate` and `label` do what the commands do (see `engine.api`, and examples/python_api.py). The other names are what they are
made of, and what they leave behind. Importing this package is instant: a name loads its module when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Nothing else here: `python -m engine.machine.preflight` runs with any Python, before anything is installed.
if TYPE_CHECKING:
    from engine.api import check_teacher, distil, generate, label, make_config, prepare
    from engine.bulk import BulkSummary
    from engine.config import RunConfig, StudentConfig, TeacherConfig, load_config
    from engine.errors import MachineError, RefluxError, UserError
    from engine.pool_labels import PoolSummary
    from engine.progress import Progress, Silent
    from engine.prompting import open_prompter
    from engine.records import Example, Label, Rejection, Sample, Span, TaskSpec
    from engine.rundir import RunDir, open_run
    from engine.runs.summary import Summary
    from engine.store import Store, read_calls, read_rejections, read_rounds, read_samples, run_query
    from engine.strategies import STRATEGIES, Strategy, make_strategy
    from engine.task.task import load_task
    from engine.teacher.teacher import HttpTeacher, Teacher

_NAMES = {
    "engine.api": ("check_teacher", "distil", "generate", "label", "make_config", "prepare"),
    "engine.bulk": ("BulkSummary",),
    "engine.config": ("RunConfig", "StudentConfig", "TeacherConfig", "load_config"),
    "engine.errors": ("MachineError", "RefluxError", "UserError"),
    "engine.pool_labels": ("PoolSummary",),
    "engine.progress": ("Progress", "Silent"),
    "engine.prompting": ("open_prompter",),
    "engine.records": ("Example", "Label", "Rejection", "Sample", "Span", "TaskSpec"),
    "engine.rundir": ("RunDir", "open_run"),
    "engine.store": ("Store", "read_calls", "read_rejections", "read_rounds", "read_samples", "run_query"),
    "engine.strategies": ("STRATEGIES", "Strategy", "make_strategy"),
    "engine.runs.summary": ("Summary",),
    "engine.task.task": ("load_task",),
    "engine.teacher.teacher": ("HttpTeacher", "Teacher"),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}

__all__ = [
    "STRATEGIES", "BulkSummary", "Example", "HttpTeacher", "Label", "MachineError", "PoolSummary", "Progress", "RefluxError", "Rejection",
    "RunConfig", "RunDir", "Sample", "Silent", "Span", "Store", "Strategy", "StudentConfig", "Summary", "TaskSpec", "Teacher",
    "TeacherConfig", "UserError", "check_teacher", "distil", "generate", "label", "load_config", "load_task", "make_config",
    "make_strategy", "open_prompter", "open_run", "prepare", "read_calls", "read_rejections", "read_rounds", "read_samples", "run_query",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
