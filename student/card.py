"""The model card: what a run says of the student it hands out, as the README.md of a Hugging Face folder.

Invariants: names, descriptions and labels come from other people's files, so they stay text, in Markdown as in YAML; no text of a row is
shown, and no path of the machine.
"""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from engine.config import RunConfig, restore_config
from engine.records import Finish, RowCounts
from engine.reports import FinalReport, WeaknessReport
from engine.rundir import RunDir, read_json
from engine.runs.manifest import Manifest, teacher_revision
from engine.store import read_rounds
from engine.teacher.endpoint import served_name
from engine.views.display import inert
from student.encoder import MINILM

CARD = "README.md"
_TEMPLATE = "model_card.md.jinja"
_MINILM_ID = "sentence-transformers/all-MiniLM-L6-v2"
_MAX_CONFUSIONS = 5
_PIPELINES = {
    "classification": "text-classification",
    "multi_label": "text-classification",
    "ner": "token-classification",
    "pair": "text-classification",
}

# What means something to Markdown, or to the extensions of those who show it: $ begins a formula, :// and www. a link, @ a name.
# An underscore within a word means nothing, and is frequent in labels.
_MARKS = re.compile(r"[\\`*\[\]<>&|~#!$@{}]|:(?=//)|(?<=www)\.|(?<![^\W_])_|_(?![^\W_])", re.IGNORECASE)
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def render_card(run: RunDir, final: FinalReport, max_length: int) -> str:
    """`max_length`: tokens that the student reads."""
    manifest = read_json(run.run_json, Manifest)
    config = restore_config(manifest.config)
    finish = read_json(run.finish, Finish)
    seed_report, kept = (read_json(run.report(round), WeaknessReport) for round in (0, final.after.round))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 -- HTML's rules are not Markdown's: every value goes through `md`
    )
    environment.filters["md"] = as_markdown
    return environment.get_template(_TEMPLATE).render(
        metadata=_metadata(config, final),
        marks_spans=config.task.kind == "ner",
        has_sets=config.task.kind == "multi_label",
        reads_pairs=config.task.kind == "pair",
        name=config.name,
        domain=config.task.domain,
        encoder=_model_name(config.student.encoder),
        parameters=final.num_parameters,
        seed_rows=seed_report.num_train_rows,
        seed_rows_per_class=config.task.data.seed_rows_per_class,
        taught_rows=kept.num_train_rows - seed_report.num_train_rows,
        validation_rows=kept.scores.num_rows,
        test_rows=final.after.scores.num_rows,
        rows=sum((record.rows for record in read_rounds(run)), RowCounts()),
        leaks=manifest.leaks,
        method=config.strategy,
        finish=finish,
        final=final,
        teacher={"name": _model_name(config.teacher.model), "revision": teacher_revision(manifest) or "not known"},
        sampling=config.sampling,
        settings=config.student,
        epochs=kept.epochs,
        seed=config.seed,
        versions=manifest.versions,
        classes=sorted(final.after.classes, key=lambda score: score.f1),
        meanings={label.name: label.description for label in config.task.labels},
        confusions=final.after.confusions[:_MAX_CONFUSIONS],
        untested=[score.label for score in final.after.classes if score.support == 0],
        max_length=max_length,
    )


def as_markdown(value: object) -> str:
    """Any text as Markdown that shows it, in one line; it can neither end a table nor begin a link, an image or HTML."""
    return _MARKS.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), inert(value).plain)


def _metadata(config: RunConfig, final: FinalReport) -> str:
    """The front matter, as the hub reads it."""
    scores = final.after.scores
    task = _PIPELINES[config.task.kind]
    results = [
        EvalResult(task, config.name, f"{config.name} (test)", kind, round(value, 4), metric_name=name)
        for kind, name, value in (
            ("accuracy", "accuracy", scores.accuracy),
            ("f1", "macro F1", scores.macro_f1),
            ("f1", "weighted F1", scores.weighted_f1),
            ("f1", "micro F1", scores.micro_f1),
        )
        if value is not None
    ]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=task,
        tags=["reflux", "knowledge-distillation", "synthetic-data", config.strategy.type],
        base_model=_hub_id(config.student.encoder),
        model_name=config.name,
        eval_results=results,
    )
    return data.to_yaml()


def _hub_id(encoder: str) -> str | None:
    """None for a folder, which says nothing to others."""
    if encoder == MINILM:
        return _MINILM_ID
    return None if Path(encoder).is_absolute() else encoder


def _model_name(model: str) -> str:
    """Without the path of a folder."""
    if model == MINILM:
        return _MINILM_ID
    return served_name(model)
