"""Run directories with rows in them, as an engine and a student leave them, without either."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.config import RunConfig, dump_config
from engine.records import Finish, Rejection, RejectionReason, RoundRecord, RowCounts, Sample
from engine.rundir import RunDir, write_json
from engine.runs.manifest import Manifest
from engine.store.schemas import pack_calls, pack_evaluations, pack_prompts, pack_rejections, pack_rounds, pack_samples
from engine.store.segments import write_segment
from tests.engine.store.builders import make_call, make_evaluation, make_origin, make_request

LABELS = ("cancel", "change", "track")


def make_config(labels: Sequence[str] = LABELS, **task: Any) -> RunConfig:
    data = {"seed": "seed.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"}
    return RunConfig.model_validate(
        {
            "name": "tickets",
            "task": {"domain": "messages", "labels": [{"name": label} for label in labels], "data": data, **task},
            "teacher": {"model": "teacher-model"},
        }
    )


def make_manifest(config: RunConfig | None = None, **changes: Any) -> Manifest:
    known: dict[str, Any] = {"versions": {"reflux": "0.1.0"}, "created_at": "2026-01-01T00:00:00Z"}
    return Manifest(config=dump_config(config or make_config()), **(known | changes))


def make_rows(round: int, labels: Sequence[str], texts: Sequence[str] | None = None) -> list[Sample]:
    """One of each label, with ids of which no two are alike."""
    texts = texts or [f"text {number} of round {round}" for number in range(len(labels))]
    return [
        Sample(f"{round:02x}{number:04x}-0", text, label, make_origin(f"{round:02x}{number:04x}", round))
        for number, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]


def make_run(root: Path, samples: Sequence[Sequence[Sample]] = (), config: RunConfig | None = None, **manifest: Any) -> RunDir:
    """A stopped run with these samples by round, a rejection in each, and what else lies in a run directory."""
    run = RunDir(root)
    run.create()
    write_json(run.run_json, make_manifest(config, **manifest))
    write_segment(run.table("evaluations"), pack_evaluations([make_evaluation(0, macro_f1=0.25)]))
    for round, rows in enumerate(samples, start=1):
        add_rows(run, round, rows)
        counts = RowCounts(requested=len(rows) + 1, accepted=len(rows), rejected=1)
        record = RoundRecord(round, round - 1, 1, 1, counts, 1000, 100, 1.0)
        write_segment(run.table("rounds"), pack_rounds([record]))
        write_segment(run.table("evaluations"), pack_evaluations([make_evaluation(round, macro_f1=0.25 + round / 10)]))
    for path in (run.journal / "000001.log", run.logs / "server.log", run.final_student / "model.bin", run.checkpoint(0) / "model.bin"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    write_segment(run.table("calls"), pack_calls([make_call()]))
    write_segment(run.table("prompts"), pack_prompts([make_request()]))
    return run


def add_rows(run: RunDir, round: int, rows: Sequence[Sample]) -> None:
    """Of a round in progress."""
    write_segment(run.table("samples"), pack_samples(rows))
    rejection = Rejection(
        f"{round:02x}ffff-0", RejectionReason.DUPLICATE, "of the seed", "{}", "a text", "no such label", make_origin("a", round)
    )
    write_segment(run.table("rejections"), pack_rejections([rejection]))


def finish_run(run: RunDir) -> None:
    """As far as the tables tell."""
    write_json(run.finish, Finish(best_round=1, rounds=1, reason="enough"))
    write_segment(run.table("evaluations"), pack_evaluations([make_evaluation(0, "test", 0.4), make_evaluation(1, "test", 0.8)]))
    write_json(run.summary, {})
