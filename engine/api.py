"""Reflux from a script or a notebook: the same work that the commands do, as plain calls.

Each checks what it is given before it writes or starts anything, tells its progress on standard error unless told whom to tell, and, when
it was stopped, goes on where it was with the same call. A RefluxError says what is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import msgspec
import uvloop
from rich.console import Console

from engine.bulk import BulkSummary, check_method, generate_rows
from engine.config import (
    DataConfig,
    LabelConfig,
    PgkdConfig,
    RunConfig,
    StrategyConfig,
    StudentConfig,
    TaskConfig,
    TeacherConfig,
    change_config,
    load_config,
)
from engine.errors import UserError
from engine.labels.label_codes import label_codes
from engine.loop import run_loop
from engine.pool_labels import PoolSummary, label_pool
from engine.progress import Progress
from engine.records import Example, TaskKind, TaskSpec
from engine.rehearsal import check_prompts
from engine.rundir import RunDir, write_atomically
from engine.runs.manifest import ignore
from engine.runs.purpose import refuse_other_purpose
from engine.runs.summary import Summary
from engine.server.launch import check_model, choose_port
from engine.student_process import WORKER
from engine.task.task import load_task
from engine.teacher.discovery import find_models
from engine.teacher.endpoint import configured_endpoints
from engine.views.console import console_progress

T = TypeVar("T")


def make_config(
    task: TaskSpec,
    teacher: TeacherConfig,
    folder: Path | str,
    *,
    strategy: StrategyConfig | None = None,
    student: StudentConfig | None = None,
    settings: Mapping[str, Any] | None = None,
) -> RunConfig:
    """The configuration of a task that was made in Python. Its rows are written to `folder`, where student and later processes read them.

    `settings`: dotted keys of any other section (`{"sampling.temperature": 0.7}`). UserError for a task that marks spans: those have files.
    """
    if task.kind == "ner":
        raise UserError(f"rows of a task of kind {task.kind!r} are read from files; write a TOML file for it")
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    parts = (("seed", task.seed), ("validation", task.validation), ("test", task.test))
    seed, validation, test = (_write_rows(folder / f"{name}.jsonl", rows, task.kind) for name, rows in parts)
    labels = tuple(LabelConfig(name=label.name, description=label.description) for label in task.labels)
    config = RunConfig(
        name=folder.name,
        task=TaskConfig(
            kind=task.kind,
            domain=task.domain,
            labels=labels,
            data=DataConfig(seed=seed, validation=validation, test=test),
            allow_none=task.allow_none,
        ),
        teacher=teacher,
        strategy=strategy or PgkdConfig(),
        student=student or StudentConfig(),
    )
    return change_config(config, settings or {})


def distil(task: RunConfig | Path | str, out: Path | str, *, progress: Progress | None = None, **settings: Any) -> Summary:
    """Teach a student, as `reflux run` does; it lies in `out/student/final` then.

    `task`: a configuration, or the TOML file of one. `settings`: keys of the run's sections as `strategy={"rounds": 2}`.
    """
    config, run = _config(task, settings), RunDir(Path(out))
    refuse_other_purpose(run)
    spec = prepare(config)
    with _telling(progress) as told:
        return run_to_end(run_loop(config, spec, run, told, WORKER))


def generate(task: RunConfig | Path | str, rows: int, out: Path | str, *, progress: Progress | None = None, **settings: Any) -> BulkSummary:
    """Have the teacher write so many rows, as `reflux generate` does; `engine.read_samples(engine.open_run(out))` are they."""
    config = _config(task, settings)
    check_method(config)
    spec = prepare(config)
    with _telling(progress) as told:
        return run_to_end(generate_rows(config, spec, RunDir(Path(out)), rows, told))


def label(
    task: RunConfig | Path | str, pool: Path | str, file: Path | str, out: Path | str, *, progress: Progress | None = None, **settings: Any
) -> PoolSummary:
    """Have the teacher label every text of `pool` into `file`, as `reflux label` does; `out` is the run's directory."""
    how = {"strategy": {"type": "pool", "pick": "random"}, "task.data.pool": str(Path(pool).absolute())}
    config = change_config(_config(task, {}), {**how, **_dotted(settings)})
    spec = prepare(config)
    with _telling(progress) as told:
        return run_to_end(label_pool(config, spec, RunDir(Path(out)), Path(file), told))


def prepare(config: RunConfig, on_notice: Callable[[str], None] = ignore) -> TaskSpec:
    """The task's rows, when they, the prompts and the teachers have been found in order. Writes and starts nothing."""
    task = load_task(config.task, config.seed)
    check_prompts(config, task)
    for teacher in (config.teacher, *config.teachers):
        check_teacher(teacher, on_notice)
    if config.labelling.soft:
        label_codes(len(task.labels), config.labelling.top_logprobs)
    return task


def check_teacher(config: TeacherConfig, on_notice: Callable[[str], None] = ignore) -> None:
    """Whether the folder of a model is complete, and its port free; or whether a server answers, and serves this model."""
    if endpoints := configured_endpoints(config):
        run_to_end(find_models(endpoints, on_notice))
    else:
        check_model(config)
        choose_port(config.port)


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, on uvloop as of a command. Where an event loop runs already, as in a notebook, it gets one of its own in a
    thread; interrupting the caller stops it there, and waits until it has cleaned up.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return uvloop.run(work)
    started: Future[Callable[[], None]] = Future()
    done: Future[T] = Future()

    async def cancellable() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        started.set_result(lambda: loop.call_soon_threadsafe(task.cancel) and None)
        return await work

    def run() -> None:
        try:
            done.set_result(uvloop.run(cancellable()))
        except BaseException as error:
            done.set_exception(error)

    # No executor: interrupted while it starts its thread, it would not know of it, and not wait for it.
    try:
        Thread(target=run, name="reflux").start()
        return done.result()
    except KeyboardInterrupt:
        started.result()()
        wait([done])
        raise


def _config(task: RunConfig | Path | str, settings: Mapping[str, Any]) -> RunConfig:
    config = task if isinstance(task, RunConfig) else load_config(Path(task))
    return change_config(config, _dotted(settings)) if settings else config


def _dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`{"strategy": {"rounds": 2}}` changes a section's key, and `{"strategy": {"type": …}}` takes another method with its defaults."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and "type" not in value:
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


@contextmanager
def _telling(progress: Progress | None) -> Generator[Progress]:
    if progress is not None:
        yield progress
        return
    with console_progress(Console(stderr=True)) as told:
        yield told


def _write_rows(path: Path, rows: tuple[Example, ...], kind: TaskKind) -> Path:
    is_set = kind == "multi_label"
    lines = [
        {
            "text": row.text,
            **({"text_pair": row.text_pair} if row.text_pair is not None else {}),
            **({"labels": row.labels} if is_set else {"label": row.label}),
        }
        for row in rows
    ]
    write_atomically(path, msgspec.json.Encoder().encode_lines(lines))
    return path
